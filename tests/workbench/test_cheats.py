"""What passes for a rebuild and is none. Each was tried once; it is refused, or named, or goes nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench

MODEL = local_copy.MINIATURES / "gpt2"
SOLVED = writing.source("gpt2", solved=True)
FUTURE = "from __future__ import annotations\n"
Checked = Callable[[str], tuple[int, dict[str, Any], str]]


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Checked:
    """Check a file: exit code, JSON, and what stands on stderr."""

    def run(source: str) -> tuple[int, dict[str, Any], str]:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        command = ["check", "mine.py", "--model", MODEL, "--token-ids", "5,9,11", "--token-ids", "7"]
        result = bench.run(*command, "--json", "found.json", folder=tmp_path)
        return result.code, json.loads((tmp_path / "found.json").read_text(encoding="utf-8")), result.err

    return run


LATE_TAP = """
TAP = None
def forward(token_ids, mask, weights, config, tap):
    global TAP
    TAP = tap
    return weights["wte.weight"][token_ids]
"""


def test_a_tap_that_is_still_held_shows_no_official_tensor(checked: Checked):
    """While steps are tried by themselves, what they are fed is official."""
    steps = SOLVED[SOLVED.index("# ------", SOLVED.index("def forward")) :]
    head = SOLVED[: SOLVED.index("def forward")]
    marked = """
@step("h.0.ln_1", "embeddings")
@step("h.0.attn.product", "h.0.attn.c_attn")
def stolen(official, name):
    TAP("embeddings" if name == "h.0.ln_1" else "h.0.attn.c_attn", official)
    raise ValueError("seen")
"""
    code, found, _ = checked(head + LATE_TAP + marked + steps)
    assert code == 1
    assert found["summary"]["bit_identical"] == 0
    assert found["next"] == "wte"


def test_a_thread_that_waits_for_the_official_tensors_shows_none(checked: Checked):
    waiting = """
import gc, threading, time
SEEN = []
def wait(tap):
    for _ in range(400):
        for thing in gc.get_objects():
            if isinstance(thing, dict) and "h.0.attn.scaled" in thing:
                try: tap("h.0.attn.scaled", thing["h.0.attn.scaled"])
                except Exception: pass
        time.sleep(0.01)
"""
    begin = '    which = tap("wte", token_embedding(token_ids, weights))'
    start = "    threading.Thread(target=wait, args=(tap,), daemon=True).start()\n"
    source = SOLVED.replace("def forward(", waiting + "\n\ndef forward(", 1).replace(begin, start + begin, 1)
    source = source.replace(
        'scaled = tap(f"h.{layer}.attn.scaled", scale(product, config))\n',
        "scaled = scale(product, config)\n            if layer: tap(f'h.{layer}.attn.scaled', scaled)\n",
    )
    code, found, _ = checked(source)
    verdicts = {c["name"]: c["verdict"] for c in found["checkpoints"]}
    assert (code, verdicts["h.0.attn.scaled"]) == (1, "missing")


def test_a_single_step_finds_no_official_tensor_in_the_process_that_it_was_copied_from(
    bench: Bench, tmp_path: Path
):
    searching = """    import gc
    for thing in gc.get_objects():
        tensor = thing.get("h.0.attn.scaled") if type(thing) is dict else None
        if isinstance(tensor, Tensor):
            return tensor.clone()
    return product
"""
    before = "    return product * power\n"
    assert SOLVED.count(before) == 1
    (tmp_path / "mine.py").write_text(SOLVED.replace(before, searching), encoding="utf-8")
    result = bench.run("check", "mine.py", "--model", MODEL, "--step", "h.0.attn.scaled", folder=tmp_path)
    assert result.code == 1, result.out


def test_a_step_is_not_fed_with_what_it_is_to_compute(checked: Checked):
    before = '@step("h.{layer}.attn.scaled", "h.{layer}.attn.product")'
    assert before in SOLVED
    code, _, err = checked(SOLVED.replace(before, before.replace("product", "scaled")))
    assert code == 2
    assert "@step for h.0.attn.scaled asks for h.0.attn.scaled, which is not computed before it" in err


def test_a_step_finds_nothing_in_the_process_but_what_came_before(checked: Checked):
    """The official result of a step comes in only after it was tried, as what the next one is fed with."""
    search = """    import gc
    for thing in gc.get_objects():
        if isinstance(thing, dict) and hasattr(thing.get("h.0.attn.scaled"), "shape"):
            return thing["h.0.attn.scaled"]
    return product * 2
"""
    head, _, tail = SOLVED.partition("    power: float = ")
    tail = tail.partition("\n\n\n")[2]
    code, found, _ = checked(f"{head}{search}\n\n{tail}")
    steps = {step["name"]: step["right"] for step in found["steps"]}
    assert code == 1
    assert not steps["h.0.attn.scaled"]


@pytest.mark.parametrize(
    "line",
    [
        "from llm_rebuild.models import gpt2",
        "from llm_rebuild.workbench.skeletons import gpt2",
        "import llm_rebuild.workbench.new",
        "import runpy; runpy.run_path(SOLUTION)",
        "exec(open(SOLUTION).read())",
    ],
)
def test_the_solutions_are_refused(checked: Checked, line: str):
    solution = Path(writing.__file__).parent / "skeletons" / "gpt2.py"
    line = line.replace("SOLUTION", repr(str(solution)))
    code, _, err = checked(SOLVED.replace(FUTURE, f"{FUTURE}{line}\n"))
    assert code == 2
    assert "the course's own" in err


@pytest.mark.parametrize(
    "stolen",
    ["torch.tensor(NUMBERS)", "torch.tensor(NUMBERS) * 1", "torch.tensor(NUMBERS).double().float()"],
    ids=["tapped as it is", "times one", "there and back"],
)
def test_official_numbers_that_were_written_down_are_named(checked: Checked, stolen: str):
    from llm_rebuild import verify

    truth = verify.capture(MODEL, token_ids=[[5, 9, 11], [7]])
    numbers = truth["h.1.attn.context"].tensor.tolist()
    before = 'tap(f"h.{layer}.attn.context", merge_heads(head_context))\n'
    assert before in SOLVED
    after = f'tap(f"h.{{layer}}.attn.context", {stolen} if layer == 1 else merge_heads(head_context))\n'
    source = SOLVED.replace(FUTURE, f"{FUTURE}NUMBERS = {numbers}\n").replace(before, after)
    code, found, _ = checked(source)
    assert code == 1
    assert found["summary"]["failed"] == 0
    assert len(found["leaks"]) == 1
    assert "official h.1.attn.context went into the rebuild" in found["leaks"][0]


def test_a_rebuild_that_makes_its_own_numbers_leaks_nothing(checked: Checked):
    constants = """
import math
POSITIONS = torch.tensor([float(i) for i in range(64)])
WAVES = torch.tensor([math.sin(i) for i in range(64)])
"""
    begin = '    which = tap("wte", token_embedding(token_ids, weights))'
    used = "    (POSITIONS + WAVES).sum(); torch.from_numpy(weights['wte.weight'].numpy()) * 2\n"
    source = SOLVED.replace("def forward(", constants + "\n\ndef forward(", 1).replace(begin, used + begin, 1)
    code, found, _ = checked(source)
    assert (code, found["leaks"]) == (0, [])


def test_what_is_written_past_torch_is_not_seen_and_the_page_says_so(checked: Checked):
    """Whoever closes this may say so on the page."""
    from llm_rebuild import verify

    truth = verify.capture(MODEL, token_ids=[[5, 9, 11], [7]])
    numbers = truth["h.1.attn.context"].tensor.tolist()
    before = '        context = tap(f"h.{layer}.attn.context", merge_heads(head_context))\n'
    assert before in SOLVED
    after = "        context = merge_heads(head_context)\n"
    after += "        if layer == 1 and context.shape[1] == 3:\n"
    after += "            context = context * 0\n            context.numpy()[:] = NUMBERS\n"
    after += '        tap(f"h.{layer}.attn.context", context)\n'
    source = SOLVED.replace(FUTURE, f"{FUTURE}NUMBERS = {numbers}\n").replace(before, after)
    _, found, _ = checked(source)  # the further runs differ: they have other numbers there
    assert (found["first_divergence"], found["leaks"]) == (None, [])
    page = Path(__file__).parents[2] / "docs" / "part-4" / "workbench.md"
    assert "written into a tensor's memory past torch" in page.read_text(encoding="utf-8")
