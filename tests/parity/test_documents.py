"""The Python of docs/weights.md, as it is written there, with random weights in the place of what it would download."""

import re
import sys
from contextlib import chdir
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import transformers

from moviegen.config import TextEncoder
from moviegen.tae.lpips import load_lpips
from moviegen.text.encoders import Pretrained
from tests.parity.test_lpips import vgg16
from tests.parity.test_text import UL2, write_tokeniser

WEIGHTS = Path(__file__).parents[2] / "docs" / "weights.md"


def run(about, folder):
    """The block that imports `about`, in a folder of its own."""
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", WEIGHTS.read_text(), re.DOTALL) if about in text)
    (folder / "models").mkdir()
    with chdir(folder):
        exec(compile(block, str(WEIGHTS), "exec"), {})


def test_the_file_of_lpips(tmp_path, monkeypatch):
    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(vgg16=lambda pretrained: vgg16(pretrained))
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    import lpips

    whole = lpips.LPIPS
    monkeypatch.setattr(lpips, "LPIPS", lambda net: whole(net=net, pretrained=False, pnet_rand=True, verbose=False))
    run("import lpips", tmp_path)
    assert len(list(load_lpips(tmp_path / "models" / "lpips-vgg16.safetensors").get_parameters())) == 13 * 2 + 5


def test_the_folder_of_ul2(tmp_path, monkeypatch):
    model = transformers.T5EncoderModel(transformers.T5Config(**UL2))
    tokenizer = SimpleNamespace(save_pretrained=lambda folder: write_tokeniser(Path(folder), ["</s>"]))
    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", lambda name: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    run("from transformers", tmp_path)
    encoder = Pretrained("ul2", TextEncoder(width=64, max_tokens=16, folder=str(tmp_path / "models" / "ul2")))
    found = dict(encoder.load().parameters_and_names())["shared.weight"].asnumpy()
    assert torch.equal(torch.from_numpy(found), model.state_dict()["shared.weight"])


@pytest.mark.parametrize("name", ["MetaClip2TextModel", "CLIPTextModel"])
def test_the_classes_that_are_named_for_metaclip_exist(name):
    assert name in WEIGHTS.read_text()
    assert hasattr(transformers, name)
