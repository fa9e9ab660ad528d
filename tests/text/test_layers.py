"""The encoders' activations against float64."""

import mindspore as ms
import numpy as np
import pytest

from moviegen.text import clip, t5
from tests.text import numpy_models

ACTIVATIONS = t5.ACTIVATIONS | clip.ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_exact(name):
    """To a millionth of the largest; MindSpore's tanh on CPU would make it 2e-5."""
    x = np.linspace(-10, 10, 20001, dtype=np.float32)
    wanted = numpy_models.ACTIVATIONS[name](x.astype(np.float64))
    found = ACTIVATIONS[name](ms.Tensor(x)).asnumpy()
    assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()
