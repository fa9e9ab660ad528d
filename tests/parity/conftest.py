"""Weights and comparison for the parity tests; what they compare with is in `.venv-parity` (`make parity`)."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def inference():
    """The references keep no graph unless a test asks for gradients."""
    torch.manual_seed(0)
    with torch.no_grad():
        yield
