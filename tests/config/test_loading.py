"""Parameters: what loads, what is refused and with which words, and which of two values wins."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from moviegen import config, runs
from moviegen.config import ConfigError

ROOT = Path(__file__).parents[2]
SCALES = ("smoke", "tiny", "pretrain", "small", "1B", "5B", "30B")
# spelled as in the original report's shell scripts
ORIGINAL_NAMES = [
    "train.steps",
    "train.settings.zero_stage",
    "train.settings.gradient_accumulation_steps",
    "train.lr_scheduler.lr",
    "train.optimizer.weight_decay",
    "model.recompute_every_nth_block",
    "model.not_recompute_fa",
    "model.pretrained_model_path",
    "dataloader.batch_size.image_batch_size",
]


@pytest.fixture
def content():
    """`params/smoke.yaml` as plain dictionaries, to be spoilt."""
    return yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())


def refusal(content, overrides=None, **options):
    with pytest.raises(ConfigError) as caught:
        config.parse(content, overrides, **options)
    return str(caught.value)


def test_every_shipped_file_is_a_scale():
    assert {path.stem for path in (ROOT / "params").glob("*.yaml")} == set(SCALES)


@pytest.mark.parametrize("scale", SCALES)
def test_shipped_file_loads_with_its_own_values(scale):
    raw = config.loading.read_file(ROOT / "params" / f"{scale}.yaml")
    params = config.load(scale)
    assert params.scale == scale
    assert params == config.load(ROOT / "params" / f"{scale}.yaml")
    for stage, own in raw["stages"].items():
        recipe = params.recipes[stage]
        assert recipe.train.steps == (own.get("train", {}).get("steps") or raw["train"]["steps"])
        assert list(recipe.dataset.size) == own.get("dataset", {}).get("size", raw["dataset"]["size"])
        assert list(params.dit_config(stage).max_size) == own.get("model", {}).get("max_size", raw["model"]["max_size"])
        encoders = [raw["text"][name] for name in ("ul2", "metaclip", "byt5")]
        assert params.dit_config(stage).text_widths == tuple(one["width"] if one else 0 for one in encoders)


# --- files that extend others ---


def written(folder, **files):
    """Params files of a folder: name -> content."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / f"{list(files)[-1]}.yaml"


def test_a_file_is_laid_over_the_one_it_extends(tmp_path, content):
    mine = {"extends": "base.yaml", "scale": "mine", "stages": {2: {"train": {"steps": 5}}}}
    params = config.load(written(tmp_path, base=content, mine=mine))
    base = config.parse(content)
    assert params.scale == "mine"
    assert params.recipes[2].train.steps == 5
    assert params.recipes[2].train.settings == base.recipes[2].train.settings
    assert params.recipes[3] == base.recipes[3]
    assert params.sample == base.sample


def test_bases_may_have_bases(tmp_path, content):
    first = {"extends": "base.yaml", "seed": 1, "sample": {"steps": 3}}
    params = config.load(written(tmp_path, base=content, first=first, second={"extends": "first.yaml", "seed": 2}))
    assert (params.seed, params.sample.steps) == (2, 3)


def test_a_base_that_is_not_there_names_both_files(tmp_path):
    path = written(tmp_path, mine={"extends": "base.yaml"})
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert f"{path}: extends: there is no file {tmp_path / 'base.yaml'}" in str(caught.value)


def test_files_that_extend_each_other_are_refused(tmp_path):
    path = written(tmp_path, one={"extends": "two.yaml"}, two={"extends": "../" + tmp_path.name + "/one.yaml"})
    with pytest.raises(ConfigError, match=r"two.yaml extends .*one.yaml extends .*two.yaml: a file cannot extend"):
        config.load(path)


def leaves(content, place=()):
    """(place, value) of everything that a params file says."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*place, name))
        else:
            yield (*place, name), value


def test_what_1B_5B_and_30B_share_is_written_once():
    """No value stands in all three, nor again where the file that they extend has it already."""
    base, *published = (
        dict(leaves(yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())))
        for name in ("base/ascend", "1B", "5B", "30B")
    )
    assert {content.pop(("extends",)) for content in published} == {"base/ascend.yaml"}
    first, *others = published
    assert not [place for place, value in first.items() if all(other.get(place) == value for other in others)]
    assert not [place for content in published for place, value in content.items() if base.get(place) == value]


def test_a_run_writes_its_parameters_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    run = runs.find(config.load("5B"), "count")
    run.write_params()
    assert "extends" not in yaml.safe_load(run.params_path.read_text())
    assert config.load(run.params_path) == config.load("5B")


@pytest.mark.parametrize(("scale", "width", "layers"), [("1B", 1536, 24), ("5B", 3072, 32), ("30B", 6144, 48)])
def test_published_sizes(scale, width, layers):
    shape = config.load(scale).dit_config(3)
    assert (shape.width, shape.num_layers) == (width, layers)


# --- unknown names ---


def test_unknown_name_in_a_file_names_file_and_nearest(tmp_path, content):
    content["sample"]["guidence"] = 2.0
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(path) in str(caught.value)
    assert "unknown parameter 'sample.guidence'; did you mean 'sample.guidance'?" in str(caught.value)


def test_unknown_name_in_a_stage_of_a_file_names_stage_and_nearest(content):
    content["stages"][2]["train"]["stepz"] = 5
    message = refusal(content)
    assert "stage 2" in message
    assert "unknown parameter 'train.stepz'; did you mean 'train.steps'?" in message


def test_unknown_group_in_a_stage_is_refused(content):
    content["stages"][3]["trian"] = {"steps": 5}
    message = refusal(content)
    assert "stage 3" in message
    assert "unknown parameter 'trian'" in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("sample.step", "sample.steps"),
        ("train.setings.zero_stage", "train.settings.zero_stage"),
        ("stages.2.train.stepz", "train.steps"),
        ("tae.video.lr_scheduler.warmup", "tae.video.lr_scheduler.warmup_steps"),
    ],
)
def test_unknown_override_names_the_nearest(content, wrong, right):
    assert f"unknown parameter {wrong!r}; did you mean {right!r}?" in refusal(content, {wrong: 3})


def test_name_near_nothing_gets_no_suggestion(content):
    message = refusal(content, {"qqqqqq": 3})
    assert "'qqqqqq'" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("name", ["stages", "stages.2", "stages.4.train.steps", "stages.two.train.steps"])
def test_override_of_a_stage_must_say_which_and_what(content, name):
    message = refusal(content, {name: 3})
    assert repr(name) in message
    assert "stages.1.train.steps" in message


@pytest.mark.parametrize("name", ORIGINAL_NAMES)
def test_original_report_spelling_is_known(name):
    assert name in config.known_names()


def test_known_names_are_just_the_leaves():
    names = config.known_names()
    assert len(names) == len(set(names))
    assert not {"train", "tae.video", "dataloader.batch_size"} & set(names)
    assert {"seed", "tae.video.lr_scheduler.lr", "sample.size", "launch.master_port"} <= set(names)


# --- wrong values ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "many"),
        ("data.test_share", 1.5),
        ("tae.image.steps", 0),
        ("tae.video.lr_scheduler.factor", 1.0),
        ("text.ul2.width", -4),
        ("sample.steps", 0),
        ("sample.guidance", float("inf")),
        ("sample.guidance", float("nan")),
        ("sample.fps", float("inf")),
        ("sample.retrieval.guidance", float("inf")),
        ("sample.guidance", -1),
        ("sample.schedule", "cubic"),
        ("launch.device", "GPU"),
        ("launch.master_port", 65536),
        ("train.steps", 0),
        ("train.steps", 2.5),
        ("train.settings.zero_stage", 4),
        ("dataset.text_drop_prob", 1.1),
        ("dataset.token_drop_prob", 1.0),
        ("valid.frequency", 0),
    ],
)
def test_wrong_value_names_parameter_and_value(content, name, value):
    assert f"{name} = {value!r}: " in refusal(content, {name: value})


def test_tokens_are_not_hidden_where_no_mask_is_read(content):
    message = refusal(content, {"dataset.token_drop_prob": 0.2, "model.attend_to_padding": True})
    assert "dataset.token_drop_prob 0.2" in message
    assert "model.attend_to_padding" in message


def test_size_of_the_transformer_must_be_in_the_table(content):
    message = refusal(content, {"model.size": "7B"})
    assert "size '7B'" in message
    assert "1B, 5B, 30B" in message


def test_missing_value_is_named(content):
    del content["sample"]["frames"]
    assert "sample.frames" in refusal(content)


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize(
    ("name", "good", "multiple"),
    [("dataset.size", (48, 80), 16), ("sample.size", (96, 160), 16), ("tae.image.size", (64, 64), 8)],
)
def test_size_that_does_not_divide_says_what_would(content, name, good, multiple, side):
    height, width = good
    wrong = [height, width + multiple - 1] if side == "width" else [height + 1, width]
    message = refusal(content, {name: wrong})
    assert name.split(".")[0] in message
    assert f"{wrong[0]}x{wrong[1]} is not divisible by {multiple}: use {height}x{width}" in message


def test_size_of_the_evaluation_must_divide_too(content):
    assert "is not divisible by 8: use 64x64" in refusal(content, {"tae.evaluation.size": [64, 65]})


def test_tables_too_small_for_the_video_are_refused(content):
    # 16 frames of 112x80: 2 latent frames, 14 x 10 latents, 7 x 5 patches; stage 1 has tables for 6 x 6
    content["dataset"]["size"] = [112, 80]
    message = refusal(content)
    assert "stage 1" in message
    assert "(1, 7, 5)" in message
    assert "max_size has (1, 6, 6)" in message


def test_tables_that_just_fit_are_accepted(content):
    params = config.parse(content, {"stages.1.dataset.size": [96, 96]})
    assert params.recipes[1].dataset.size == (96, 96)


def test_sample_too_large_for_the_tables_is_refused(content):
    assert "sample" in refusal(content, {"sample.size": [1600, 1600]})


def test_video_stage_needs_a_video_batch(content):
    message = refusal(content, {"stages.2.dataloader.batch_size.video_batch_size": 0})
    assert "stage 2" in message
    assert "video_batch_size > 0" in message


@pytest.mark.parametrize(("workers", "local", "port"), [(2, 2, 0), (8, 4, 8200), (1, 1, 0)])
def test_workers_that_fill_their_hosts(content, workers, local, port):
    overrides = {"launch.worker_num": workers, "launch.local_worker_num": local, "launch.master_port": port}
    overrides["train.sequence_parallel.shards"] = 1
    assert config.parse(content, overrides).launch.worker_num == workers


@pytest.mark.parametrize(
    ("workers", "local", "words"),
    [
        (3, 2, "worker_num 3 is not a multiple of local_worker_num 2"),
        (1, 2, "worker_num 1 is not a multiple of local_worker_num 2"),
        (4, 2, "set master_port"),
    ],
)
def test_workers_that_do_not(content, workers, local, words):
    assert words in refusal(content, {"launch.worker_num": workers, "launch.local_worker_num": local})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"launch.worker_num": 1, "launch.local_worker_num": 1}, "2 is more than launch.local_worker_num 1"),
        ({"launch.worker_num": 4, "launch.master_port": 8200}, "2 is for a job of one host"),
        ({"stages.2.train.sequence_parallel.shards": 4}, "2 is not a multiple of train.sequence_parallel.shards 4"),
        ({"stages.2.train.worker_num": 0}, "= 0"),
    ],
)
def test_a_stage_takes_no_more_workers_than_there_are(content, overrides, words):
    alone = {f"stages.{stage}.train.sequence_parallel.shards": 1 for stage in (1, 3)}
    message = refusal(content, {"stages.2.train.worker_num": 2} | alone | overrides)
    assert f"train.worker_num {words}" in message
    assert re.search(r"stages?[ .]2", message)


def test_a_stage_takes_some_of_the_workers_or_all(content):
    params = config.parse(content, {"stages.3.train.worker_num": 1, "stages.3.train.sequence_parallel.shards": 1})
    assert [params.launch_of(stage).worker_num for stage in (1, 2, 3)] == [2, 2, 1]
    assert params.launch_of(3).local_worker_num == 1 and params.launch_of(2) == params.launch


def test_stages_are_one_two_three(content):
    del content["stages"][2]
    assert "stages must be 1, 2 and 3, not [1, 3]" in refusal(content)


def test_groups_of_the_group_norms_must_divide(content):
    assert "num_groups 3" in refusal(content, {"tae.model.num_groups": 3})


def test_parameters_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        config.load("smoke").sample.steps = 3


# --- overrides ---


def test_override_of_a_stage_group_wins_over_every_stage(content):
    assert {stage: own.get("train", {}).get("steps") for stage, own in content["stages"].items()} == {
        1: None,
        2: 6,
        3: 4,
    }
    params = config.parse(content, {"train.steps": 17})
    assert [params.recipes[stage].train.steps for stage in (1, 2, 3)] == [17, 17, 17]


def test_override_of_one_stage_leaves_the_others(content):
    params = config.parse(content, {"stages.2.train.steps": 17})
    assert [params.recipes[stage].train.steps for stage in (1, 2, 3)] == [8, 17, 4]


def test_an_override_where_one_stage_is_computed_is_of_that_stage_alone(content):
    overrides = config.parse_overrides("--train.steps 9 --sample.steps 3", stage=2)
    assert overrides == {"stages.2.train.steps": 9, "sample.steps": 3}
    changed, base = config.parse(content, overrides), config.parse(content)
    assert changed.recipes[2].train.steps == 9
    assert (changed.recipes[1], changed.recipes[3]) == (base.recipes[1], base.recipes[3])


@pytest.mark.parametrize("text", ["/my/clips #2", "007", "[a]", "on", "null", "a: b", "'quoted'"])
@pytest.mark.parametrize("name", ["data.root", "stages.1.model.pretrained_model_path", "launch.master_addr"])
def test_a_text_parameter_takes_its_text_literally(name, text):
    assert config.parse_overrides([f"--{name}", text]) == {name: text}
    assert config.parse_overrides([f"{name}={text}"]) == {name: text}


def test_a_choice_of_words_is_text_and_other_values_are_yaml():
    words = "--train.settings.dtype float16 --train.ema null --dataset.size [48,80] --launch.bind_core on"
    assert config.parse_overrides(words) == {
        "train.settings.dtype": "float16", "train.ema": None, "dataset.size": [48, 80], "launch.bind_core": True,
    }  # fmt: skip


def test_overrides_reach_stages_whose_numbers_became_text(content):
    dumped = json.loads(config.parse(content).model_dump_json())
    assert set(dumped["stages"]) == {"1", "2", "3"}
    overrides = {"stages.2.train.clip_norm": 0.5}
    assert config.parse(dumped, overrides).recipes == config.parse(content, overrides).recipes


def test_a_runs_own_parameters_take_overrides_of_a_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    run = runs.find(config.load("smoke"), "stage2")
    run.write_params()
    overrides = config.parse_overrides("--train.clip_norm 0.5", stage=2)
    assert config.load(run.params_path, overrides).recipes == config.load("smoke", overrides).recipes


def test_later_override_wins(content):
    steps = {}
    for order in (("train.steps", "stages.2.train.steps"), ("stages.2.train.steps", "train.steps")):
        params = config.parse(content, {name: value for value, name in enumerate(order, 20)})
        steps[order[0]] = [params.recipes[stage].train.steps for stage in (1, 2, 3)]
    assert steps == {"train.steps": [20, 21, 20], "stages.2.train.steps": [21, 21, 21]}


def test_override_leaves_its_neighbours(content):
    params = config.parse(content, {"train.lr_scheduler.lr": 0.5})
    rates = [params.recipes[stage].train.lr_scheduler for stage in (1, 2, 3)]
    assert [(rate.lr, rate.warmup_steps, rate.patience) for rate in rates] == [(0.5, 20, 5)] * 3


def test_overrides_do_not_change_what_was_read(content):
    before = yaml.safe_dump(content)
    config.parse(content, {"train.steps": 17, "sample.steps": 5})
    assert yaml.safe_dump(content) == before


def test_written_parameters_load_equal(tmp_path):
    params = config.load("smoke", {"train.steps": 17, "stages.3.train.steps": 2, "data.root": "/x y"})
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    assert config.load(path).recipes == params.recipes
    assert config.load(path).model_dump(mode="json") == params.model_dump(mode="json")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {}),
        ("--train.steps 7", {"train.steps": 7}),
        ("--train.steps=7", {"train.steps": 7}),
        ("train.steps=7", {"train.steps": 7}),
        ("--train.steps 7 sample.steps=10", {"train.steps": 7, "sample.steps": 10}),
        (["--data.root", "/a folder/=x"], {"data.root": "/a folder/=x"}),
        ("--data.root '/a folder'", {"data.root": "/a folder"}),
        ("--data.root=", {"data.root": ""}),
        ("--sample.size [96,160]", {"sample.size": [96, 160]}),
        ("--sample.guidance -1.5", {"sample.guidance": -1.5}),
        ("--launch.bind_core false", {"launch.bind_core": False}),
        ("--tae.model.scaling_factor null", {"tae.model.scaling_factor": None}),
    ],
)
def test_override_spellings(words, expected):
    assert config.parse_overrides(words) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [("train.steps 7", "'train.steps' is not a parameter"), ("--a=1 --train.steps", "--train.steps has no value")],
)
def test_override_misspelt(words, expected):
    with pytest.raises(ConfigError, match=expected):
        config.parse_overrides(words)


@pytest.mark.parametrize(
    ("words", "stage", "expected"),
    [
        ("--train.steps 5 --train.steps 6", None, r"train\.steps is given twice, as '5' and as '6'"),
        ("train.steps=5 --train.steps=5", None, r"train\.steps is given twice"),
        ("--train.steps 5 --stages.2.train.steps 6", 2, r"stages\.2\.train\.steps is given twice, as '5' and as '6'"),
        (["--data.root", "a", "--data.root", "b c"], None, r"data\.root is given twice, as 'a' and as 'b c'"),
    ],
)
def test_an_override_given_twice_is_refused(words, stage, expected):
    with pytest.raises(ConfigError, match=expected):
        config.parse_overrides(words, stage)


@pytest.mark.parametrize("words", ["--sample.size [96,", "--data.root 'open"])
def test_override_that_cannot_be_read(words):
    with pytest.raises(ConfigError):
        config.parse_overrides(words)


# --- what was fetched, and the parameters without it ---

ASSETS = {
    "data": {"film": "params/shots.csv"},
    "text": {"ul2": {"width": 384, "max_tokens": 32, "folder": "asset:minilm"}, "metaclip": None, "byt5": None},
    "without_assets": {
        "data": {"film": ""},
        "text": {"ul2": {"width": 64, "folder": ""}, "byt5": {"width": 32, "max_tokens": 8}},
        "stages": {"2": {"train": {"steps": 5}}},
    },
}


def test_what_a_file_says_without_assets_is_laid_over_it_where_there_are_none(content):
    content |= ASSETS
    fetched, without = config.parse(content), config.parse(content, {"assets": "none"})
    assert (fetched.assets, fetched.data.film, fetched.text.ul2.folder) == ("fetch", "params/shots.csv", "asset:minilm")
    assert fetched.text.widths == (384, 0, 0)
    assert (without.assets, without.data.film, without.text.ul2.folder) == ("none", "", "")
    assert without.text.widths == (64, 0, 32)
    assert without.text.ul2.max_tokens == 32  # only what it names
    assert [without.recipes[stage].train.steps for stage in (2, 3)] == [5, fetched.recipes[3].train.steps]
    assert config.parse(content | {"assets": "none"}) == without  # said by the file itself


def test_an_override_wins_over_what_a_file_says_without_assets(content):
    content |= ASSETS
    for order in (1, -1):
        overrides = {"assets": "none", "text.ul2.width": 16, "data.film": "mine.csv", "stages.2.train.steps": 9}
        params = config.parse(content, dict(list(overrides.items())[::order]))
        assert (params.text.widths, params.data.film) == ((16, 0, 32), "mine.csv")
        assert params.recipes[2].train.steps == 9
    assert config.parse(content | {"assets": "none"}, {"assets": "fetch"}).text.widths == (384, 0, 0)


@pytest.mark.parametrize("assets", ["fetch", "none"])
def test_parameters_without_assets_are_the_same_once_written(tmp_path, content, assets):
    params = config.parse(content | ASSETS, {"assets": assets, "text.ul2.width": 16})
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    assert config.load(path) == params
    assert config.load(path, {"assets": "none"}).text.widths == {"fetch": (64, 0, 32), "none": (16, 0, 32)}[assets]


def test_what_extends_a_file_inherits_what_it_says_without_assets(tmp_path, content):
    mine = {"extends": "base.yaml", "scale": "mine", "without_assets": {"text": {"byt5": {"width": 48}}}}
    params = config.load(written(tmp_path, base=content | ASSETS, mine=mine), {"assets": "none"})
    assert params.text.widths == (64, 0, 48)


def test_what_cannot_be_without_assets_is_refused_there(content):
    content |= {"without_assets": {"text": {"ul2": {"widht": 3}}}}
    config.parse(content)
    assert "text.ul2.widht" in refusal(content, {"assets": "none"})
    assert "assets = 'some'" in refusal(content, {"assets": "some"})


def test_paths_of_assets_lie_in_the_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    assert config.from_root("asset:lpips/vgg16.ckpt") == tmp_path / "assets" / "lpips" / "vgg16.ckpt"
    assert config.from_root("asset:minilm") == tmp_path / "assets" / "minilm"
    assert config.from_root("assets/minilm") == ROOT / "assets" / "minilm"
    monkeypatch.delenv("MOVIEGEN_OUTPUTS")
    assert config.from_root("asset:minilm") == ROOT / "outputs" / "assets" / "minilm"


def test_tiny_names_what_is_fetched_and_smoke_nothing():
    def named(**overrides):
        return {
            path for path in config.local_paths(config.load("tiny", overrides)).values() if path.startswith("asset:")
        }

    assert named() == {"asset:lpips/vgg16.ckpt", "asset:minilm"}
    assert named(assets="none") == set()
    assert config.load("tiny", {"assets": "none"}).data.film == ""
    smoke = config.load("smoke")
    assert not any(path.startswith("asset:") for path in config.local_paths(smoke).values())
    assert (smoke.data.film, smoke.without_assets) == ("", {})


# --- encoders that are left out ---


def test_an_encoder_may_be_left_out(content):
    params = config.parse(content, {"text.metaclip": None})
    assert params.text.metaclip is None
    assert list(params.text.encoders) == ["ul2", "byt5"]
    assert params.text.widths == params.dit_config(3).text_widths == (64, 0, 32)
    assert params.text.lengths == (24, 32)
    assert params.dit_config(3).embedding_widths == (64, 32)
    written_once = config.parse(params.model_dump(mode="json"))
    assert written_once == params


def test_without_any_encoder_captions_would_say_nothing(content):
    content["text"] = dict.fromkeys(("ul2", "metaclip", "byt5"))
    assert "none of ul2, metaclip, byt5 is there: captions would say nothing" in refusal(content)


# --- files ---


def test_missing_file_lists_the_scales():
    with pytest.raises(
        ConfigError, match=r"no params file .*huge\.yaml; there are: 1B, 30B, 5B, pretrain, small, smoke, tiny"
    ):
        config.load("huge")


def test_missing_file_elsewhere_lists_that_folder(tmp_path):
    with pytest.raises(ConfigError, match="there are: none in that folder"):
        config.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "words"), [("a: [1", "is not YAML"), ("", "holds no parameters"), ("- 1", "holds no")]
)
def test_file_of_something_else_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(path)
    assert str(path) in str(caught.value)


def test_outside_a_checkout_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not inside a checkout"):
        config.project_root()


def test_root_is_found_from_below():
    assert config.project_root(ROOT / "moviegen" / "data") == ROOT


def test_outputs_go_where_the_environment_says(monkeypatch, tmp_path):
    params = config.load("smoke")
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", str(tmp_path))
    assert config.outputs_folder(params) == tmp_path / "smoke"
    monkeypatch.delenv("MOVIEGEN_OUTPUTS")
    assert config.outputs_folder(params) == ROOT / "outputs" / "smoke"


def test_relative_outputs_are_the_same_folder_to_a_notebook(monkeypatch):
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", "elsewhere")
    for folder in (ROOT, ROOT / "notebooks"):
        monkeypatch.chdir(folder)
        assert config.outputs_root() == ROOT / "elsewhere"
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", "~/results")
    assert config.outputs_root() == Path("/home/me/results")


@pytest.mark.parametrize(
    "scale", ["", ".", "..", "../mine", "a/b", "/etc", ".hidden", "-x", "a b", "a\n", "hashes.json", "measured.jsonl"]
)
def test_scale_that_names_no_folder_of_its_own_is_refused(scale):
    with pytest.raises(ConfigError, match="is no name for a folder") as caught:
        config.load("smoke", {"scale": scale})
    assert f"scale: {scale!r}" in str(caught.value)


@pytest.mark.parametrize("scale", ["mine", "5B-v1.2", "größe_2", "字"])
def test_scale_of_ones_own_is_taken(scale):
    assert config.load("smoke", {"scale": scale}).scale == scale


@pytest.mark.parametrize(
    ("video", "latent"),
    [
        ((1, 256, 256), (1, 32, 32)),
        ((8, 256, 448), (1, 32, 56)),
        ((9, 48, 80), (2, 6, 10)),
        ((256, 576, 1024), (32, 72, 128)),
    ],
)
def test_latent_size(video, latent):
    assert config.latent_size(*video) == latent


def test_a_path_that_is_not_utf_8_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"caf\\udce9.*not UTF-8"):
        config.parse_overrides(["--data.root", os.fsdecode(b"/clips/caf\xe9")])


@pytest.mark.parametrize("name", ["hash sign #2", "100 % ? & 'quoted'", "-dash", "0003", "1e5", "null", "a: b", "字"])
def test_a_folder_of_any_name_is_the_one_that_is_named(tmp_path, name):
    """From the command line, from a notebook's `overrides`, and from the file that a run writes."""
    folder = str(tmp_path / name)
    for words in (["--data.root", folder], [f"data.root={folder}"], f"--data.root {shlex.quote(folder)}"):
        params = config.load("smoke", config.parse_overrides(words))
        assert params.data.root == folder
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
        assert config.load(tmp_path / "params.yaml").data.root == folder


def test_the_home_folder_is_written_as_a_shell_does(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.from_root("~/clips") == tmp_path / "clips"
    assert config.from_root("~") == tmp_path
    assert config.from_root("~no_such_user/clips") == config.project_root() / "~no_such_user/clips"
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", "~/made")
    assert config.outputs_root() == tmp_path / "made"
    (tmp_path / "base.yaml").write_text((ROOT / "params" / "smoke.yaml").read_text())
    (tmp_path / "mine.yaml").write_text("extends: ~/base.yaml\nseed: 7\n")
    assert config.load("~/mine.yaml").seed == 7


def test_the_home_folder_of_nobody_is_a_name(monkeypatch):
    """`pathlib` raises an error of its own."""
    monkeypatch.setenv("MOVIEGEN_OUTPUTS", "~no_such_user/made")
    assert config.outputs_root() == config.project_root() / "~no_such_user/made"
    with pytest.raises(ConfigError, match=r"no params file ~no_such_user/mine\.yaml"):
        config.load("~no_such_user/mine.yaml")
