import ast
import importlib
import inspect
import json
import re
import typing

import nbformat
import papermill
import pydantic
import pytest

from moviegen.config import Params, project_root
from moviegen.config.recipe import STAGE_GROUPS, Recipe
from moviegen.report.notebook import GROUPS
from moviegen.report.published import FACTS
from moviegen.report.sections import SECTIONS

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def trees(path):
    return [ast.parse(cell.source) for cell in code(path)]


def calls(path, name):
    """First arguments of the calls of `section.<name>`, where they are plain text."""
    every = (node for tree in trees(path) for node in ast.walk(tree) if isinstance(node, ast.Call))
    methods = (node for node in every if isinstance(node.func, ast.Attribute) and node.func.attr == name)
    return {node.args[0].value for node in methods if node.args and isinstance(node.args[0], ast.Constant)}


def test_is_valid_and_has_no_outputs(path):
    nbformat.validate(json.loads(path.read_text()))
    for cell in code(path):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_belongs_to_a_section_and_opens_it(path):
    assert path.name in {section.notebook for section in SECTIONS}
    assert f'open_section("{path.stem.partition("_")[2]}", globals())' in code(path)[1].source


def test_prose_leads_to_what_is_beside_it(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#]+)", prose):
        assert re.match("https?://", link) or (path.parent / link).is_file(), link


def test_declares_every_parameter(path):
    declared = papermill.inspect_notebook(path)  # papermill warns of every other name it is given
    stage = {"stage"} if path.name == "06_training.ipynb" else set()
    assert set(declared) == {"scale", "extends", "overrides"} | stage | set(Params.model_fields)
    assert all(declared[group]["default"] == "None" for group in GROUPS)


def test_takes_dotted_names_before_papermill_gives_them(path):
    parameters = code(path)[0]
    assert "parameters" in parameters.metadata.tags
    assert "take_dotted_names()" in parameters.source


def fields(kind):
    """The names that a group of parameters takes, with those of the groups in it."""
    for one in (kind, *typing.get_args(kind)):
        if inspect.isclass(one) and issubclass(one, pydantic.BaseModel):
            for name, field in one.model_fields.items():
                yield name
                yield from fields(field.annotation)


KINDS = {name: field.annotation for name, field in (Recipe.model_fields | Params.model_fields).items()}
KINDS |= {name: Recipe.model_fields[name].annotation for name in STAGE_GROUPS}
NAMED = re.compile(r'"(\w+)": ')


def test_every_line_of_the_parameters_says_what_it_is(path):
    lines, taken = code(path)[0].source.splitlines(), []
    for statement in trees(path)[0].body:
        if isinstance(statement, ast.Assign):
            name, comment = statement.targets[0].id, lines[statement.lineno - 1].partition("  # ")[2]
            taken.append(name)
            assert len(comment.split()) > 2, name
            known = set(fields(KINDS.get(name))) | (set(KINDS) if name in ("without_assets", "stages") else set())
            assert set(NAMED.findall(comment)) <= known, name
    assert set(Params.model_fields) < set(taken)


def test_the_parameters_are_said_alike_everywhere(path):
    said = [[line for line in code(one)[0].source.splitlines() if not line.startswith("stage ")] for one in NOTEBOOKS]
    assert said[NOTEBOOKS.index(path)] == said[0]


def test_imports_only_its_page(path):
    imports = [node for tree in trees(path) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    page = path.stem.partition("_")[2]
    assert [ast.unparse(node) for node in imports] == [
        "from moviegen.report.notebook import open_section, take_dotted_names",
        f"from moviegen.report.pages import {page} as page",  # its own name may be a parameter's: `data`
    ]


def test_shows_all_that_its_page_holds(path):
    page = importlib.import_module(f"moviegen.report.pages.{path.stem.partition('_')[2]}")
    functions = {name for name, value in vars(page).items() if inspect.isfunction(value) and not name.startswith("_")}
    shown = getattr(page, "__all__", [name for name in functions if vars(page)[name].__module__ == page.__name__])
    used = (node for tree in trees(path) for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    assert {node.attr for node in used if isinstance(node.value, ast.Name) and node.value.id == "page"} == set(shown)


def test_holds_no_logic_of_its_own(path):
    for tree in trees(path):
        statements = [type(node) for node in tree.body]
        assert set(statements) <= {ast.ImportFrom, ast.Assign, ast.Expr}
        launches = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "launch"]
        assert len(launches) <= 1  # a second one would clear the first one's line


def test_uses_the_runs_its_section_names(path):
    same = [section for section in SECTIONS if section.notebook == path.name]
    launches = set.intersection(*(set(section.launches) for section in same))
    assert calls(path, "launch") == launches if len(same) > 1 else calls(path, "launch") == set(same[0].launches)
    assert calls(path, "run") <= {name for section in same for name in section.launches + section.reads}


def test_keeps_the_parameters_as_they_were_given(path):
    later = (node for tree in trees(path)[1:] for node in ast.walk(tree) if isinstance(node, ast.Name))
    assigned = {node.id for node in later if isinstance(node.ctx, ast.Store)}
    assert not assigned & {"scale", "extends", "overrides", "stage", *GROUPS}


NOT_READ = re.compile(  # what holds digits and states nothing: code, addresses, formulas, citations, numbers of a list
    r"`[^`]*`|\]\([^)]*\)|\$\$.*?\$\$|\$[^$]+\$|\[@[^\]]*\]|<[^>]*>|^\d+\. ", re.DOTALL | re.MULTILINE
)
NAMES = re.compile(
    r"\b(LLaMa 3|Stable Diffusion 3(\.5)?|Mochi 1|UCF-101|UL2|ByT5|VGG16|MindSpore \d\.\d\.\d|Conv2\.5D|[123]-?D"
    r"|8[- ]bits?|bf16|bfloat16|float(16|32)|O[01]|rank 0|t = [01]|[01] for equal frames|guidance of 1"
    r"|([Ss]tages?|ZeRO) \d(( to|, | and) \d)*)\b"
)
DURATION = re.compile(r"\b(few|half an?|two|some|these) (seconds?|minutes?|hours?)\b")


def typed_numbers(text, facts):
    """What a notebook's prose states by digits, or of durations, that is neither a name nor a published fact."""
    for fact in facts:
        text = text.replace(fact, "")
    said = NAMES.sub("", NOT_READ.sub("", text))
    return re.findall(r"\S*\d\S*", said) + [found[0] for found in DURATION.finditer(said)]


def test_prose_types_no_numbers_that_parameters_or_runs_know(path):
    """Say them by a function of the page, or with their source in `moviegen.report.published.FACTS`."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    prose = "\n\n".join(cells)
    facts = [fact.words for fact in FACTS if fact.notebook == path.stem.partition("_")[2]]
    assert typed_numbers(prose, facts) == []
    for wrong in ("with *r* = 3 of them", "of 10<sup>-5</sup>", "trained for a few minutes", "tables grow 3x"):
        assert typed_numbers(f"{prose}\n\n{wrong}", facts)
