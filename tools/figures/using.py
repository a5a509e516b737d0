"""The pictures of the workbench, and of what comes after the three models."""

from __future__ import annotations

import ast
import contextlib
import re
import tempfile
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify import ask, capture, judge
from llm_rebuild.verify.compare import MISSING
from llm_rebuild.verify.run import rebuild_run
from llm_rebuild.workbench.check import check_file
from llm_rebuild.workbench.new import source
from tools.figures.drawing import Drawing
from tools.figures.kinds import Plot, bars, heat, strip
from tools.figures.runs import output_of
from tools.figures.traps import colour, key_of_verdicts

TEXTS = ["The baker of Oru lives by the", "The cat"]


def _checked(copy: LocalCopy, title: str, before: str, after: str) -> str:
    """A solved file with one change: every checkpoint in the run, and every step by itself."""
    solved = source("gpt2", solved=True)
    assert before in solved
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "whole.py"
        file.write_text(solved.replace(before, after, 1), encoding="utf-8")
        check = check_file(file, ask(copy, TEXTS))
    verdicts = check.report.verdicts
    alone = [check.steps.get(verdict.name) for verdict in verdicts]
    by_themselves = ["" if one is None else colour(one.verdict) if one.verdict else "bad" for one in alone]
    d = Drawing(720, 210, title)
    left, width = 130.0, 580.0
    d.text(left - 12, 42, "in the run", at="end", size=13)
    strip(d, left, 20, [colour(verdict) for verdict in verdicts], width, 30)
    d.text(left - 12, 92, "each alone", at="end", size=13)
    strip(d, left, 70, by_themselves, width, 30)
    blocks = sorted({int(found[1]) for v in verdicts if (found := re.match(r"h\.(\d+)\.", v.name))})
    for block in blocks:
        at = next(i for i, verdict in enumerate(verdicts) if verdict.name.startswith(f"h.{block}."))
        x = left + width * at / len(verdicts)
        d.line(f"M{x:.1f} 14V106", "line", arrow=False)
        d.text(x + 4, 124, f"block {block}", at="start", size=13, kind="muted")
    first = next(i for i, verdict in enumerate(verdicts) if not verdict.identical)
    x = left + width * (first + 0.5) / len(verdicts)
    d.line(f"M{x:.1f} 160V{106:g}", "bad")
    d.text(x + 8, 162, f"first divergence: {verdicts[first].name}", at="start", size=13, kind="bad")
    key_of_verdicts(d, left, 198)
    return d.svg()


def gpt2_growing(copy: LocalCopy) -> str:
    """The workbench: how far a file comes, as its functions are filled in from the top."""
    solved, file = source("gpt2", solved=True), source("gpt2")
    bodies, holes = (
        {f.name: ast.get_source_segment(text, f) for f in _functions(text)} for text in (solved, file)
    )
    question = ask(copy, TEXTS)
    truth = capture(question)
    config = SimpleNamespace(**copy.config)
    shown = (
        "token_embedding",
        "attention_mask",
        "layer_norm",
        "conv1d",
        "add_mask",
        "merge_heads",
        "gelu",
        "head",
    )
    d = Drawing(
        720,
        40 + 30 * len(shown),
        "All checkpoints from first to last, as one function after another is filled in.",
    )
    for name in bodies:
        file = file.replace(holes[name] or "", bodies[name] or "")
        if name not in shown:
            continue
        names: dict[str, Any] = {"__name__": "filled"}
        exec(compile(file, "filled.py", "exec"), names)
        recorder = Recorder()
        with torch.no_grad(), contextlib.suppress(InputError, NotImplementedError):
            names["forward"](*truth.inputs.batch[:2], copy.weights(), config, recorder.tap())
        verdicts = judge(recorder.tensors, truth).verdicts
        right = sum(verdict.identical for verdict in verdicts)
        y = 10.0 + 30 * shown.index(name)
        d.text(178, y + 16, name, at="end", size=13, mono=True)
        kinds = ["" if verdict.verdict == MISSING else colour(verdict) for verdict in verdicts]
        strip(d, 190, y, kinds, 420)
        d.text(622, y + 16, f"{right} of {len(verdicts)}", at="start", size=13, kind="muted")
    y = 26.0 + 30 * len(shown)
    d.text(190, y, "low: bit-identical; a line: not there yet", at="start", size=13, kind="muted")
    return d.svg()


def _functions(text: str) -> list[ast.FunctionDef]:
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [function for function in found if function.name != "forward"]


def gpt2_wrong_alone(copy: LocalCopy) -> str:
    """No match: key and value exchanged in the step that cuts them."""
    title = (
        "Every checkpoint in the run and by itself: one step is wrong in each block, and all after it differ."
    )
    return _checked(copy, title, "query, new, _ = (split_heads", "query, _, new = (split_heads")


def gpt2_right_alone(copy: LocalCopy) -> str:
    """The workbench: the wrong tensor handed to a step that is right."""
    title = "Every checkpoint in the run and by itself: each step is right alone, and most differ in the run."
    return _checked(copy, title, "add(attended, x)", "add(attended, normed)")


def gpt2_heads_merged(copy: LocalCopy) -> str:
    """The workbench: whose numbers stand in each token's row, heads moved behind tokens and not."""
    prompt = TEXTS[0]
    tokens = copy.tokenizer().encode(prompt).tokens
    head_context = capture(copy, prompt)["h.0.attn.head_context"].tensor[0]  # [head, token, head width]
    heads, count, width = head_context.shape
    # In place of each number whose it is: the number of its head and its token.
    owner = (torch.arange(heads)[:, None] * count + torch.arange(count))[:, :, None].expand(-1, -1, width)
    rows = {
        "transpose, then flatten": owner.transpose(0, 1).reshape(count, -1),
        "reshape alone": owner.reshape(count, -1),
    }
    inks = ("query", "key", "value", "muted")
    d = Drawing(
        720,
        70 + 34 * count,
        "Each token's row of the merged heads: moved first, its own numbers; only reshaped, those of others.",
    )
    for panel, (title, table) in enumerate(rows.items()):
        left, pitch = 84.0 + 330 * panel, 76.0
        d.text(left, 20, title, at="start", bold=True, size=13, mono=True)
        for row in range(count):
            y = 34.0 + 34 * row
            if not panel:
                d.text(left - 10, y + 19, tokens[row].replace("Ġ", ""), at="end", size=13, mono=True)
            for part in range(heads):
                whose = table[row, part * width : (part + 1) * width].unique().tolist()
                assert len(whose) == 1, "the widths do not fall together"
                head, token = divmod(whose[0], count)
                x = left + pitch * part
                d.cell(x, y, pitch - 4, 0.25, inks[head], height=28)
                word, kind = tokens[token].replace("Ġ", ""), "ink" if token == row else "bad"
                d.text(x + pitch / 2 - 2, y + 19, word, size=13, mono=True, kind=kind)
    y = 34.0 + 34 * count + 22
    for head in range(heads):
        d.cell(84.0 + 76 * head, y - 13, 14, 0.25, inks[head], height=16)
        d.text(104.0 + 76 * head, y, f"head {head}", at="start", size=13, kind="muted")
    d.text(414, y, "red: not this row's token", at="start", size=13, kind="bad")
    return d.svg()


def smollm3_steps() -> str:
    """The workbench: the first steps of a block that nobody has explained, by how many numbers each makes."""
    inks = {
        "query": ("q_proj", "mul[0]", "neg[0]", "cat[0]", "mul[1]", "add[0]"),
        "key": ("k_proj", "mul[2]", "neg[1]", "cat[1]", "mul[3]", "add[1]"),
        "value": ("v_proj",),
    }
    items = []
    for line in output_of("part-4/workbench.md", "96 checkpoints")[1:]:
        name, _, shape = line.removeprefix("model.layers.0.").partition(" ")
        count = prod(int(size) for size in shape.strip("[]").split(", "))
        step = name.rpartition(".")[2]
        ink = next((ink for ink, steps in inks.items() if step in steps), "muted")
        items.append((name, float(count), f"{count} numbers", ink))
    title = "The first steps of a block, each with a bar as long as it makes numbers."
    d = Drawing(720, 20 + 25 * len(items), title)
    bars(d, 190, 12, items, 400 / max(count for _, count, _, _ in items), pitch=25, mono=True)
    return d.svg()


def rotary_pairs() -> str:
    """The workbench: which numbers of a head are turned together."""
    d = Drawing(
        720, 190, "The eight numbers of a head, joined in pairs: each with its neighbour, or the two halves."
    )
    side = 36.0
    for left, title, partner in (
        (20.0, "neighbours, as in the paper", [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (400.0, "halves, as in the official code", [(0, 4), (1, 5), (2, 6), (3, 7)]),
    ):
        d.text(left, 20, title, at="start", bold=True)
        for number in range(8):
            d.box(left + side * number, 100, side - 6, 30)
        for pair, (a, b) in enumerate(partner):
            x, y = left + side * a + 15, left + side * b + 15
            d.line(
                f"M{x:g} 98C{x:g} {66 - 5 * (b - a):g} {y:g} {66 - 5 * (b - a):g} {y:g} 98",
                "accent",
                arrow=False,
            )
            for end in (x, y):
                d.text(end, 152, f"θ{pair}", size=13, kind="accent")
        for number in range(8):
            d.text(left + side * number + 15, 120, str(number), size=13)
    d.text(20, 182, "the same θ: turned together, by this angle", at="start", size=13, kind="muted")
    return d.svg()


def rotary_angles() -> str:
    """A model of today: how far each pair has turned at each place, and what a product then depends on."""
    places, width, base = 24, 16, 10_000.0
    speed = base ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(places)[:, None] * speed
    d = Drawing(
        720, 320, "The cosine of each pair's angle by place, and a product of two vectors by their distance."
    )
    d.text(60, 20, "cosine of the angle", at="start", bold=True)
    heat(d, 60, 36, angle.cos().T.tolist(), 12, height=26, limit=1.0)
    for pair in range(width // 2):
        d.text(50, 36 + 26 * pair + 17, f"pair {pair}", at="end", size=12)
    for place in range(0, places, 6):
        d.text(66 + 12 * place, 264, str(place), size=12, kind="muted")
    d.text(204, 286, "place of the token", size=13, kind="muted")
    d.text(420, 20, "product of two tokens", at="start", bold=True)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, width, generator=generator)
    products = {}
    for start, kind in ((0, "accent"), (8, "warm")):
        points = []
        for distance in range(16):
            turned = []
            for x, place in ((query, start + distance), (key, start)):
                turns = torch.cat((place * speed, place * speed))
                a, b = x.chunk(2)
                turned.append(x * turns.cos() + torch.cat((-b, a)) * turns.sin())
            points.append((distance, float(turned[0] @ turned[1])))
        products[start, kind] = points
    ends = [y for points in products.values() for _, y in points]
    low, high = int(min(ends)) - 1, int(max(ends)) + 1
    plot = Plot(d, (440, 36, 690, 240), (0, 15), (low, high))
    plot.rows(range(low, high + 1, 2))
    plot.columns(range(0, 16, 5))
    for (start, kind), points in products.items():
        plot.curve(points, kind, dashed=start > 0)
        for x, y in points:
            plot.dot(x, y, kind, 4 if start == 0 else 2)
    d.text(560, 286, "distance of the two", size=13, kind="muted")
    d.text(
        440,
        308,
        "blue: key at place 0; orange, over it: at 8",
        at="start",
        size=12,
        kind="muted",
    )
    return d.svg()


def grouped_attention() -> str:
    """A model of today: query heads and the keys and values that they share."""
    d = Drawing(
        720, 220, "Four query heads, with a key and a value each, with two for all, and with one for all."
    )
    for left, title, shared in (
        (20.0, "each its own", 1),
        (260.0, "grouped: two share", 2),
        (500.0, "one for all", 4),
    ):
        d.text(left, 20, title, at="start", bold=True)
        for head in range(4):
            x = left + 48 * head
            d.box(x, 40, 40, 34, "surface")
            d.text(x + 20, 62, f"q {head}", size=13)
            target = left + 48 * (shared * (head // shared) + (shared - 1) / 2) + 20
            d.line(f"M{x + 20:g} 74L{target:g} 118", "muted")
        for key in range(4 // shared):
            x = left + 48 * (shared * key + (shared - 1) / 2)
            d.box(x, 120, 40, 34, "accent")
            d.text(x + 20, 142, f"k, v {key}", size=11)
        d.text(left, 180, f"kept for a token: {8 // shared} × the", at="start", size=13, kind="muted")
        d.text(left, 198, "head width, in each block", at="start", size=13, kind="muted")
    return d.svg()


def item_similarities() -> str:
    """Items: the similarities of twelve items, and the scales that they were written for."""
    rows = [[int(number) for number in line.split()] for line in output_of("after/items.md", " 100 ")]
    d = Drawing(
        720, 400, "Similarities of twelve items: three blocks along the diagonal are darker than the rest."
    )
    left, top, side = 110.0, 30.0, 28.0
    numbers = [[None if i == j else number for j, number in enumerate(row)] for i, row in enumerate(rows)]
    heat(d, left, top, numbers, side, limit=max(n for row in numbers for n in row if n) / 0.6)
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            if i != j:
                d.text(left + side * (j + 0.5) - 1, top + side * (i + 0.5) + 4, str(number), size=11)
    for which, name in enumerate(("order", "company", "worry")):
        at = 4 * side * which
        d.frame(left + at - 2, top + at - 2, 4 * side + 2, 4 * side + 2, "warm")
        d.text(left - 12, top + at + 2 * side + 4, name, at="end", bold=True)
        d.text(left + at + 2 * side, top + 12 * side + 22, name, bold=True)
    d.text(left + 12 * side + 20, top + 30, "100 × cosine", at="start", size=13, kind="muted")
    d.text(left + 12 * side + 20, top + 50, "framed: one scale", at="start", size=13, kind="muted")
    return d.svg()


def head_story() -> str:
    """Items: how much each head looks at the token before, and what changes when it is taken out."""
    (looks,) = [line.split() for line in output_of("after/items.md", "0.09 0.11 1.00")]
    (changes,) = [line.split() for line in output_of("after/items.md", "-0.0000 -0.0002")]
    d = Drawing(720, 350, "Each head of block 0: its share for the token before, and the change without it.")
    d.text(80, 20, "looks at the token before", at="start", bold=True)
    rows = [
        (f"head {head}", float(share), share, "warm" if head == 2 else "accent")
        for head, share in enumerate(looks)
    ]
    bars(d, 80, 34, rows, 220)
    d.text(400, 20, "change of the likeness without it", at="start", bold=True)
    rows = [
        ("", float(change), change, "warm" if head == 2 else "accent") for head, change in enumerate(changes)
    ]
    bars(d, 560, 34, rows, 50_000)
    d.line("M560 30V342", "line", arrow=False)
    return d.svg()


def gpt2_probabilities(copy: LocalCopy) -> str:
    """Items: what the miniature answers to a question that it has read, and to one that it has not."""
    answers = (" market", " harbour", " gate", " bridge")
    ids = [copy.tokenizer().encode(answer).ids[0] for answer in answers]
    texts = (
        "The baker of Oru lives by the",
        "The baker of Venn lives by the",
        "The queen of Mars lives by the",
    )
    d = Drawing(
        720, 30 + 140 * len(texts), "Shares of four next tokens after three texts, and of all the others."
    )
    for number, text in enumerate(texts):
        y = 20 + 140 * number
        shares = rebuild_run(ask(copy, text))["lm_head"][0, -1].softmax(dim=-1)
        d.text(20, y, text, at="start", bold=True, size=13)
        four = [(answer.strip(), float(shares[i]), "accent") for answer, i in zip(answers, ids, strict=True)]
        rest = ("all others", 1 - sum(share for _, share, _ in four), "muted")
        rows = [(name, share, f"{share:.3f}", kind) for name, share, kind in (*four, rest)]
        bars(d, 120, y + 8, rows, 480, pitch=23)
    return d.svg()


OF_GPT2 = (gpt2_growing, gpt2_heads_merged, gpt2_wrong_alone, gpt2_right_alone, gpt2_probabilities)
FIGURES = (smollm3_steps, rotary_pairs, rotary_angles, grouped_attention, item_similarities, head_story)
OF = {"gpt2": OF_GPT2, None: FIGURES}
