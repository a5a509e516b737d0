"""The house keeps its plan: imports go one way, nothing private crosses a door, no model is named above its
floor. It reads source and runs nothing; `tools/house.py` draws the floors from the same imports.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools import house

# The largest that a function may be, and what may stand in for a parameter too many.
PARAMETERS = 6
PARAMETERS_IN_MODELS = 5
LINES_IN_MODELS = 40
IGNORES = 15  # `type: ignore`, in the whole package
LINES = 29_641

# What a name may not be: it cannot be searched, and says nothing of what it holds.
PRONOUNS = {"found", "given", "told", "there", "those", "beside", "kept", "taken", "said", "then", "here"}


def write(folder: Path, files: dict[str, str]) -> house.House:
    """A small house to see the tests fail on."""
    for name, text in files.items():
        file = folder / "llm_rebuild" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return house.read(folder / "llm_rebuild")


@pytest.fixture(scope="module")
def ours() -> house.House:
    return house.read()


def test_no_circle_of_imports(ours: house.House):
    assert house.circles(ours) == []


def test_imports_go_down_only(ours: house.House):
    assert house.upwards(ours) == []


def test_every_room_has_a_floor(ours: house.House):
    assert {house.room_of(module) for module in ours} <= set(house.FLOOR_OF)


def test_nothing_private_crosses_a_door(ours: house.House):
    assert house.private(ours) == []


def test_no_model_is_named_above_its_floor(ours: house.House):
    assert house.models_named(ours) == set(house.MAY_NAME_A_MODEL)
    assert len(house.MAY_NAME_A_MODEL) <= 3


def test_a_model_is_added_by_files_of_its_own():
    """The fourth model's name stands in few files beside its own: who adds a fifth touches these."""
    assert house.naming_the_fourth() == set(house.MAY_NAME_THE_FOURTH)
    assert len(house.MAY_NAME_THE_FOURTH) <= 5


def test_a_list_of_models_in_a_tool_is_seen(tmp_path: Path):
    files = {
        "tools/lists.py": 'NAMES = ["llama"]\n',
        "tools/speaks.py": '"""As in Llama."""\n',
        "tests/test_it.py": 'NAME = "llama"\n',
        "docs/javascripts/rebuild/llama.js": 'const NAME = "llama";\n',
        "docs/javascripts/lists.js": '// llama\nconst NAMES = ["llama"];\n',
        "docs/javascripts/speaks.js": "/** As in Llama. */\n",
        "mkdocs.yml": "nav:\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert house.naming_the_fourth(tmp_path) == {"tools/lists.py", "docs/javascripts/lists.js"}


def test_what_is_wrong_is_seen(tmp_path: Path):
    wrong = write(
        tmp_path,
        {
            "models/one.py": "def f():\n    from ..verify.two import _hidden\n",
            "verify/two.py": "from llm_rebuild.models import one\nwidth = 'n_embd'\n",
            "attic/three.py": "import llm_rebuild.models.one as one\nx = one._private\n",
        },
    )
    assert house.circles(wrong) == [["llm_rebuild.models.one", "llm_rebuild.verify.two"]]
    assert house.upwards(wrong) == ["llm_rebuild.models.one -> llm_rebuild.verify.two"]
    assert [line.partition(" ")[2] for line in house.private(wrong)] == ["one._private", "_hidden"]
    assert house.models_named(wrong) == {"verify/two.py"}
    assert house.room_of("llm_rebuild.attic.three") not in house.FLOOR_OF


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command's parameters are its options: what a person types, not what a caller passes."""
    return any("command" in ast.dump(d) or "callback" in ast.dump(d) for d in function.decorator_list)


def test_functions_are_small_enough_to_hold_in_mind(ours: house.House):
    too_many, too_long = [], []
    for module, source in ours.items():
        if source.name.startswith("workbench/skeletons/"):
            continue  # a learner's `forward` names all that it may be given
        models = house.room_of(module) == "models"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_command(node):
                size = (node.end_lineno or 0) - node.lineno + 1
                if parameters(node) > (PARAMETERS_IN_MODELS if models else PARAMETERS):
                    too_many.append(f"{source.name}:{node.lineno} {node.name} ({parameters(node)})")
                if models and size > LINES_IN_MODELS:
                    too_long.append(f"{source.name}:{node.lineno} {node.name} ({size})")
    assert too_many == []
    assert too_long == []


def test_names_are_nouns_and_verbs(ours: house.House):
    pronouns = [
        f"{source.name}:{node.lineno} {node.id}"
        for source in ours.values()
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in PRONOUNS
    ]
    assert pronouns == []


def test_the_type_checker_is_hardly_ever_told_to_look_away(ours: house.House):
    assert sum(source.text.count("type: ignore") for source in ours.values()) <= IGNORES


def test_the_house_does_not_grow_unseen(ours: house.House, figure):
    lines = sum(source.text.count("\n") for source in ours.values())
    figure(f"llm_rebuild/ has {lines:,} lines of Python")
    assert lines <= LINES


def test_the_wheel_holds_no_mutants(ours: house.House):
    assert [module for module in ours if "mutants_" in module] == []
    assert not list((house.PACKAGE).rglob("*.diff"))


def test_the_picture_is_of_the_house(ours: house.House):
    assert house.PICTURE.read_text(encoding="utf-8") == house.picture(ours), "run `python -m tools.house`"
