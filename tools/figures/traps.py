"""The pictures of the chapters on traps, on rounding, and of the measurements of the diagnosis."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from math import floor, log10

import torch
from torch.nn import functional as F

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.explain import judge_steps
from llm_rebuild.diagnosis.mutants import Mutant, run, scene
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.models import minilm, rebuild_for
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.verify.compare import Verdict
from tools.figures.drawing import Drawing
from tools.figures.kinds import Plot, beside, heat, strip
from tools.figures.runs import DOCS, output_of

SENTENCE = "Open-source LLMs rock."
NORM = 'part.tap("sum", x)\n    x = layer_norm(x, part.at("LayerNorm"), '
SLIPS = {
    "divided by √32": ("* query.shape[-1] ** -0.5", "/ query.shape[-1] ** 0.5"),
    "not scaled at all": ("* query.shape[-1] ** -0.5", "* 1.0"),
    "no token types": ("x = word + token_type", "x = word + 0"),
    "epsilon of 1e-5": (NORM + "part.config.layer_norm_eps)", NORM + "1e-5)"),
    "residual forgotten": ("x = x + residual", "x = x + 0"),
}


def colour(verdict: Verdict) -> str:
    """The kind in which a verdict is drawn."""
    return "good" if verdict.identical else "near" if verdict.passes else "bad"


def key_of_verdicts(d: Drawing, x: float, y: float, *, missing: bool = False) -> None:
    """What the three heights of a strip mean."""
    words = ["bit-identical", "rounding", "wrong values"] + ["not there"] * missing
    for kind, word in zip(("good", "near", "bad", ""), words, strict=False):
        strip(d, x, y - 12, [kind], 14, 14)
        d.text(x + 20, y, word, at="start", size=13, kind="muted")
        x += 40 + 7 * len(word)


def minilm_slips(copy: LocalCopy) -> str:
    """Traps: what becomes of every checkpoint after each of five slips."""
    official = scene(copy, "single", texts=[SENTENCE])
    d = Drawing(720, 270, "All checkpoints of MiniLM from first to last, after each of five slips.")
    left, width = 150.0, 560.0
    beside(d, left - 12, 14, SLIPS, 36, mono=False)
    world = world_of(official.truth, copy)
    for row, (slip, pair) in enumerate(SLIPS.items()):
        tensors = run(Mutant(slip, "minilm", *pair, cause="", first=""), official).tensors
        verdicts = judge_steps(tensors, official.truth, lambda: world).verdicts
        strip(d, left, 20 + 36 * row, [colour(verdict) for verdict in verdicts], width)
    names = list(official.truth)
    for block in range(rebuild_for(copy.config).config.num_hidden_layers):
        at = next(i for i, name in enumerate(names) if name.startswith(f"encoder.layer.{block}."))
        x = left + width * at / len(names)
        d.line(f"M{x:.1f} 14V196", "line", arrow=False)
        d.text(x + 4, 216, f"block {block}", at="start", size=13, kind="muted")
    key_of_verdicts(d, left, 252)
    return d.svg()


def minilm_padding(copy: LocalCopy) -> str:
    """Traps: the more padding is averaged over, the further the mean is from the sentence's."""
    config = rebuild_for(copy.config).config
    part = Part(copy.weights(), config)
    d = Drawing(
        720, 300, "The mean over all places beside the mean over the tokens, by how much padding there is."
    )
    texts = {"Yes.": "warm", SENTENCE: "accent"}
    most = 24
    plot = Plot(d, (60, 20, 540, 240), (0, most), (0, 1))
    plot.rows((0, 0.25, 0.5, 0.75, 1))
    plot.columns(range(0, most + 1, 4))
    for text, kind in texts.items():
        ids, points = copy.tokenizer().encode(text).ids, []
        for padding in range(most + 1):
            mask = torch.tensor([[1] * len(ids) + [0] * padding])
            with torch.no_grad():
                batch = Batch(torch.tensor([ids + [0] * padding]), mask)
                hidden = minilm.forward(batch, part).last_hidden_state[0]
            right, wrong = hidden[: len(ids)].mean(dim=0), hidden.mean(dim=0)
            points.append((padding, float(F.cosine_similarity(right, wrong, dim=0))))
        plot.curve(points, kind, text)
    d.text(300, 286, "places of padding that are averaged over", size=13, kind="muted")
    return d.svg()


def tolerances() -> str:
    """Traps: what each bar lets pass, by how large the number is."""
    d = Drawing(720, 340, "How large a difference may be, by the size of the number: three bars.")
    plot = Plot(d, (70, 20, 540, 280), (1e-3, 1e5), (1e-10, 1), log="xy")
    plot.rows([10.0**power for power in range(-10, 1, 2)], lambda number: f"1e{round(log10(number))}")
    plot.columns([10.0**power for power in range(-3, 6, 2)], lambda number: f"{number:g}")
    sizes = [10 ** (power / 20) for power in range(-60, 101)]
    steps = []
    for power in range(-10, 17):  # float32 has equally many numbers from each power of two to the next
        ulp = 2.0 ** (power - 23)
        steps += [(max(2.0**power, 1e-3), ulp), (min(2.0 ** (power + 1), 1e5), ulp)]
    plot.curve([(x, 1e-5 + 1e-5 * x) for x in sizes], "bad", "torch.allclose,")
    plot.curve([(x, 5e-6) for x in sizes], "good", "five decimals")
    plot.curve(steps, "muted", "the next float32")
    d.text(548, plot.y(1) + 24, "atol=1e-5", at="start", size=13, kind="bad")
    d.text(300, 328, "size of the number", size=13, kind="muted")
    return d.svg()


def minilm_layout(copy: LocalCopy) -> str:
    """Traps: the last tokens of two sentences as they lie in memory, and laid out in one piece."""
    n, side = len(copy.tokenizer().encode(SENTENCE).ids), 34.0
    d = Drawing(
        720, 210, "Two sentences in memory. Their last tokens are a view with gaps, or a copy in one piece."
    )
    d.text(20, 22, f"hidden, [2, {n}, 384]: one stretch of memory, a square is a token", at="start", size=13)
    for place in range(2 * n):
        x = 20 + side * place + (12 if place >= n else 0)
        last = place % n == n - 1
        d.box(x, 38, side - 4, side - 4, "warm" if last else "surface")
        if last:
            d.text(x + side / 2 - 2, 58, f"{place // n}", bold=True)
    for sentence, words in enumerate(("sentence 0", "sentence 1")):
        d.text(20 + (side * n + 12) * sentence, 88, words, at="start", size=13, kind="muted")
    first, second = 20 + side * (n - 0.5) - 2, 32 + side * (2 * n - 0.5) - 2
    d.line(f"M{first:g} 72V118", "warm", arrow=False)
    d.line(f"M{second:g} 72V118", "warm", arrow=False)
    d.line(f"M{first:g} 118H{second:g}", "warm", arrow=False, dashed=True)
    d.text((first + second) / 2, 136, "hidden[:, -1:], a view: the stride goes over what is between", size=13)
    for sentence in range(2):
        d.box(first - 15 + side * sentence, 156, side - 4, side - 4, "warm")
        d.text(first + side * sentence, 176, f"{sentence}", bold=True)
    d.text(first + 2 * side + 8, 176, ".contiguous(): copied together", at="start", size=13)
    return d.svg()


def close_changes() -> str:
    """Does close mean right: the ten changes by how far the answer is off, and by what it says."""
    rows = []
    for line in output_of("part-4/close.md", "largest  same next")[1:]:
        words = re.match(r"(.+?) +(\S+)  (\d+) of (\d+)", line)
        assert words, line
        rows.append((words[1], float(words[2]), int(words[3]), int(words[4])))
    d = Drawing(
        720, 60 + 30 * len(rows), "Ten changes by the largest difference of a score, and by the next tokens."
    )
    left, right, bottom = 200, 560, 30.0 * len(rows) + 16
    plot = Plot(d, (left, 10, right, bottom), (1e-7, 1e3), (0, 1), log="x")
    for row, (name, off, same, places) in enumerate(sorted(rows, key=lambda row: row[1])):
        y = 26.0 + 30 * row
        harmless = name in ("divided, not multiplied", "GELU in one kernel")
        d.line(f"M{left} {y:g}H{right}", "line", arrow=False)
        d.text(left - 14, y + 5, name, at="end", size=13)
        d.dot(plot.x(off) if off else left, y, "good" if harmless else "bad", 6)
        d.text(right + 14, y + 5, f"{same} of {places} the same", at="start", size=13, kind="muted")
    plot.columns([10.0**power for power in range(-6, 4, 3)], lambda number: f"1e{round(log10(number))}")
    d.text(left, bottom + 22, "0", size=13, kind="muted")
    return d.svg()


def float_ruler() -> str:
    """Floats: all numbers of a very small float, on a line."""
    d = Drawing(
        720, 150, "All numbers from 0 to 16 of a float with two bits of fraction: ever further apart."
    )
    plot = Plot(d, (20, 0, 700, 60), (0, 16), (0, 1))
    d.line("M20 60H700", "muted", arrow=False)
    d.line("M20 40V80", "muted", arrow=False)
    for exponent in range(-2, 4):
        kind = "accent" if exponent % 2 else "warm"
        for fraction in range(4):
            x = plot.x(2.0**exponent * (1 + fraction / 4))
            d.line(f"M{x:g} {38 if fraction == 0 else 46}V{82 if fraction == 0 else 74}", kind, arrow=False)
        d.cell(
            plot.x(2.0**exponent),
            56,
            plot.x(2.0 ** (exponent + 1)) - plot.x(2.0**exponent),
            0.3,
            kind,
            height=8,
        )
        if exponent > 0:
            middle = (plot.x(2.0**exponent) + plot.x(2.0 ** (exponent + 1))) / 2
            d.text(middle, 24, f"steps of {2.0**exponent / 4:g}", size=12, kind=kind)
    for number in (0, 1, 2, 4, 8, 16):
        d.text(plot.x(number), 104, str(number), size=13, kind="muted")
    d.text(
        360,
        136,
        "four numbers from each power of two to the next; a float32 has 8,388,608",
        size=13,
        kind="muted",
    )
    return d.svg()


def float_sums() -> str:
    """Floats: the sum of the same 384 numbers in two thousand orders."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(384, generator=generator)
    exact, orders = float(x.double().sum()), 2000
    shuffled = torch.stack([x[torch.randperm(384, generator=generator)] for _ in range(orders)])
    total = torch.zeros(orders)
    for column in shuffled.T:
        total = total + column
    values = Counter(total.tolist())
    ulp = 2.0 ** (floor(log10(exact) / log10(2)) - 23)
    d = Drawing(720, 300, f"The sums of 384 numbers in {orders:,} orders: {len(values)} different results.")
    low, high = min(values), max(values)
    reach = max(exact - low, high - exact) + ulp
    plot = Plot(d, (40, 40, 680, 240), (-reach * 1e6, reach * 1e6), (0, max(values.values())))
    for value, count in values.items():
        x0, x1 = plot.x((value - ulp / 2 - exact) * 1e6), plot.x((value + ulp / 2 - exact) * 1e6)
        d.cell(x0 + 1, plot.y(count), x1 - x0 - 2, 0.55, "accent", height=round(240 - plot.y(count), 1) or 1)
    d.line(f"M{plot.x(0):g} 34V244", "warm", arrow=False, dashed=True)
    d.text(plot.x(0), 26, "exact", size=13, kind="warm")
    plot.columns(range(-16, 25, 4))
    d.text(
        360,
        290,
        f"difference to the exact sum, in millionths: {orders:,} orders, {len(values)} results",
        size=13,
        kind="muted",
    )
    return d.svg()


def float_orders() -> str:
    """Floats: how two kernels add the same eight products, as the chapter has read it off."""
    d = Drawing(720, 310, "Two trees of eight numbers: one is as flat as can be, the other adds one by one.")
    _, *orders = output_of("part-3/floats.md", "torch.sum (")
    for left, line in zip((40, 400), orders, strict=True):
        words, _, brackets = line.partition(" (")
        places = iter(range(left, 720, 40))

        def drawn(part: ast.expr, places: Iterator[int] = places) -> tuple[float, float]:
            """A number at the foot, or a sum above both its parts: where it is."""
            if isinstance(part, ast.Constant):
                x = next(places)
                d.text(x, 272, str(part.value), size=13, kind="muted")
                d.dot(x, 248)
                return x, 248
            assert isinstance(part, ast.BinOp)
            (x, y), (other, beside_it) = drawn(part.left), drawn(part.right)
            middle, top = (x + other) / 2, min(y, beside_it) - 32
            d.line(f"M{x:g} {y:g}V{top:g}H{other:g}V{beside_it:g}", "muted", arrow=False)
            d.dot(middle, top, "warm")
            return middle, top

        drawn(ast.parse(f"({brackets}", mode="eval").body)
        d.text(left + 140, 300, f"in a product with {words}", bold=True)
    return d.svg()


def kill_groups() -> str:
    """The kill matrix: of each group's mistakes in the second set, which were named first."""
    lines = (DOCS / "part-4" / "kill-matrix.md").read_text(encoding="utf-8").splitlines()
    rows = []
    for line in lines:
        group = re.match(r"\| \*\*(.+?)\*\* \|.*<span class='\w+'>(\d+)/(\d+)</span> \|$", line)
        if group:
            rows.append((group[1], int(group[2]), int(group[3])))
    d = Drawing(
        720,
        50 + 30 * len(rows),
        "The second set's mistakes by group: each a square, those named first filled.",
    )
    for row, (name, named, made) in enumerate(rows):
        y = 16.0 + 30 * row
        d.text(240, y + 16, name, at="end", size=13)
        for number in range(made):
            right = number < named
            d.box(254 + 13.0 * number, y + 3, 10, 16, "good" if right else "bad")
        d.text(254 + 13.0 * made + 6, y + 16, f"{named} of {made}", at="start", size=13, kind="muted")
    return d.svg()


def degrees() -> str:
    """The kill matrix: what a diagnosis was worth, by how sure it said it was."""
    measured = json.loads((DOCS / "part-4" / "kill-matrix.json").read_text(encoding="utf-8"))["degrees"]
    d = Drawing(
        720,
        40 + 34 * len(measured),
        "First explanations by their degree: how many were right, how many wrong.",
    )
    most = max(first[1] for first, *_ in measured.values())
    for row, (degree, (first, *_)) in enumerate(measured.items()):
        right, made = first
        y, scale = 16.0 + 34 * row, 420 / most
        d.text(190, y + 18, degree, at="end", size=13)
        d.cell(204, y, right * scale, 0.6, "good", height=26)
        if made > right:
            d.cell(204 + right * scale, y, max((made - right) * scale, 2), 0.9, "bad", height=26)
        d.text(212 + made * scale, y + 18, f"{right} of {made}", at="start", size=13, kind="muted")
    return d.svg()


WHERE = {  # the last part of a checkpoint's name, and where in a model that is
    "embeddings": "embed|word|position|token_type|^wte|^wpe|embeddings",
    "q, k, v": "query|key|value|c_attn|[.][qkv]$|heads|rotary",
    "scores": "product|scaled|biased|scores|mask|relative_attention_bias",
    "shares": "probs",
    "context": "context|attention.output.dense|attn.c_proj|[.]o$",
    "feed-forward": "intermediate|act|gate|c_fc|mlp.c_proj|output.dense|DenseReluDense",
    "residual": "residual",
    "norm": "norm|ln_",
    "end": "sentence|lm_head|pooler",
}


def mistakes_where() -> str:
    """The catalogue: where in the model the mistakes of each kind are first seen."""
    listed = json.loads((DOCS / "live" / "data" / "mistakes.json").read_text(encoding="utf-8"))
    kinds = list(dict.fromkeys(cause["kind"] for cause in listed["causes"].values()))
    counts = Counter()
    for one in listed["mistakes"]:
        places = sorted(
            WHERE, key="end".__ne__
        )  # what belongs to the sentence has names of other places in it
        place = next(words for words in places if re.search(WHERE[words], one["first"]))
        counts[listed["causes"][one["cause"]]["kind"], place] += 1
    kinds = [kind for kind in kinds if any(counts[kind, place] for place in WHERE)]
    side, height, left, top = 50.0, 28.0, 240.0, 96.0
    d = Drawing(720, int(top + height * len(kinds) + 20), "Mistakes by kind and by where each is first seen.")
    beside(d, left - 12, top, kinds, height, mono=False)
    for column, place in enumerate(WHERE):
        d.slanted(left + side * (column + 0.5), top - 10, place)
    numbers = [[counts[kind, place] or None for place in WHERE] for kind in kinds]
    heat(d, left, top, numbers, side, height=height, limit=1.6 * max(counts.values()))
    for row, line in enumerate(numbers):
        for column, count in enumerate(line):
            if count:
                d.text(left + side * (column + 0.5) - 1, top + height * (row + 0.5) + 4, str(count), size=13)
    return d.svg()


OF_MINILM = (minilm_slips, minilm_padding, minilm_layout)
OF_FLOATS = (float_ruler, float_sums, float_orders)
FIGURES = (tolerances, close_changes, *OF_FLOATS, kill_groups, degrees, mistakes_where)
OF = {"minilm": OF_MINILM, None: FIGURES}
