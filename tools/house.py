"""The house, read from its imports: rooms, floors, what goes from where to where.

    python -m tools.house      draws docs/figures/house.svg, the picture of the design page, again

It reads source and runs nothing. `tests/test_house.py` holds the package to it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from tools.figures.drawing import Drawing

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "llm_rebuild"
PICTURE = PROJECT / "docs" / "figures" / "house.svg"

# The floors from the ground up. A room may import from its own floor and from those below it.
GROUND = ("errors", "files", "json_fields", "printing")  # anybody may stand on it
FLOORS = (
    GROUND,
    ("checkpoints",),
    ("weights",),
    ("tokenizers", "models"),
    ("copies",),
    ("using",),
    ("verify",),
    ("anatomy", "diagnosis", "process"),
    ("proof", "dumps"),
    ("workbench",),
    ("exercises",),
    ("show",),
    ("cli",),
    ("__main__",),
)
# What a room is for, as the figures of the course colour it: what holds, what a learner builds, what proves.
KINDS = {"models": "warm", "tokenizers": "warm", "verify": "good", "diagnosis": "good", "proof": "good"}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms} | {"": len(FLOORS)}

# What may not be named above the floor of the models, in code or a string; in a comment or docstring it may.
NAMES = re.compile(
    r"\b(minilm|gpt2|gpt-2|t5|bert|llama|qwen\w*|n_embd|n_head|d_model|d_kv|hidden_size|encoder\.layer|c_attn"
    r"|DenseReluDense)\b",
    re.IGNORECASE,
)
# Rooms where a model is at home: the rebuilds with their tokenizers, and the skeletons of the same.
AT_HOME = ("models/", "tokenizers/", "workbench/skeletons/", "miniatures/")
# Files above the models that name one all the same -> why.
MAY_NAME_A_MODEL = {
    "copies/pins.py": "the published models: where they are, and what each of their files must be",
    "cli/options.py": "the models' names in help, which must not wait for torch",
    "diagnosis/mutants.py": "the texts that the mutants of each miniature are run on",
}

# The fourth model, the last that was added; and the files beside its own that name it -> why.
FOURTH = re.compile(r"\bllama\b", re.IGNORECASE)
AROUND = ("llm_rebuild", "tools", "tests", "benchmarks", "docs/javascripts")
# Its own: files called after it, rooms where models are at home, tests, mistakes made on purpose, and what
# makes a page that speaks of it; and this file.
ITS_OWN = re.compile(
    rf"llama|(^llm_rebuild/({'|'.join(AT_HOME)}))|(^|/)test_|^tests/models/|^tools/(mutants/|compared|house)"
)
WRITTEN = "Written by `python -m "  # at the head of a file that no person writes
MAY_NAME_THE_FOURTH = {
    "llm_rebuild/copies/pins.py": "no files are pinned of it, and what may be given instead",
    "llm_rebuild/diagnosis/mutants.py": "the texts that its mutants are run on",
    "docs/javascripts/rebuild/models.js": "how its rebuild in JavaScript is loaded",
    "mkdocs.yml": "its pages among the others",
    "tools/tries.py": "bad input is tried on a small one; any other would do",
}


@dataclass(frozen=True)
class Source:
    """One module: its file's name in the package, its text, and what Python makes of it."""

    name: str
    text: str
    tree: ast.Module


House = dict[str, Source]


def read(package: Path = PACKAGE) -> House:
    """Every module of the package by its full name."""
    house = {}
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        module = ".".join(("llm_rebuild", *Path(name).with_suffix("").parts)).removesuffix(".__init__")
        text = file.read_text(encoding="utf-8")
        house[module] = Source(name, text, ast.parse(text))
    return house


def room_of(module: str) -> str:
    """`llm_rebuild.verify.trace` is in the room `verify`; the package itself has no name."""
    return module.partition(".")[2].partition(".")[0]


def imports(house: House) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, wherever in the file; for type checkers aside."""
    return {module: _imported(module, source, house) for module, source in house.items()}


def _imported(module: str, source: Source, house: House) -> set[str]:
    modules: set[str] = set()
    for node in _running(source.tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, source)
            names = {f"{base}.{alias.name}" for alias in node.names}
            modules |= names & house.keys() or {base}
    # The package's own door says what it offers; it imports that when asked, and no room goes through it.
    return {name for name in modules if name in house and name not in (module, "llm_rebuild")}


def _base(node: ast.ImportFrom, module: str, source: Source) -> str:
    """The module that `from … import` names, dots in front resolved."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if source.name.endswith("__init__.py") else module.split(".")[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _running(tree: ast.Module) -> list[ast.AST]:
    """Every node but those that only a type checker sees."""
    unseen = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    return [node for node in ast.walk(tree) if id(node) not in unseen]


def circles(house: House) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    edges = imports(house)
    reach: dict[str, set[str]] = {}
    for start in edges:
        seen: set[str] = set()
        queue = list(edges[start])
        while queue:
            module = queue.pop()
            if module not in seen:
                seen.add(module)
                queue += edges[module]
        reach[start] = seen
    groups = {tuple(sorted(o for o in reach[m] if m in reach[o])) for m in edges if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def upwards(house: House) -> list[str]:
    """Imports that go to a higher floor, or from room to room around in a circle on one floor."""
    return [
        f"{module} -> {target}"
        for module, targets in imports(house).items()
        for target in sorted(targets)
        if FLOOR_OF.get(room_of(target), -1) > FLOOR_OF.get(room_of(module), len(FLOORS))
    ]


def private(house: House) -> list[str]:
    """Names with an underscore that one module takes from another: by import, or as `module._name`."""
    places = []
    for module, source in house.items():
        aliases = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and _base(node, module, source).startswith("llm_rebuild"):
                names = {a.asname or a.name for a in node.names}
                aliases |= {n for n in names if not n[0].isupper()}
                places += [f"{source.name}:{node.lineno} {a.name}" for a in node.names if _is_private(a.name)]
            elif isinstance(node, ast.Import):
                aliases |= {a.asname for a in node.names if a.asname and a.name.startswith("llm_rebuild")}
        places += [
            f"{source.name}:{node.lineno} {node.value.id}.{node.attr}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
            and _is_private(node.attr)
        ]
    return places


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def models_named(house: House) -> set[str]:
    """Files above the models that name one of them, its fields or its checkpoints, in code or in a string."""
    return {
        source.name
        for source in house.values()
        if not source.name.startswith(AT_HOME) and NAMES.search(_without_docstrings(source))
    }


def _without_docstrings(source: Source) -> str:
    """The code as it runs: comments and docstrings are for readers, and may name a model as an example."""
    tree = ast.parse(source.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def naming_the_fourth(project: Path = PROJECT) -> set[str]:
    """Files that name the fourth model in code or in a string and are not its own: who adds a fifth has to
    touch these, too."""
    files = [project / "mkdocs.yml"]
    files += [file for root in AROUND for kind in ("*.py", "*.js") for file in (project / root).rglob(kind)]
    named = set()
    for file in files:
        name, text = file.relative_to(project).as_posix(), file.read_text(encoding="utf-8")
        if file.suffix == ".py":
            text = _without_docstrings(Source(name, text, ast.parse(text)))
        elif file.suffix == ".js":
            text = "" if WRITTEN in text else re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        if not ITS_OWN.search(name) and FOURTH.search(text):
            named.add(name)
    return named


# ---------------------------------------------------------------------------------------------- the picture


def arrows(house: House) -> dict[str, set[str]]:
    """Room -> the rooms that it imports, without the ground and those reached through another of them."""
    direct: dict[str, set[str]] = {}
    for module, targets in imports(house).items():
        direct.setdefault(room_of(module), set()).update(map(room_of, targets))
    direct = {room: rooms - {room, "", *GROUND} for room, rooms in direct.items() if room}

    def reach(room: str) -> set[str]:
        return direct[room].union(*map(reach, direct[room]))

    return {room: targets - set().union(*map(reach, targets)) for room, targets in direct.items()}


def picture(house: House) -> str:
    """The floors from the top down, and which room builds on which. The rooms must not go in circles."""
    edges = arrows(house)
    floors = [[room for room in rooms if room in edges] for rooms in reversed(FLOORS[:-1])]
    d = Drawing(
        720, 64 * len(floors), "The rooms of llm_rebuild by floor. An arrow goes to what is imported."
    )
    box_of = {
        room: (720 * (column + 1) / (len(rooms) + 1), 64 * row + 6)
        for row, rooms in enumerate(floors)
        for column, room in enumerate(rooms)
    }
    for room, (x, y) in box_of.items():
        for to_x, to_y in sorted(box_of[target] for target in edges[room]):
            between = [box for box in box_of.values() if y < box[1] < to_y]
            crosses = [bx for bx, by in between if abs(x + (to_x - x) * (by - y) / (to_y - y) - bx) < 76]
            if crosses:  # in a bow beside the boxes that stand between
                side = max(x, to_x) + 110 if x + to_x >= 720 else min(x, to_x) - 110
                d.line(f"M{x:g} {y + 36:g}C{side:g} {y + 70:g} {side:g} {to_y - 34:g} {to_x:g} {to_y - 2:g}")
            else:
                d.line(f"M{x:g} {y + 36:g}L{to_x:g} {to_y - 2:g}")
    for room, (x, y) in box_of.items():
        d.box(x - 62, y, 124, 36, KINDS.get(room, "surface"), dashed=room in GROUND)
        d.text(x, y + 23, room if (PACKAGE / room).is_dir() else f"{room}.py", mono=True, size=13)
    return d.svg()


def main() -> None:
    """Draw the picture of the design page."""
    PICTURE.write_text(picture(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
