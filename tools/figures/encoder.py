"""Pictures of what MiniLM computes, from its official run."""

from __future__ import annotations

from fractions import Fraction
from math import erf, frexp, log1p, sqrt

import torch
from torch.nn import functional as F

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.using.embedding import embed
from llm_rebuild.verify import capture
from tools.figures.drawing import Drawing, shape
from tools.figures.kinds import Plot, beside, heat, heats, strip
from tools.figures.minilm import SENTENCE
from tools.figures.runs import run_of, written_on

ATTENTION = "encoder.layer.0.attention.self"
HEAD = 3  # of block 0: the one that the chapter looks at
LAST = "encoder.layer.5.output.LayerNorm"


def minilm_to_scale(copy: LocalCopy) -> str:
    """Part 2: the matrices of one block as areas."""
    model = anatomy.describe(copy)
    part, side = model.part("encoder.layer.0"), 124
    unit = side / model.config.hidden_size
    d = Drawing(720, 394, "The six matrices of a block of MiniLM as areas, to scale, and what each has.")
    numbers = {"attention": 0, "feed-forward": 0}

    def matrix(x: float, y: float, half: str, name: str, kind: str = "accent") -> None:
        made, read = part.shapes[f"{name}.weight"]
        numbers[half] += made * read
        w, h = max(made, read) * unit, min(made, read) * unit
        d.box(x, y, w - 6, h - 6, kind)
        d.text(
            x + w / 2 - 3,
            y + h / 2 - 6,
            name.removeprefix("attention.self.").removesuffix(".dense"),
            bold=True,
            size=13,
        )
        d.text(x + w / 2 - 3, y + h / 2 + 14, f"{read:,} → {made:,}", size=13, kind="muted")

    for i, word in enumerate(("query", "key", "value")):
        matrix(150 + side * i, 10, "attention", f"attention.self.{word}", word)
    matrix(150 + side * 3, 10, "attention", "attention.output.dense")
    matrix(150, 20 + side, "feed-forward", "intermediate.dense")
    matrix(150, 20 + side * 2, "feed-forward", "output.dense")
    for y, half in ((side / 2, "attention"), (side * 2, "feed-forward")):
        d.text(136, y, half, at="end", bold=True)
        d.text(136, y + 20, f"{numbers[half]:,}", at="end", size=13, kind="muted")
        d.text(136, y + 38, f"{numbers[half] / sum(numbers.values()):.0%}", at="end", size=13, kind="muted")
    return d.svg()


def minilm_layer_norm(copy: LocalCopy) -> str:
    """Part 2: the numbers of one token before and after its LayerNorm."""
    truth = run_of(copy, SENTENCE)
    token = truth.inputs.tokens[0].index("rock")
    before = truth["embeddings.sum"].tensor[0, token].double()
    normal = (before - before.mean()) / before.std(correction=0)
    after = truth["embeddings.LayerNorm"].tensor[0, token].double()
    d = Drawing(
        720,
        244,
        f"Three histograms of the {len(before)} numbers of one token: as LayerNorm gets them, at mean 0 and "
        "variance 1, and as it gives them.",
    )
    panels = (
        ("what goes in", before, "muted"),
        ("shifted and scaled", normal, "query"),
        ("· γ + β: what comes out", after, "accent"),
    )
    edges = [-3.6 + 0.3 * edge for edge in range(25)]
    for left, (title, numbers, kind) in zip((26, 262, 498), panels, strict=True):
        counts = numbers.clamp(-3.59, 3.59).histc(24, -3.6, 3.6).tolist()
        plot = Plot(d, (left, 40, left + 196, 180), (-3.6, 3.6), (0, max(counts)))
        d.text(left + 98, 24, title, bold=True)
        plot.histogram(edges, counts, kind)
        d.line(f"M{left} 180h196", "muted", arrow=False)
        plot.columns((-3, 0, 3))
        mean, deviation = float(numbers.mean()), float(numbers.std(correction=0))
        d.text(left + 98, 230, f"mean {mean:.2f}, deviation {deviation:.2f}", size=13, kind="muted")
    return d.svg()


def minilm_gelu(copy: LocalCopy) -> str:
    """Part 2: the numbers of a feed-forward before and after the curve that bends them."""
    truth, block = run_of(copy, SENTENCE), "encoder.layer.0.intermediate"
    before = truth[f"{block}.dense"].tensor.flatten()
    after = truth[f"{block}.intermediate_act_fn"].tensor.flatten()
    low, high, bins = -4.0, 2.0, 48
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    d = Drawing(720, 420, f"GELU, with the {len(before):,} numbers that go into it and those that come out.")
    counts = [numbers.clamp(low, high).histc(bins, low, high).tolist() for numbers in (before, after)]
    plot = Plot(d, (60, 40, 480, 250), (low, high), (-0.5, high))
    plot.rows((0, 1, 2))
    plot.curve([(low, 0), (0, 0), (high, high)], "muted", dashed=True)
    plot.curve([(x, x / 2 * (1 + erf(x / sqrt(2)))) for x in edges], "accent")
    d.text(70, 62, "out ↑", at="start", size=13, kind="muted")
    d.text(330, 100, "GELU", at="end", size=13, kind="accent")
    d.text(330, 120, "dashed: ReLU", at="end", size=13, kind="muted")
    into = Plot(d, (60, 276, 480, 376), (low, high), (0, max(counts[0])))
    into.histogram(edges, counts[0], "query")
    into.columns((-4, -2, 0, 2))
    d.text(70, 300, "what goes in", at="start", size=13, kind="query", bold=True)
    most = max(counts[1])
    d.text(510, 30, "what comes out", at="start", size=13, kind="accent", bold=True)
    for edge, count in zip(edges, counts[1], strict=False):
        if count and edge >= -0.5:
            step = (high - low) / bins
            tall = round(plot.y(edge) - plot.y(edge + step), 1)
            length = round(190 * log1p(count) / log1p(most), 1)
            d.cell(510, plot.y(edge + step), length, 0.55, "accent", height=tall - 1)
    share = float((after.abs() < 0.2).float().mean())
    d.text(510, 276, f"{share:.0%} of them are", at="start", size=13)
    d.text(510, 294, "within 0.2 of zero", at="start", size=13)
    d.text(510, 316, "(bars on a logarithmic scale)", at="start", size=12, kind="muted")
    return d.svg()


def minilm_sum_order(copy: LocalCopy) -> str:
    """Part 3: one number of the embeddings, summed in two orders."""
    weights, pieces = copy.weights().at("embeddings"), copy.tokenizer().encode(SENTENCE)
    word = weights["word_embeddings.weight"][pieces.ids]
    type_ = weights["token_type_embeddings.weight"][0].expand_as(word)
    position = weights["position_embeddings.weight"][: len(pieces.ids)]
    sums = {"+ type + position": word + type_ + position, "+ position + type": word + position + type_}
    official, other = sums.values()
    token = pieces.tokens.index("rock")
    at = int((official != other)[token].nonzero()[0])
    exact = float(sum(Fraction(float(table[token, at])) for table in (word, type_, position)))
    results = {words: float(result[token, at]) for words, result in sums.items()}
    low, high = min(results.values()), max(results.values())
    step = 2.0 ** (frexp(low)[1] - 24)
    d = Drawing(720, 210, "One number of a sum, in two orders, among the numbers that float32 has there.")
    plot = Plot(d, (70, 30, 650, 130), (low - step, high + step), (0, 1))
    d.line("M30 130H690", "line", arrow=False)
    for i in range(round((high - low) / step) + 3):
        number = low + (i - 1) * step
        d.line(f"M{plot.x(number):g} 122v16", "muted", arrow=False)
        words = f"{number:.9f}".replace("-", "−")
        d.text(plot.x(number), 196, words, size=13, mono=True, kind="muted")
    for (words, result), kind in zip(results.items(), ("good", "warm"), strict=True):
        d.text(plot.x(result), 70, "word", size=13, bold=True, kind=kind)
        d.text(plot.x(result), 88, words, size=13, bold=True, kind=kind)
        d.line(f"M{plot.x(result):g} 98v22", kind)
        d.dot(plot.x(result), 130, kind)
    d.text(plot.x(results["+ type + position"]), 48, "as the model does", size=13, kind="good")
    d.line(f"M{plot.x(exact):g} 152V138", "accent")
    d.text(plot.x(exact), 168, f"exactly {exact:.12f}".replace("-", "−"), size=13, kind="accent")
    return d.svg()


def minilm_one_head(copy: LocalCopy) -> str:
    """Part 3: one head from query and key to its context."""
    truth = run_of(copy, SENTENCE)
    tokens = truth.inputs.tokens[0]
    config = anatomy.describe(copy).config
    n, width = len(tokens), config.hidden_size // config.num_attention_heads

    def head(name: str) -> list[list[float]]:
        tensor = truth[f"{ATTENTION}.{name}"].tensor[0]
        if tensor.dim() == 2:  # query, key, value: the heads side by side
            return tensor[:, HEAD * width : (HEAD + 1) * width].tolist()
        return tensor[HEAD].tolist()

    d = Drawing(
        720, 452, f"Head {HEAD} of block 0: from query and key to shares, and with the values to the context."
    )
    rows = (
        (
            70,
            ("query", "query", 6.4),
            ("key", "key", 6.4),
            ("scores", "accent", 16),
            "query · key, × 1/√" + str(width),
        ),
        (
            284,
            ("probs", "accent", 16),
            ("value", "value", 6.4),
            ("head_context", "value", 6.4),
            "shares · values",
        ),
    )
    for y, one, two, made, words in rows:
        x = 74.0
        beside(d, x - 8, y, tokens, 16)
        for sign, (name, kind, side) in zip(("", "×", "="), (one, two, made), strict=True):
            numbers = head(name)
            w = side * len(numbers[0])
            if sign:
                d.text(x - 18, y + 8 * n + 4, sign, size=18, kind="muted")
            heat(d, x, y, numbers, side, height=16, kind=kind)
            d.text(x + w / 2, y - 14, f"{name} {shape(n, len(numbers[0]))}", size=13, bold=True)
            x += w + 36
        d.text(x - 62, y + 16 * n + 20, words, at="end", size=13, kind="muted")
    d.line("M682 222V246H146V262", "muted")
    d.text(385, 240, "softmax, row by row", size=13, kind="muted")
    return d.svg()


def minilm_every_head(copy: LocalCopy) -> str:
    """Part 3: the shares of all heads of all blocks."""
    truth = run_of(copy, SENTENCE)
    config = anatomy.describe(copy).config
    side, pitch, left, top = 5.0, 53, 76, 40
    heads, blocks = config.num_attention_heads, config.num_hidden_layers
    d = Drawing(
        720,
        top + pitch * blocks + 4,
        f"The shares of all {heads * blocks} heads: {blocks} blocks of {heads}.",
    )
    for head in range(heads):
        d.text(left + pitch * head + 22, 24, str(head), size=13, kind="muted")
    d.text(left - 12, 24, "head", at="end", size=13, kind="muted")
    panels = []
    for block in range(blocks):
        probs = truth[f"encoder.layer.{block}.attention.self.probs"].tensor[0]
        d.text(left - 12, top + pitch * block + 28, f"block {block}", at="end", size=13)
        panels += [(left + pitch * head, top + pitch * block, probs[head].tolist()) for head in range(heads)]
    heats(d, panels, side, limit=1.0)
    return d.svg()


def minilm_proofs(copy: LocalCopy) -> str:
    """By hand: at how many checkpoints three proofs look."""
    rebuild = rebuild_for(copy.config)
    names = [one.name for one in rebuild.checkpoints({"eager", *rebuild.conditions(copy.weights())})]
    rows = (
        ("fifteen lines", [f"{ATTENTION}.query"]),
        ("the whole model", [LAST]),
        ("verify, with the package", names),
    )
    d = Drawing(
        720, 60 + 54 * len(rows), f"Three proofs, and at which of {len(names)} checkpoints each looks."
    )
    for row, (words, seen) in enumerate(rows):
        y = 4 + 54 * row
        d.text(200, y + 37, words, at="end", size=13, bold=True)
        strip(d, 214, y, ["good" if name in seen else "" for name in names], 440, 40)
        d.text(664, y + 37, str(len(seen)), at="start", size=13)
    y = 30 + 54 * len(rows)
    d.text(214, y, "first checkpoint", at="start", size=13, kind="muted")
    d.text(654, y, "last", at="end", size=13, kind="muted")
    return d.svg()


def minilm_pooling(copy: LocalCopy) -> str:
    """Sentences: the mean over real tokens, and the mean over everything."""
    texts = written_on("part-3/sentences.md", "texts")
    truth = capture(copy, texts)
    hidden, mask = truth[LAST].tensor, truth.inputs.mask
    right = truth["sentence.embedding"].tensor[1]
    wrong = F.normalize(hidden[1].mean(dim=0), dim=0)
    d = Drawing(720, 262, "Two sentences as a padded batch, and what each token counts for in the mean.")
    tokens, width = truth.inputs.tokens, 66
    pad = "[PAD]"
    rows = (
        (20, "text 0", 0, mask[0].float(), ""),
        (92, "text 1", 1, mask[1].float(), ""),
        (176, "the same,", 1, torch.ones_like(mask[1]).float(), "no mask"),
    )
    for y, title, text, counted, below in rows:
        d.text(94, y + 20, title, at="end", size=13, bold=True)
        d.text(94, y + 38, below, at="end", size=13, bold=True)
        for i, share in enumerate((counted / counted.sum()).tolist()):
            real, x = bool(mask[text, i]), 104 + (width + 1) * i
            kind = "bad" if share and not real else "accent" if real else "surface"
            d.box(x, y, width - 2, 28, kind, dashed=not real)
            d.text(
                x + width / 2 - 1,
                y + 19,
                tokens[text][i] if real else pad,
                size=13,
                mono=True,
                kind="ink" if real else "muted",
            )
            d.text(x + width / 2 - 1, y + 48, f"{share:.2f}" if share else "0", size=13, kind="muted")
    cosine = float(right @ wrong)
    d.text(104, 252, f"cosine of the two vectors of text 1: {cosine:.2f}", at="start", size=13, kind="bad")
    return d.svg()


def minilm_search(copy: LocalCopy) -> str:
    """Sentences: three questions against six notes."""
    notes = written_on("part-3/sentences.md", "notes")
    questions = written_on("part-3/sentences.md", "questions")
    similarity = embed(copy, notes).embeddings @ embed(copy, questions).embeddings.T
    d = Drawing(720, 262, "A table of similarities: six notes, three questions.")
    for column, question in enumerate(questions):
        x, words = 58 + 94 * column, question.split()
        half = (len(words) + 1) // 2 if len(words) > 2 else len(words)
        for row, line in enumerate((" ".join(words[:half]), " ".join(words[half:]))):
            d.text(x, 22 + 18 * row, line, size=12)
    for row, note in enumerate(notes):
        y = 56 + 34 * row
        d.text(302, y + 20, note, at="start", size=13)
        for column in range(len(questions)):
            number = float(similarity[row, column])
            best = row == int(similarity[:, column].argmax())
            d.cell(14 + 94 * column, y, 88, max(number, 0), "accent", height=30)
            words = f"{round(number, 2) + 0.0:.2f}".replace("-", "−")
            d.text(58 + 94 * column, y + 20, words, size=13, bold=best)
    return d.svg()


def minilm_bank(copy: LocalCopy) -> str:
    """Contextual: cosines within and between two meanings of a word, block by block."""
    sentences = written_on("part-3/contextual.md", "sentences")
    runs = [capture(copy, sentence) for sentence in sentences]
    places = [run.inputs.tokens[0].index("bank") for run in runs]
    names = ["embeddings.word_embeddings", "embeddings.LayerNorm"]
    names += [f"encoder.layer.{i}.output.LayerNorm" for i in range(6)]
    d = Drawing(720, 318, "Cosines of one word's vectors within a meaning and between two, after each block.")
    plot = Plot(d, (70, 24, 560, 262), (0, len(names) - 1), (0.75, 1))
    plot.rows((0.75, 0.8, 0.85, 0.9, 0.95, 1), "{:.2f}".format)
    words = ["table", "embeddings", *(f"block {i}" for i in range(6))]
    for i, word in enumerate(words):
        d.text(plot.x(i), 284 + 18 * (i % 2), word, size=13, kind="muted")
    pairs = [(i, j) for i in range(4) for j in range(i)]
    lines: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
    for name in names:
        unit = F.normalize(
            torch.stack([run[name].tensor[0, at] for run, at in zip(runs, places, strict=True)]), dim=1
        )
        for i, j in pairs:
            lines[i, j].append(float(unit[i] @ unit[j]))
    groups = {True: ("good", "within a meaning"), False: ("warm", "between meanings")}
    for same, (kind, label) in groups.items():
        chosen = [line for (i, j), line in lines.items() if (i // 2 == j // 2) is same]
        for line in chosen:
            for i, cosine in enumerate(line):
                plot.dot(i, cosine, kind, 3)
        mean = [sum(cosines) / len(cosines) for cosines in zip(*chosen, strict=True)]
        plot.curve(enumerate(mean), kind, label)
    return d.svg()


FIGURES = (
    minilm_to_scale,
    minilm_layer_norm,
    minilm_gelu,
    minilm_sum_order,
    minilm_one_head,
    minilm_every_head,
    minilm_proofs,
    minilm_pooling,
    minilm_search,
    minilm_bank,
)
OF = {"minilm": FIGURES}
