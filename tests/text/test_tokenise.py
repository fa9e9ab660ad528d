"""Tokens of captions: bytes, tokenizers in files, and what is cut."""

import json
import warnings
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from moviegen.config import ConfigError
from moviegen.text.encoders import Pretrained
from moviegen.text.tokenise import bytes_of, cut, read_tokeniser
from tests.text.making import write_byt5, write_metaclip, write_tokeniser, write_ul2


def test_bytes_follow_three_marks_and_precede_the_end():
    assert bytes_of("") == [1]
    assert bytes_of("ab") == [97 + 3, 98 + 3, 1]
    assert bytes_of("Ä") == [0xC3 + 3, 0x84 + 3, 1]
    assert bytes_of("犬") == [0xE7 + 3, 0x8A + 3, 0xAC + 3, 1]
    assert bytes_of(" \n") == [32 + 3, 10 + 3, 1]


def test_words_of_a_file(tmp_path):
    write_tokeniser(tmp_path)
    tokenise = read_tokeniser(tmp_path)
    assert tokenise("a red dog") == [4, 5, 9, 1]
    assert tokenise("A Red BLUE dog") == [4, 5, 2, 9, 1]  # lower case as the file says; blue is unknown
    assert tokenise("犬 läuft") == [12, 11, 1]
    assert tokenise("") == [1]
    assert tokenise("a red car turns left") == [4, 5, 6, 7, 8, 1]  # though the file asks to cut at four


def test_start_and_case_are_the_files_affair(tmp_path):
    write_tokeniser(tmp_path, start="<s>", lowercase=False)
    assert read_tokeniser(tmp_path)("a Red dog") == [3, 4, 2, 9, 1]


def test_merged_bytes_of_a_file(tmp_path):
    """CLIP's kind: pairs of letters merged in the order of a list."""
    letters = ["<|endoftext|>", *pre_tokenizers.ByteLevel.alphabet()]
    vocab = {token: index for index, token in enumerate([*letters, "do", "dog"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("d", "o"), ("do", "g")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_tokeniser(tmp_path)("dogdo") == [vocab["dog"], vocab["do"], 0]
    assert read_tokeniser(tmp_path)("gd") == [vocab["g"], vocab["d"], 0]


def test_file_without_an_end_of_text_is_refused(tmp_path):
    write_tokeniser(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text()) | {"post_processor": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"tokenizer.json does not mark the end"):
        read_tokeniser(tmp_path)


@pytest.mark.parametrize("content", ["{}", "no json"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer.json is not a tokenizer"):
        read_tokeniser(tmp_path)


@pytest.mark.parametrize("changes", [{"unk_token": "<gone>"}, {"vocab": {"</s>": 1}}, {"unk_token": ""}])
def test_a_vocabulary_without_its_unknown_word(tmp_path, changes):
    """Which the package finds out when it meets one."""
    write_tokeniser(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"] |= changes
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"tokenizer.json is not a tokenizer"):
        read_tokeniser(tmp_path)("an unknown word")


def test_a_panic_of_the_package_is_an_error_of_the_file(tmp_path):
    """Marks of the text's end that no special token explains; a panic is no `Exception`."""
    write_tokeniser(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"tokenizer.json is not a tokenizer"):
        read_tokeniser(tmp_path)


def test_an_interruption_is_none(tmp_path, monkeypatch):
    write_tokeniser(tmp_path)

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("moviegen.text.tokenise.Tokenizer", SimpleNamespace(from_file=interrupted))
    with pytest.raises(KeyboardInterrupt):
        read_tokeniser(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"has no tokenizer.json"):
        read_tokeniser(tmp_path)


def test_cut_keeps_the_beginning_and_the_end():
    assert cut([3, 5, 6, 7, 1], 4) == [3, 5, 6, 1]
    assert cut([3, 5, 6, 1], 4) == [3, 5, 6, 1]
    assert cut([3, 1], 1) == [1]


@pytest.mark.parametrize(("write", "name", "unit"), [(write_ul2, "ul2", "dog "), (write_byt5, "byt5", "w")])
def test_long_caption_is_cut_with_a_warning_that_names_it(tmp_path, write, name, unit):
    setting = write(tmp_path)
    encoder = Pretrained(name, setting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = encoder.tokens(unit * (setting.max_tokens - 1))
    longer = unit * (setting.max_tokens + 5)
    with pytest.warns(UserWarning, match=f"{name} takes {setting.max_tokens} tokens; cut: {longer!r}"):
        assert encoder.tokens(longer) == fits
    assert len(fits) == setting.max_tokens
    assert fits[-1] == 1


def test_tokenizer_of_a_larger_vocabulary_is_refused(tmp_path):
    setting = write_metaclip(tmp_path)
    write_tokeniser(tmp_path, start="<s>", words=[f"w{n}" for n in range(30)])
    encoder = Pretrained("metaclip", setting)
    assert encoder.tokens("w3") == [3, 7, 1]
    with pytest.raises(ConfigError, match=r"gives token 24 for 'w20', .* knows 24: they do not belong together"):
        encoder.tokens("w20")
