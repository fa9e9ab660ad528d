from moviegen import config, plan
from moviegen.report.pages import transformer
from moviegen.runs import files
from tests.report.making import cells, finished, labels, svg, words


def test_without_a_run_nothing_was_counted(params):
    assert "not run yet: open 05_transformer.ipynb" in transformer.sizes(params, None).data


def test_sizes_are_counted_on_the_class_and_by_formula(params):
    run = finished(params, "count")
    summary = {size: {"counted": number} for number, size in enumerate(("1B", "5B", "30B"), 1001)}
    files.write_json(run.folder / "summary.json", summary)
    rows = cells(transformer.sizes(params, run)).astype(str).set_index("")
    assert list(rows.loc["counted on the class", list(summary)]) == ["1,001", "1,002", "1,003"]
    for size in summary:
        assert rows.loc["by formula", size] == f"{plan.parameter_count(config.SIZES[size]):,}"
    assert list(rows.loc["rounded"])[1:] == ["934 M", "4.92 B", "29.3 B"]
    assert rows.loc["counted on the class", "tiny"] == "not recorded"


def test_position_tables_grow_as_the_recipes_say():
    params = config.load("tiny", {"stages.2.model.max_size": [4, 9, 12]})
    said = words(transformer.positions(params))
    assert "4x9x12 in stage 2" in said
    assert "grow 1.5 and 4 times; the published recipes' grow 2 and 3 times" in said


def test_backbone_has_the_sizes_of_the_recipe(params):
    drawing, dit = svg(transformer.backbone(params.dit_config(3))), params.dit_config(3)
    assert f"<!-- {dit.num_layers} times -->" in drawing
    assert f"linear to width {dit.width} -->" in drawing


def test_a_block_is_drawn_as_it_is_computed():
    dit = config.load("1B").dit_config(3)
    drawn = labels(transformer.block(dit))
    assert drawn.count("+") == 4  # positions, and what the three branches give
    assert drawn.count("RMSNorm") == 2  # none before cross-attention
    assert [text for text in drawn if text.startswith("gate ")] == ["gate 1", "gate 2"]
    assert {"cross-attention, 16 heads", "SwiGLU, width 4,096 inside", "tokens of width 1,536"} <= set(drawn)
    assert f"one of {dit.num_layers} blocks" in drawn


def test_padding_and_dropped_captions_are_those_of_the_recipes():
    params = config.load("tiny", {"dataset.token_drop_prob": 0.0})
    plain = words(transformer.text_inputs(params))
    assert plain == "Padding is masked. Of the training samples 20 % have their caption dropped."
    overrides = {"model.attend_to_padding": True, "dataset.token_drop_prob": 0.0}
    params = config.load("tiny", overrides | {"stages.2.dataset.text_drop_prob": 0.125})
    shown = words(transformer.text_inputs(params))
    assert "Padding is not masked, as when the published weights were trained." in shown
    assert "Of the training samples 20 % in stage 1, 12.5 % in stage 2 and 20 % in stage 3 have" in shown
    shown = words(transformer.text_inputs(config.load("tiny", {"dataset.token_drop_prob": 0.25})))
    assert "Of a caption's tokens 25 % are hidden in training" in shown
