"""The course's figures, drawn from the anatomy and from a run, so that their numbers are never typed.

    python -m tools.figures            # writes docs/figures/*.svg
    python -m tools.figures --check    # exit 1 if one of them is not what would be drawn now

Inline SVG with the site's CSS variables, so a figure follows the light and the dark page. One tag a line
and no blank line, because Markdown ends an HTML block at one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache
from html import escape
from math import log10
from pathlib import Path

from llm_rebuild import anatomy
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
SENTENCE = "Open-source LLMs rock."
GPT2_PROMPT = "The baker of Oru lives by the"
GPT2_START = "The baker of Oru"
GPT2_WORD = " baker"
GPT2_HEADS = ((0, 2), (0, 3))  # block and head: one finds the trade, one the village
T5_SENTENCE = "translate English to German: four hundred twenty-seven"


class Drawing:
    """A small SVG in the making. Sizes are in pixels at the width of a page's column."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = (width, height)
        self.title = title
        self.tags: list[str] = []

    def box(
        self, x: float, y: float, w: float, h: float, kind: str = "surface", *, dashed: bool = False
    ) -> None:
        """kind: surface (plain), accent (weights), warm (what a learner builds), good, bad."""
        fill = "surface" if kind == "surface" else f"{kind}-soft"
        stroke = "line" if kind == "surface" else kind
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4" '
            f'fill="var(--fig-{fill})" stroke="var(--fig-{stroke})"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        kind: str = "ink",
        size: int = 14,
        at: str = "middle",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        family = ' font-family="var(--md-code-font-family)"' if mono else ""
        self.tags.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{at}"{weight}{family} '
            f'fill="var(--fig-{kind})">{escape(words, quote=False)}</text>'
        )

    def line(self, path: str, kind: str = "muted", *, arrow: bool = True, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = f' marker-end="url(#arrow-{kind}-{self._key()})"' if arrow else ""
        self.tags.append(
            f'<path d="{path}" fill="none" stroke="var(--fig-{kind})" stroke-width="1.5"{dash}{end}/>'
        )

    def cell(
        self,
        x: float,
        y: float,
        side: float,
        share: float,
        kind: str = "accent",
        *,
        height: float | None = None,
    ) -> None:
        """One square of a heat map: `share` from 0 to 1, in steps of a twentieth, as ink on paper."""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{height or side:g}" '
            f'fill="var(--fig-{kind})" fill-opacity="{round(share * 20) / 20:g}"/>'
        )

    def _key(self) -> str:
        return f"{self.size[0]}-{self.size[1]}"  # an id has to be unique on a page with several figures

    def svg(self) -> str:
        width, height = self.size
        head = [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.title)}" '
            'data-search-exclude="">',
            "<defs>",
        ]
        drawn = str(self.tags)
        head += [
            f'<marker id="arrow-{kind}-{self._key()}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--fig-{kind})"/></marker>'
            for kind in ("accent", "bad", "good", "muted", "warm")
            if f"arrow-{kind}-" in drawn
        ]
        return "\n".join([*head, "</defs>", *self.tags, "</svg>"]) + "\n"


def shape(*sizes: int) -> str:
    return "[" + ", ".join(f"{size:,}" if size > 9999 else str(size) for size in sizes) + "]"


# ------------------------------------------------------------------------------------- the figures


def minilm_numbers(copy: LocalCopy) -> str:
    """Part 1: where the numbers of the weight file are."""
    model = anatomy.describe(copy)
    total = model.parameters
    d = Drawing(720, 190, f"The {total:,} numbers of MiniLM's weight file as one bar, part by part.")
    d.text(10, 22, f"model.safetensors: {total:,} numbers, 4 bytes each", at="start", bold=True)
    x, width = 10.0, 700.0
    for part in model.parts:
        if not part.parameters:
            continue
        w = width * part.parameters / total
        d.box(x, 40, w, 54, "warm" if part.path.startswith("encoder") else "accent")
        if part.path == "embeddings":
            d.text(x + w / 2, 64, "embeddings", bold=True)
            d.text(x + w / 2, 83, f"{part.parameters:,}", size=13)
        elif part.path.startswith("encoder"):
            d.text(x + w / 2, 72, part.path.rpartition(".")[2], bold=True)
        x += w
    block = model.part("encoder.layer.0")
    share = model.part("embeddings").parameters / total
    first = 10 + width * share
    last = first + width * block.parameters * model.config.num_hidden_layers / total
    d.line(f"M{first:g} 106v8H{last:g}v-8", arrow=False)
    d.text(
        (first + last) / 2,
        134,
        f"{model.config.num_hidden_layers} equal blocks, {block.parameters:,} numbers each",
    )
    d.line(f"M{last + 2:g} 100V156H{last - 20:g}", arrow=False)
    d.text(last - 26, 161, f"pooler, {model.part('pooler').parameters:,}", at="end", size=13)
    words = model.part("embeddings").shapes["word_embeddings.weight"]
    d.text(10, 134, f"a row of {words[1]} numbers for", at="start", size=13)
    d.text(10, 152, f"each of {words[0]:,} word pieces", at="start", size=13)
    return d.svg()


def minilm_architecture(copy: LocalCopy) -> str:
    """Part 2: the whole model, top to bottom, with the shapes of a real sentence."""
    c = anatomy.describe(copy).config
    tokens = len(copy.tokenizer().encode(SENTENCE).ids)
    d = Drawing(
        720, 560, f"MiniLM from the text to one vector, with the shapes for a sentence of {tokens} tokens."
    )
    middle, w = 300, 300

    def stage(y: float, words: str, after: str, kind: str = "accent", h: float = 40) -> None:
        d.box(middle - w / 2, y, w, h, kind)
        d.text(middle, y + h / 2 + 5, words, bold=True)
        d.line(f"M{middle} {y + h}V{y + h + 30}")
        d.text(middle + 12, y + h + 20, after, at="start", size=13, mono=True, kind="muted")

    d.text(middle, 20, f"“{SENTENCE}”")
    d.line(f"M{middle} 28V48")
    stage(50, "WordPiece", f"{shape(1, tokens)} token ids", "surface")
    stage(122, "embeddings", shape(1, tokens, c.hidden_size))
    d.text(middle + w / 2 + 14, 138, "word + token type + position,", at="start", size=13)
    d.text(middle + w / 2 + 14, 156, "then LayerNorm", at="start", size=13)
    d.box(middle - w / 2 + 10, 188, w, 128, "warm")
    d.box(middle - w / 2 + 5, 194, w, 128, "warm")
    d.box(middle - w / 2, 200, w, 128, "warm")
    d.text(middle, 222, f"block 0 … {c.num_hidden_layers - 1}", bold=True)
    d.box(middle - 130, 234, 260, 34)
    d.text(
        middle,
        256,
        f"self-attention, {c.num_attention_heads} heads of {c.hidden_size // c.num_attention_heads}",
        size=13,
    )
    d.box(middle - 130, 282, 260, 34)
    d.text(middle, 304, f"feed-forward, {c.hidden_size} → {c.intermediate_size} → {c.hidden_size}", size=13)
    d.line(f"M{middle} 268V280")
    d.text(middle + w / 2 + 24, 256, "+ its input, LayerNorm", at="start", size=13)
    d.text(middle + w / 2 + 24, 304, "+ its input, LayerNorm", at="start", size=13)
    d.line(f"M{middle} 328V358")
    d.text(
        middle + 12,
        348,
        f"{shape(1, tokens, c.hidden_size)} last_hidden_state",
        at="start",
        size=13,
        mono=True,
        kind="muted",
    )
    stage(360, "mean over the tokens", shape(1, c.hidden_size), "surface")
    stage(432, "divide by its length", f"{shape(1, c.hidden_size)}", "surface")
    d.text(middle, 522, "the sentence embedding: where this sentence", size=14, bold=True)
    d.text(middle, 542, "stands among all sentences", size=14, bold=True)
    d.line(f"M{middle - w / 2 - 4} 343H70V372", dashed=True)
    d.box(10, 374, 120, 40, "accent", dashed=True)
    d.text(70, 399, "pooler")
    d.text(70, 434, "in the file, not used", size=13, kind="muted")
    d.text(70, 451, "for the embedding", size=13, kind="muted")
    return d.svg()


def minilm_block(copy: LocalCopy) -> str:
    """Part 3: one block, every checkpoint in it, with its shape."""
    model = anatomy.describe(copy)
    c = model.config
    n = len(copy.tokenizer().encode(SENTENCE).ids)
    sizes = {
        "batch": 1,
        "token": n,
        "query": n,
        "key": n,
        "width": c.hidden_size,
        "wide": c.intermediate_size,
        "head": c.num_attention_heads,
        "head width": c.hidden_size // c.num_attention_heads,
    }

    def of(name: str) -> str:
        found = next(p for p in model.checkpoints if p.name == f"encoder.layer.0.{name}")
        return shape(*(sizes[word] for word in found.shape.strip("[]").split(", ")))

    d = Drawing(720, 850, f"One block of MiniLM, every checkpoint with its shape for {n} tokens.")
    d.text(360, 20, f"input of the block  {shape(1, n, c.hidden_size)}", bold=True)

    def step(x: float, y: float, name: str, words: str, kind: str = "surface", w: float = 190) -> None:
        d.box(x - w / 2, y, w, 54, kind)
        d.text(x, y + 22, words, bold=True)
        d.text(x, y + 42, of(name), size=13, mono=True, kind="muted")

    d.line("M360 28V40H130V54")
    d.line("M360 28V54")
    d.line("M360 40H590V54")
    for x, part in ((130, "query"), (360, "key"), (590, "value")):
        step(x, 56, f"attention.self.{part}", part, "accent")
    d.line("M130 110V132H236V144")
    d.line("M360 110V132H254V144")
    step(245, 146, "attention.self.product", "product: query · key", w=250)
    d.line("M245 200V216")
    step(245, 218, "attention.self.scaled", "scaled: × 1/√" + str(sizes["head width"]), w=250)
    d.line("M245 272V288")
    step(245, 290, "attention.self.scores", "scores: + mask", w=250)
    d.line("M245 344V360")
    step(245, 362, "attention.self.probs", "probs: softmax", "warm", w=250)
    d.line("M245 416V444H360V456")
    d.line("M590 110V444H378V456")
    step(369, 458, "attention.self.head_context", "head_context: probs · value", w=270)
    d.line("M369 512V528")
    step(369, 530, "attention.self.context", "context: heads merged", w=270)
    d.line("M369 584V600H200V614")
    step(200, 616, "attention.output.dense", "attention.output.dense", "accent", w=220)
    d.line("M310 643H384")
    d.box(386, 616, 250, 54)
    d.text(511, 638, "residual, then LayerNorm", bold=True)
    d.text(511, 658, of("attention.output.residual"), size=13, mono=True, kind="muted")
    d.line("M360 34H690V643H638", "good", dashed=True)
    d.text(684, 600, "the input, added back", at="end", size=13, kind="good")
    d.line("M511 670V690H130V704")
    step(130, 706, "intermediate.dense", "intermediate.dense", "accent", w=200)
    d.line("M230 733H256")
    step(350, 706, "intermediate.intermediate_act_fn", "GELU", w=184)
    d.line("M442 733H470")
    step(570, 706, "output.dense", "output.dense", "accent", w=196)
    d.line("M570 760V784")
    d.box(446, 786, 250, 54)
    d.text(571, 808, "residual, then LayerNorm", bold=True)
    d.text(571, 828, of("output.residual"), size=13, mono=True, kind="muted")
    d.line("M511 680H706V813H698", "good", dashed=True)
    d.line("M446 813H420", arrow=True)
    d.text(412, 818, "to the next block", at="end")
    return d.svg()


def minilm_attention(copy: LocalCopy) -> str:
    """Part 3: where each token looks, in two heads of block 0."""
    from llm_rebuild.verify import capture

    truth = capture(copy, SENTENCE)
    tokens = truth.inputs.tokens[0]
    probs = truth["encoder.layer.0.attention.self.probs"].tensor
    side, top, lefts = 26.0, 92.0, (96.0, 440.0)
    n = len(tokens)
    d = Drawing(720, int(top + n * side + 44), "Where each token looks, in head 2 and head 3 of block 0.")
    for left, head in zip(lefts, (2, 3), strict=True):
        for i, token in enumerate(tokens):
            d.text(left - 8, top + i * side + 19, token, at="end", size=13, mono=True)
            x, y = left + i * side + 17, top - 8
            d.tags.append(
                f'<text x="{x:g}" y="{y:g}" font-size="13" font-family="var(--md-code-font-family)" '
                f'transform="rotate(-55 {x:g} {y:g})" fill="var(--fig-ink)">{escape(token)}</text>'
            )
            for j in range(n):
                d.cell(left + j * side, top + i * side, side - 2, float(probs[0, head, i, j]))
        d.text(left + n * side / 2, top + n * side + 28, f"head {head}", bold=True)
    return d.svg()


def minilm_drift(copy: LocalCopy) -> str:
    """Part 3: how far three changed models are off after each block, as the page's own table says."""
    lines = (FIGURES.parent / "part-3" / "floats.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("embeddings.LayerNorm "))
    rows = [[float(word) for word in line.split()[1:]] for line in lines[first : first + 7]]
    left, right, top, bottom, decades = 84, 610, 30, 270, range(-7, 0)
    d = Drawing(720, 320, "Largest difference to the official model after each block, for three changes.")

    def y(difference: float) -> float:
        return bottom - (max(log10(difference), -7) + 7) * (bottom - top) / 6 if difference else bottom

    for decade in decades:
        height = y(10.0**decade)
        d.line(f"M{left} {height:g}H{right - 30}", "line", arrow=False)
        words = "0" if decade == -7 else f"1e{decade}"
        d.text(left - 10, height + 5, words, at="end", size=13, kind="muted")
    steps = [left + 30 + number * (right - left - 60) / 6 for number in range(7)]
    for number, x in enumerate(steps):
        words = f"block {number - 1}" if number else "embeddings"
        d.text(x, bottom + 24, words, at="middle", size=13, kind="muted")
    labels = ("÷ √32: rounding", "tanh GELU", "epsilon 1e-5")
    for column, (label, kind) in enumerate(zip(labels, ("good", "accent", "warm"), strict=True)):
        points = [(x, y(row[column])) for x, row in zip(steps, rows, strict=True)]
        d.line("M" + "L".join(f"{x:g} {height:.1f}" for x, height in points), kind, arrow=False)
        d.text(steps[-1] + 8, points[-1][1] + 5, label, size=13, kind=kind, at="start")
    return d.svg()


def _t5_answer(copy: LocalCopy) -> tuple[list[int], list[str]]:
    """What the model makes of the sentence, the start token first: ids and tokens."""
    from llm_rebuild.using.generate import Settings, generate

    (row,) = generate(copy, T5_SENTENCE, Settings(20)).rows
    return list(row), [copy.tokenizer().tokens[i] for i in row]


def t5_architecture(copy: LocalCopy) -> str:
    """Part 2: both towers, and the one place where they meet."""
    c = anatomy.describe(copy).config
    read = len(copy.tokenizer().encode(T5_SENTENCE).ids)
    ids, tokens = _t5_answer(copy)
    written = len(ids) - 1
    d = Drawing(
        720,
        632,
        f"T5's two towers. The encoder reads {read} tokens; the decoder has {written} tokens of the answer "
        "and looks at the encoder's result in every block.",
    )
    left, right, w = 172, 540, 230

    def box(x: float, y: float, words: str, kind: str = "accent", h: float = 38) -> None:
        d.box(x - w / 2, y, w, h, kind)
        d.text(x, y + h / 2 + 5, words, bold=True)

    def after(x: float, y: float, words: str, length: float = 30) -> None:
        d.line(f"M{x} {y}V{y + length}")
        d.text(x + 10, y + length / 2 + 5, words, at="start", size=13, mono=True, kind="muted")

    def stack(x: float, y: float, title: str, halves: list[str]) -> float:
        height = 34 + 44 * len(halves)
        for shift in (10, 5, 0):
            d.box(x - w / 2 + shift, y + 10 - shift, w, height, "warm")
        d.text(x, y + 33, title, bold=True)
        for i, half in enumerate(halves):
            d.box(x - 105, y + 44 + 44 * i, 210, 32)
            d.text(x, y + 65 + 44 * i, half, size=13)
            if i:
                d.line(f"M{x} {y + 32 + 44 * i}v10")
        return y + 10 + height

    vectors = shape(1, read, c.d_model)
    first, second = T5_SENTENCE.split(": ")
    d.text(left, 22, "encoder", bold=True, size=16)
    d.text(left, 48, f"{first}:", size=13)
    d.text(left, 66, second, size=13)
    d.line(f"M{left} 72V88")
    box(left, 90, "Unigram", "surface")
    after(left, 128, f"{shape(1, read)} token ids")
    box(left, 160, "shared: the token table")
    after(left, 198, vectors)
    bottom = stack(
        left,
        230,
        f"block 0 … {c.num_layers - 1}",
        ["self-attention, both directions", f"feed-forward, {c.d_model} → {c.d_ff} → {c.d_model}"],
    )
    after(left, bottom, vectors)
    box(left, bottom + 32, "RMSNorm")
    d.text(left, bottom + 92, "what the decoder looks at", size=13)
    d.text(left, bottom + 110, vectors, size=13, mono=True, kind="muted")

    d.text(right, 22, "decoder", bold=True, size=16)
    d.text(right, 48, "the answer so far:", size=13)
    d.text(right, 66, " ".join(tokens[:-1]), size=13, mono=True)
    d.line(f"M{right} 72V158")
    d.text(right + 10, 120, f"{shape(1, written)} token ids", at="start", size=13, mono=True, kind="muted")
    box(right, 160, "shared: the token table")
    after(right, 198, shape(1, written, c.d_model))
    end = stack(
        right,
        230,
        f"block 0 … {c.decoder_layers - 1}",
        [
            "self-attention, only back",
            "cross-attention",
            f"feed-forward, {c.d_model} → {c.d_ff} → {c.d_model}",
        ],
    )
    after(right, end, shape(1, written, c.d_model))
    box(right, end + 32, "RMSNorm")
    after(right, end + 70, f"× 1/√{c.d_model}")
    box(right, end + 102, "shared: the token table, again")
    after(right, end + 140, f"{shape(1, written, c.vocab_size)} scores")
    d.text(right, end + 190, "the best next token at each place:", size=13)
    d.text(right, end + 210, " ".join(tokens[1:]), size=13, mono=True, bold=True)

    cross = 230 + 44 * 2 + 16
    d.line(f"M{left + w / 2} {bottom + 51}H356V{cross}H{right - 107}", "good")
    d.text(364, cross + 60, "keys and", at="start", size=13, kind="good")
    d.text(364, cross + 77, "values", at="start", size=13, kind="good")
    d.line(f"M{left + w / 2} 179H{right - w / 2}", "accent", arrow=False, dashed=True)
    d.text(356, 172, "one table", size=13, kind="accent")
    d.line(f"M{right + w / 2} 179H694V{end + 121}H{right + w / 2 + 2}", "accent", arrow=False, dashed=True)
    return d.svg()


def t5_buckets(copy: LocalCopy) -> str:
    """Part 2: distances and the buckets that they fall into."""
    import torch

    from llm_rebuild.models.t5 import bucket_of

    c = anatomy.describe(copy).config
    farthest, n, side = c.relative_attention_max_distance, 11, 27.0
    d = Drawing(
        720,
        610,
        f"Buckets of distances: a table for {n} tokens in the encoder and in the decoder, and how wide each "
        f"bucket is up to a distance of {farthest}.",
    )
    where = torch.arange(n)
    distance = where - where[:, None]  # [query, key]
    for left, both, title in ((58.0, True, "encoder"), (408.0, False, "decoder")):
        buckets = bucket_of(distance, both, c)
        half = c.relative_attention_num_buckets // (2 if both else 1)
        d.text(left + n * side / 2, 22, title, bold=True)
        d.text(left + n * side / 2, 44, "key: looked at →", size=13, kind="muted")
        d.text(left - 10, 66, "query", at="end", size=13, kind="muted")
        d.text(left - 10, 84, "↓", at="end", size=13, kind="muted")
        for i in range(n):
            for j in range(n):
                x, y, bucket = left + j * side, 52 + i * side, int(buckets[i, j])
                later = j > i
                if later and not both:
                    d.text(x + side / 2 - 1, y + 18, "·", size=13, kind="muted")
                    continue
                near = 1 - (bucket % half) / half
                d.cell(x, y, side - 2, 0.06 + 0.42 * near, "warm" if later else "accent")
                d.text(x + side / 2 - 1, y + 18, str(bucket), size=12)
    d.text(
        58, 52 + n * side + 22, "blue: looking back, orange: looking ahead", at="start", size=13, kind="muted"
    )
    d.text(408, 52 + n * side + 22, "what comes later is masked", at="start", size=13, kind="muted")

    left, width, longest = 20.0, 680.0, farthest + 8
    for y, both, sign, words in (
        (446.0, True, 1, "encoder, looking ahead"),
        (536.0, False, -1, "decoder, looking back"),
    ):
        d.text(left, y - 12, f"{words}: bucket by distance", at="start", size=13)
        buckets = bucket_of(sign * torch.arange(longest)[None], both, c)[0].tolist()
        half = c.relative_attention_num_buckets // (2 if both else 1)
        for bucket in sorted(set(buckets)):
            begin, count = buckets.index(bucket), buckets.count(bucket)
            x, w = left + width * begin / longest, width * count / longest
            near = 1 - (bucket % half) / half
            d.cell(x, y, w - 1, 0.06 + 0.42 * near, "warm" if both else "accent", height=28)
            if w > 19:
                d.text(x + w / 2, y + 19, str(bucket), size=12)
        for tick in (0, 16, 32, 64, farthest):
            d.text(left + width * (tick + 0.5) / longest, y + 46, str(tick), size=12, kind="muted")
    return d.svg()


def t5_block(copy: LocalCopy) -> str:
    """Part 3: one decoder block in its three halves, every checkpoint with its shape."""
    model = anatomy.describe(copy)
    c = model.config
    read = len(copy.tokenizer().encode(T5_SENTENCE).ids)
    written = len(_t5_answer(copy)[0]) - 1
    sizes = {
        "batch": 1,
        "token": written,
        "query": written,
        "width": c.d_model,
        "wide": c.d_ff,
        "head": c.num_heads,
        "head width": c.d_kv,
    }
    inner = c.num_heads * c.d_kv
    d = Drawing(
        720,
        800,
        f"One decoder block of T5: self-attention, cross-attention to {read} tokens of the encoder, and "
        "feed-forward, every checkpoint with its shape.",
    )

    def of(name: str, key: int) -> str:
        found = next(p for p in model.checkpoints if p.name == f"decoder.block.0.layer.{name}")
        return shape(*({**sizes, "key": key}[word] for word in found.shape.strip("[]").split(", ")))

    def step(x: float, row: int, words: str, below: str, kind: str = "surface") -> None:
        y = 92 + 60 * row
        d.box(x - 98, y, 196, 46, kind)
        d.text(x, y + 19, words, bold=True)
        d.text(x, y + 37, below, size=13, mono=True, kind="muted")
        if row < 9 and (row, x) not in ((0, 120), (0, 360), (3, 600)):  # their lines lead elsewhere
            d.line(f"M{x} {y + 46}v12")

    columns = (120, 360, 600)
    for x, title, number in zip(
        columns, ("self-attention", "cross-attention", "feed-forward"), "012", strict=True
    ):
        d.text(x, 22, f"layer.{number}: {title}", bold=True)
        d.line(f"M{x} 64V90")
        d.text(x + 8, 60, shape(1, written, c.d_model), size=13, mono=True, kind="muted", at="start")
        step(x, 0, "layer_norm", of(f"{number}.layer_norm", 0), "accent")
    for x, part, key in ((120, "0.SelfAttention", written), (360, "1.EncDecAttention", read)):
        crossing = key == read
        for i, name in enumerate("qkv"):
            middle = x - 66 + 66 * i
            rows = read if crossing and name != "q" else written
            d.box(middle - 32, 152, 64, 44, "accent")
            d.text(middle, 169, name, bold=True)
            d.text(middle, 187, f"[1,{rows},{inner}]", size=11, mono=True, kind="muted")
            if name == "q" or not crossing:
                d.line(f"M{middle} 138v12")
            if name != "v":
                d.line(f"M{middle} 196v14")
        d.line(f"M{x + 98} 174H{x + 105}V475H{x + 100}")
        step(x, 2, "product: q · k", of(f"{part}.product", key))
        step(
            x,
            3,
            "biased: + 0, no distances" if crossing else "biased: + position bias",
            of(f"{part}.biased", key),
        )
        step(x, 4, "scores" if crossing else "scores: + mask", of(f"{part}.scores", key))
        step(x, 5, "probs: softmax", of(f"{part}.probs", key), "warm")
        step(x, 6, "head_context: probs · v", of(f"{part}.head_context", key))
        step(x, 7, "context: heads merged", shape(1, written, inner))
        step(x, 8, "o", of(f"{part}.o", key), "accent")
        step(x, 9, "residual: + the input", of(f"{part[0]}.residual", key))
    dense = "2.DenseReluDense"
    step(600, 1, "wi", of(f"{dense}.wi", 0), "accent")
    step(600, 2, "act: ReLU", of(f"{dense}.act", 0))
    step(600, 3, "wo", of(f"{dense}.wo", 0), "accent")
    d.line("M600 318V630")
    step(600, 9, "residual: + the input", of("2.residual", 0))
    for x in columns:  # the input, added back
        d.line(f"M{x} 72H{x - 110}V655H{x - 100}", "good", dashed=True)
    for x in columns[:2]:  # on to the next half
        d.line(f"M{x} 678V700H{x + 119}V46H{x + 240}V62", arrow=True)
    d.line("M600 678V722")
    d.text(600, 742, "to the next block", size=14)
    d.line("M394 744V716H472V144H426V150", "good")
    d.line("M426 144H360V150", "good")
    d.text(394, 760, f"the encoder's result {shape(1, read, c.d_model)}", size=13, kind="good")
    d.text(394, 780, "for k and v of every block", size=13, kind="good")
    return d.svg()


def t5_cross_attention(copy: LocalCopy) -> str:
    """Part 3: where each token that is being written looks in the sentence that was read."""
    from llm_rebuild.verify import capture

    ids, tokens = _t5_answer(copy)
    truth = capture(copy, T5_SENTENCE, decoder_ids=[ids[:-1]])
    probs = truth["decoder.block.1.layer.1.EncDecAttention.probs"].tensor[0, 3]  # [query, key]
    side, top, left = 42.0, 104.0, 170.0
    d = Drawing(
        720,
        int(top + len(probs) * side + 20),
        "Cross-attention of one head: each word that is written looks at the word that it translates.",
    )
    d.text(left - 12, top - 14, "writes", at="end", size=13, kind="muted")
    for j, token in enumerate(truth.inputs.tokens[0]):
        x, y = left + j * side + 22, top - 8
        d.tags.append(
            f'<text x="{x:g}" y="{y:g}" font-size="13" font-family="var(--md-code-font-family)" '
            f'transform="rotate(-55 {x:g} {y:g})" fill="var(--fig-ink)">{escape(token)}</text>'
        )
    height = len(probs) * side
    d.box(left - 3, top - 3, probs.shape[1] * side + 4, height + 4)
    for i, row in enumerate(probs):
        d.text(left - 12, top + i * side + 26, tokens[i + 1], at="end", size=13, mono=True)
        for j, share in enumerate(row.tolist()):
            d.cell(left + j * side, top + i * side, side - 2, share)
    return d.svg()


def compared(copy: LocalCopy) -> str:
    """The comparison page: where the norms stand in the three models' blocks, and what goes in and out."""
    d = Drawing(
        720,
        624,
        "MiniLM, GPT-2 and T5 side by side. MiniLM normalises after each half of a block, the others before.",
    )

    def tower(x: float, w: float, y: float, title: str, layers: list[tuple[str, str]], height: float) -> None:
        """Layers from top to bottom, each with its kind; from an `(` the block begins, at a `)` it ends."""
        d.text(x, y, title, bold=True, size=16)
        y += 14
        begin = y
        for i, (words, kind) in enumerate(layers):
            if words == "(":
                begin = y
                y += 8
            elif words == ")":
                d.tags.insert(
                    0,
                    f'<rect x="{x - w / 2 - 8:g}" y="{begin:g}" width="{w + 16:g}" '
                    f'height="{y - begin:g}" rx="6" fill="none" stroke="var(--fig-muted)" '
                    'stroke-dasharray="5 4"/>',
                )
                y += 8
            else:
                d.box(x - w / 2, y, w, height, kind)
                d.text(x, y + height / 2 + 5, words, size=13)
                y += height + 8
                if i + 1 < len(layers):
                    d.line(f"M{x} {y - 8}v7", arrow=False)

    norm, weigh, plain, meet = "good", "accent", "surface", "warm"
    height = 30.0
    tower(
        96, 164, 24, "MiniLM",
        [
            ("WordPiece", plain), ("word + type + position", weigh), ("LayerNorm", norm),
            ("(", ""), ("self-attention", meet), ("+ input", plain), ("LayerNorm", norm),
            ("feed-forward, GELU", weigh), ("+ input", plain), ("LayerNorm", norm), (")", ""),
            ("mean of the tokens", plain), ("one vector", plain),
        ],
        height,
    )  # fmt: skip
    tower(
        290, 164, 24, "GPT-2",
        [
            ("byte-level BPE", plain), ("token + position", weigh),
            ("(", ""), ("LayerNorm", norm), ("self-attention, back", meet), ("+ input", plain),
            ("LayerNorm", norm), ("feed-forward, tanh GELU", weigh), ("+ input", plain), (")", ""),
            ("LayerNorm", norm), ("token table as head", weigh), ("next token", plain),
        ],
        height,
    )  # fmt: skip
    tower(
        474, 140, 24, "T5, encoder",
        [
            ("Unigram", plain), ("token", weigh),
            ("(", ""), ("RMSNorm", norm), ("self-attention", meet), ("+ input", plain),
            ("RMSNorm", norm), ("feed-forward, ReLU", weigh), ("+ input", plain), (")", ""),
            ("RMSNorm", norm),
        ],
        height,
    )  # fmt: skip
    tower(
        638, 140, 24, "T5, decoder",
        [
            ("the answer so far", plain), ("token", weigh),
            ("(", ""), ("RMSNorm", norm), ("self-attention, back", meet), ("+ input", plain),
            ("RMSNorm", norm), ("cross-attention", meet), ("+ input", plain),
            ("RMSNorm", norm), ("feed-forward, ReLU", weigh), ("+ input", plain), (")", ""),
            ("RMSNorm", norm), ("× 1/√width", plain), ("token table as head", weigh), ("next token", plain),
        ],
        height,
    )  # fmt: skip
    d.line("M474 388V408H559V290H566", "warm")
    return d.svg()


def gpt2_architecture(copy: LocalCopy) -> str:
    """Part 2: the whole model, top to bottom, with the shapes of a prompt."""
    c = anatomy.describe(copy).config
    n = len(copy.tokenizer().encode(GPT2_PROMPT).ids)
    d = Drawing(
        720,
        660,
        f"GPT-2 from the text to a score for every possible next token, with the shapes for {n} tokens.",
    )
    middle, w = 290, 300

    def stage(y: float, words: str, after: str, kind: str = "accent") -> None:
        d.box(middle - w / 2, y, w, 40, kind)
        d.text(middle, y + 25, words, bold=True)
        d.line(f"M{middle} {y + 40}V{y + 70}")
        d.text(middle + 12, y + 60, after, at="start", size=13, mono=True, kind="muted")

    vectors = shape(1, n, c.n_embd)
    d.text(middle, 20, f"“{GPT2_PROMPT}”")
    d.line(f"M{middle} 28V48")
    stage(50, "byte-level BPE", f"{shape(1, n)} token ids", "surface")
    stage(122, "wte + wpe", vectors)
    d.text(middle + w / 2 + 24, 138, "which token it is,", at="start", size=13)
    d.text(middle + w / 2 + 24, 156, "and where it stands", at="start", size=13)
    for shift in (10, 5, 0):
        d.box(middle - w / 2 + shift, 204 - shift, w, 214, "warm")
    d.text(middle, 226, f"block 0 … {c.n_layer - 1}", bold=True)
    for y, words in (
        (244, "LayerNorm"),
        (284, f"causal self-attention, {c.n_head} heads of {c.n_embd // c.n_head}"),
        (336, "LayerNorm"),
        (376, f"feed-forward, {c.n_embd} → {c.wide} → {c.n_embd}"),
    ):
        d.box(middle - 125, y, 250, 30)
        d.text(middle, y + 20, words, size=13)
    for y in (234, 274, 314, 366):
        d.line(f"M{middle} {y}V{y + (20 if y == 314 else 8)}")
    for before, after in ((237, 323), (328, 411)):
        d.line(f"M{middle} {before}H{middle + 178}V{after}H{middle + 4}", "good", dashed=True)
        y = (before + after) / 2 + 5
        d.text(middle + w / 2 + 36, y, "+ its input, untouched", at="start", size=13, kind="good")
    d.line(f"M{middle} 406V448")
    d.text(middle + 12, 438, vectors, at="start", size=13, mono=True, kind="muted")
    stage(450, "ln_f: LayerNorm, a last time", vectors)
    stage(522, "lm_head: times wte, turned over", f"{shape(1, n, c.vocab_size)} scores")
    d.text(middle, 612, "for each token: how well each token", bold=True)
    d.text(middle, 631, "of the vocabulary would come next", bold=True)
    d.line(f"M{middle - w / 2} 142H84V542H{middle - w / 2 - 2}", "accent", dashed=True)
    d.text(76, 337, "the same", size=13, kind="accent", at="end")
    d.text(76, 355, "table", size=13, kind="accent", at="end")
    return d.svg()


def gpt2_block(copy: LocalCopy) -> str:
    """Part 3: one block, its checkpoints with their shapes, along the residual stream."""
    model = anatomy.describe(copy)
    c = model.config
    n = len(copy.tokenizer().encode(GPT2_PROMPT).ids)
    sizes = {
        "batch": 1,
        "token": n,
        "query": n,
        "key": n,
        "width": c.n_embd,
        "3 × width": 3 * c.n_embd,
        "wide": c.wide,
        "head": c.n_head,
        "head width": c.n_embd // c.n_head,
    }

    def of(name: str) -> str:
        found = next(p for p in model.checkpoints if p.name == f"h.0.{name}")
        return shape(*(sizes[word] for word in found.shape.strip("[]").split(", ")))

    d = Drawing(720, 966, f"One block of GPT-2, its checkpoints with their shapes for {n} tokens.")
    stream = 56

    def box(x: float, y: float, words: str, below: str, kind: str = "surface", w: float = 176) -> None:
        d.box(x - w / 2, y, w, 50, kind)
        d.text(x, y + 21, words, bold=True)
        d.text(x, y + 40, below, size=13, mono=True, kind="muted")

    def step(x: float, y: float, name: str, words: str, kind: str = "surface", w: float = 176) -> None:
        box(x, y, words, of(name), kind, w)

    def plus(y: float, name: str) -> None:
        d.box(stream - 14, y - 14, 28, 28, "good")
        d.text(stream, y + 6, "+", size=18, bold=True, kind="good")
        d.text(stream + 24, y - 10, name, at="start", size=13, mono=True, kind="good")

    d.text(20, 20, f"input of the block  {shape(1, n, c.n_embd)}", at="start", bold=True)
    d.line(f"M{stream} 30V626", "good")
    d.line(f"M{stream} 656V880", "good")
    d.line(f"M{stream} 910V944", "good")
    d.line(f"M{stream} 61H190", "good")
    step(280, 36, "ln_1", "ln_1")
    d.line("M368 61H402")
    step(510, 36, "attn.c_attn", "c_attn", "accent", w=212)
    d.text(510, 101, "cut in three, then into heads", size=13)
    heads = shape(1, c.n_head, n, c.n_embd // c.n_head)
    d.line("M470 106V112H210V134")
    d.line("M510 106V122H420V134")
    d.line("M550 106V112H630V134")
    for x, part in ((210, "query"), (420, "key"), (630, "value")):
        box(x, 136, part, heads, w=168)
    d.line("M210 186V202H306V214")
    d.line("M420 186V202H324V214")
    step(315, 216, "attn.product", "product: query · key", w=250)
    d.line("M315 266V282")
    step(315, 284, "attn.scaled", f"scaled: × 1/√{sizes['head width']}", w=250)
    d.line("M315 334V350")
    step(315, 352, "attn.scores", "scores: + causal mask", w=250)
    d.line("M315 402V418")
    step(315, 420, "attn.probs", "probs: softmax", "warm", w=250)
    d.line("M315 470V486H440V498")
    d.line("M630 186V486H460V498")
    step(450, 500, "attn.head_context", "head_context: probs · value", w=262)
    d.line("M450 550V566")
    step(450, 568, "attn.context", "context: heads merged", w=262)
    d.line("M450 618V643H302")
    step(220, 618, "attn.c_proj", "c_proj", "accent", w=160)
    d.line("M140 643H72")
    plus(641, "")
    d.text(stream + 20, 680, "attn.residual", at="start", size=13, mono=True, kind="good")
    d.line(f"M{stream} 725H108", "good")
    step(192, 700, "ln_2", "ln_2", w=164)
    d.line("M274 725H306")
    step(396, 700, "mlp.c_fc", "c_fc", "accent")
    d.line("M484 725H516")
    step(606, 700, "mlp.act", "GELU, by tanh")
    d.line("M606 750V805H486")
    step(396, 780, "mlp.c_proj", "c_proj", "accent")
    d.line("M396 830V895H72")
    plus(895, "")
    d.text(stream + 20, 934, "mlp.residual", at="start", size=13, mono=True, kind="good")
    d.text(stream, 960, "to the next block", at="start", size=13)
    return d.svg()


def gpt2_attention(copy: LocalCopy) -> str:
    """Part 3: where each token looks, and where it cannot."""
    from llm_rebuild.verify import capture

    truth = capture(copy, GPT2_PROMPT)
    tokens = truth.inputs.tokens[0]
    side, top, lefts = 30.0, 84.0, (96.0, 444.0)
    n = len(tokens)
    d = Drawing(
        720,
        int(top + n * side + 44),
        "Where each token looks, in two heads of block 0. No token looks at a later one.",
    )
    for left, (block, head) in zip(lefts, GPT2_HEADS, strict=True):
        probs = truth[f"h.{block}.attn.probs"].tensor
        for i, token in enumerate(tokens):
            d.text(left - 8, top + i * side + 20, token, at="end", size=13, mono=True)
            x, y = left + i * side + 19, top - 8
            d.tags.append(
                f'<text x="{x:g}" y="{y:g}" font-size="13" font-family="var(--md-code-font-family)" '
                f'transform="rotate(-55 {x:g} {y:g})" fill="var(--fig-ink)">{escape(token)}</text>'
            )
            for j in range(n):
                x, y = left + j * side, top + i * side
                if j <= i:
                    d.cell(x, y, side - 2, float(probs[0, head, i, j]))
                    d.tags.append(
                        f'<rect x="{x:g}" y="{y:g}" width="{side - 2:g}" height="{side - 2:g}" '
                        'fill="none" stroke="var(--fig-line)"/>'
                    )
                else:
                    x, y = x + side / 2 - 1, y + side / 2 - 1
                    d.tags.append(f'<circle cx="{x:g}" cy="{y:g}" r="1.5" fill="var(--fig-line)"/>')
        d.text(left + n * side / 2, top + n * side + 28, f"block {block}, head {head}", bold=True)
    return d.svg()


def gpt2_merges(copy: LocalCopy) -> str:
    """Part 2: byte pair encoding of one word, merge by merge."""
    from llm_rebuild.tokenizers.byte_bpe import ByteBPE

    tokenizer = ByteBPE.from_folder(copy.folder)
    steps = list(tokenizer.merge_steps(GPT2_WORD))
    unit, left, pitch = 62.0, 20.0, 54.0
    d = Drawing(
        720,
        int(len(steps) * pitch + 10),
        f"The merges of {GPT2_WORD.strip()} with the space before it, from {len(steps[0])} symbols to one.",
    )
    before: list[str] = []
    for row, symbols in enumerate(steps):
        y, at = 10 + row * pitch, 0
        for i, symbol in enumerate(symbols):
            new = row > 0 and i < len(symbols) and symbols[:i] == before[:i] and symbol != before[i]
            x = left + at * unit
            d.box(x, y, unit * len(symbol) - 8, 36, "warm" if new else "surface")
            d.text(x + (unit * len(symbol) - 8) / 2, y + 24, symbol, size=16, mono=True, bold=new)
            if new:
                pair = before[i], before[i + 1]
                words = f"{pair[0]} + {pair[1]}"
                d.text(420, y + 24, words, at="start", mono=True)
                d.text(690, y + 24, f"rank {tokenizer.ranks[pair]}", at="end", mono=True)
            at += len(symbol)
        if row == 0:
            d.text(420, y + 24, "the symbols of the bytes", at="start", size=13, kind="muted")
        before = symbols
    return d.svg()


def gpt2_cache(copy: LocalCopy) -> str:
    """Generation: what is computed in each step, without a cache and with one."""
    from llm_rebuild.using.generate import Settings, generate

    tokenizer, steps = copy.tokenizer(), 4
    ids = generate(copy, GPT2_START, Settings(steps)).rows[0]
    tokens = [tokenizer.decode([i]) for i in ids]
    prompt, side, top, lefts = len(ids) - steps, 30.0, 96.0, (20.0, 384.0)
    d = Drawing(
        720,
        int(top + steps * side + 78),
        f"Each step's tokens: without a cache all of them are computed again, with one only the new one. "
        f"The prompt has {prompt} tokens.",
    )
    for left, title, cached in zip(lefts, ("everything again", "with a cache"), (False, True), strict=True):
        for i, token in enumerate(tokens[:-1]):
            x, y = left + i * side + 19, top - 8
            d.tags.append(
                f'<text x="{x:g}" y="{y:g}" font-size="13" font-family="var(--md-code-font-family)" '
                f'transform="rotate(-55 {x:g} {y:g})" fill="var(--fig-ink)">{escape(token.strip())}</text>'
            )
        computed = 0
        for step in range(steps):
            y = top + step * side
            for i in range(prompt + step):
                new = not cached or step == 0 or i == prompt + step - 1
                computed += new
                d.box(left + i * side, y, side - 3, side - 3, "warm" if new else "surface")
            x = left + (prompt + steps - 1) * side + 8
            d.text(x, y + 19, f"→ {tokens[prompt + step].strip()}", at="start", size=13, mono=True)
        y = top + steps * side + 26
        d.text(left, y, title, bold=True, at="start")
        d.text(left, y + 20, f"{computed} tokens through the model", size=13, at="start")
    y = top + steps * side + 64
    d.box(20, y - 11, 14, 14, "warm")
    d.text(42, y + 1, "computed", at="start", size=13)
    d.box(384, y - 11, 14, 14)
    d.text(406, y + 1, "keys and values at hand", at="start", size=13)
    return d.svg()


def leaks(copy: LocalCopy) -> str:
    """Part 4: what may go into a rebuild, and what may not."""
    d = Drawing(
        720,
        330,
        "Two models side by side. Only token ids and the weight file go into the rebuild; official "
        "weights in memory and official interim tensors must not.",
    )
    d.text(150, 26, "official model", bold=True)
    d.text(570, 26, "your rebuild", bold=True, kind="warm")
    for i, words in enumerate(("embeddings", "blocks", "answer")):
        y = 50 + i * 62
        d.box(60, y, 180, 42)
        d.text(150, y + 26, words)
        d.box(480, y, 180, 42, "warm")
        d.text(570, y + 26, words)
        if i < 2:
            d.line(f"M150 {y + 42}V{y + 60}")
            d.line(f"M570 {y + 42}V{y + 60}")
        d.line(f"M250 {y + 21}H308", "good", arrow=False)
        d.line(f"M412 {y + 21}H470", "good", arrow=False)
        d.text(360, y + 26, "compare", size=13, kind="good")
    d.line("M242 83L298 93", "bad", dashed=True, arrow=False)
    d.text(360, 108, "✗ interim tensors", size=13, kind="bad")
    d.line("M420 114L478 124", "bad", dashed=True)
    d.box(60, 262, 270, 48, "surface")
    d.text(195, 282, "the official model's memory", size=14)
    d.text(195, 300, "(live weights)", size=13, kind="muted")
    d.box(390, 262, 270, 48, "accent")
    d.text(525, 282, "model.safetensors on your disk", size=14)
    d.text(525, 300, "+ token ids, mask, config.json", size=13, kind="muted")
    d.line("M120 262V218")
    d.line("M570 262V218", "good")
    d.text(580, 244, "✓", kind="good", at="start", bold=True)
    d.line("M290 262L338 251", "bad", dashed=True, arrow=False)
    d.text(389, 244, "✗ live weights", size=13, kind="bad")
    d.line("M438 229L486 218", "bad", dashed=True)
    return d.svg()


def gpt2_check(copy: LocalCopy) -> str:
    """Part 4: from a learner's file to the name of the mistake."""
    d = Drawing(
        720,
        420,
        "How a check runs. Your file runs in a process of its own and leaves the tensors that it taps. They "
        "are compared with a kept capture of the official model. At the first divergence hypotheses are "
        "computed, and the one that gives your tensor names the cause.",
    )
    d.text(20, 24, "a process of its own", at="start", size=13, kind="muted")
    d.box(10, 34, 424, 96, dashed=True)
    d.box(24, 52, 118, 60, "warm")
    d.text(83, 78, "your file", bold=True)
    d.text(83, 97, "my_gpt2.py", size=13, mono=True)
    d.line("M142 82H176")
    d.box(178, 52, 108, 60, "warm")
    d.text(232, 78, "forward", bold=True)
    d.text(232, 97, "each step alone", size=13, kind="muted")
    d.line("M286 82H320")
    d.box(322, 52, 100, 60, "warm")
    d.text(372, 78, "tensors", bold=True)
    d.text(372, 97, "that you tap", size=13, kind="muted")
    d.line("M422 82H494")
    d.box(178, 166, 108, 60)
    d.text(232, 192, "official", bold=True)
    d.text(232, 211, "model", bold=True)
    d.line("M286 196H320")
    d.box(322, 166, 100, 60)
    d.text(372, 192, "capture", bold=True)
    d.text(372, 211, "kept on disk", size=13, kind="muted")
    d.line("M422 196H560V146", "good")
    d.text(24, 156, "weight file, config,", at="start", size=13, kind="muted")
    d.text(24, 174, "token ids, mask", at="start", size=13, kind="muted")
    d.line("M83 142V116")
    d.box(496, 52, 214, 92, "good")
    d.text(603, 80, "compare", bold=True)
    d.text(603, 101, "name by name, in the", size=13)
    d.text(603, 119, "order of computation", size=13)
    d.line("M640 144V256", "bad")
    d.text(632, 222, "first divergence", size=13, at="end", kind="bad")
    d.box(496, 258, 214, 60)
    d.line("M496 258h214v60h-214z", "bad", arrow=False)
    d.text(603, 283, "h.0.attn.context", bold=True, mono=True, size=13)
    d.text(603, 303, "its inputs are still identical", size=13)
    d.line("M494 288H440")
    d.text(216, 258, "what would this step give, if …", at="start", size=13, kind="muted")
    guesses = (
        ("the shares were not masked?", "muted", "✗"),
        ("the values of another block were taken?", "muted", "✗"),
        ("the heads were merged without moving the tokens?", "good", "✓ to the bit"),
    )
    for i, (words, kind, mark) in enumerate(guesses):
        y = 268 + i * 32
        d.box(10, y, 428, 26, "good" if kind == "good" else "surface")
        d.text(20, y + 18, words, at="start", size=13)
        d.text(430, y + 18, mark, at="end", size=13, kind=kind, bold=kind == "good")
    d.line("M224 358V376", "good")
    d.box(94, 378, 260, 34, "accent")
    d.text(224, 400, "the cause, and where to read about it", size=13, bold=True)
    return d.svg()


def decision(copy: LocalCopy) -> str:
    """Part 4: from "it differs" to a line of code."""
    questions = (
        ("Same ids on both sides?", "compare tokens"),
        ("Same files, type, attention, batch?", "make the runs alike"),
        ("Which checkpoint differs first?", ""),
        ("Another shape?", "heads, [out, in], cache"),
        ("Right alone?", "look at forward: what is it fed?"),
        ("Has the mistake a name?", "llm-rebuild explain"),
        ("Is it another official tensor?", "llm-rebuild find"),
        ("Another order of the same sum?", "rounding: spell it as they do"),
    )
    leads = ("no", "no", "", "yes", "yes", "yes", "yes", "yes")  # the answer that leads to the right
    left, width, height, step = 40, 280, 38, 60
    d = Drawing(
        720, 40 + step * (len(questions) + 1), "A chart of questions, from a difference to its cause."
    )
    for number, ((question, remedy), lead) in enumerate(zip(questions, leads, strict=True)):
        y = 20.0 + number * step
        d.box(left, y, width, height, "surface" if remedy else "accent")
        d.text(left + width / 2, y + 24, question)
        d.line(f"M{left + width / 2} {y + height}V{y + step - 3}")
        if remedy:
            d.line(f"M{left + width} {y + height / 2}H{left + width + 77}")
            d.text(left + width + 38, y + height / 2 - 6, lead, size=13, kind="muted")
            d.box(left + width + 80, y, 270, height, "good")
            d.text(left + width + 215, y + 24, remedy)
    y = 20.0 + len(questions) * step
    d.box(left, y, width, height, "warm")
    d.text(left + width / 2, y + 24, "bridge it, go on, come back")
    return d.svg()


def concepts(copy: LocalCopy) -> str:
    """Start: what the course speaks of, and what leads to what."""
    d = Drawing(
        720, 560, "The words of the course: how a text becomes an answer, and how a rebuild is proved."
    )
    rows = (
        ("text", "", "surface"),
        ("tokens, by their ids", "tokenizer", "surface"),
        ("embeddings", "a row for each token, and its place", "accent"),
        ("attention", "query · key, scale, mask, softmax, · value", "warm"),
        ("feed-forward", "wider, activation, narrower", "warm"),
        ("vectors, one for each token", "after the last block", "surface"),
    )
    for number, (word, below, kind) in enumerate(rows):
        y = 16 + 76 * number
        d.box(120, y, 300, 48, kind)
        d.text(270, y + (20 if below else 29), word, bold=True)
        d.text(270, y + 38, below, size=12, kind="muted")
        if number + 1 < len(rows):
            d.line(f"M270 {y + 48}V{y + 73}")
    d.box(104, 234, 332, 140, "surface", dashed=True)
    d.tags.insert(0, d.tags.pop())
    for number, words in enumerate(("a block,", "repeated;", "each half", "with a norm,", "a residual")):
        d.text(98, 266 + 20 * number, words, size=12, at="end", kind="muted")
    for x, word, below in (
        (20, "pooling", "a sentence"),
        (160, "head", "the next token"),
        (300, "decoder", "an answer"),
    ):
        d.line(f"M270 444V462H{x + 60}V480")
        d.box(x, 482, 120, 48, "good")
        d.text(x + 60, 502, word, bold=True)
        d.text(x + 60, 520, below, size=12, kind="muted")
    for x, model in ((80, "MiniLM"), (220, "GPT-2"), (360, "T5")):
        d.text(x, 549, model, size=13)
    sides = (
        (16, "weights and config", "a local copy, at a revision", "accent"),
        (130, "official run", "transformers, with hooks", "surface"),
        (244, "capture", "each checkpoint, by name", "surface"),
        (358, "your rebuild", "plain PyTorch, with taps", "warm"),
        (472, "verdict", "bit-identical, ulp, … wrong", "good"),
    )
    for y, word, below, kind in sides:
        d.box(500, y, 204, 52, kind)
        d.text(602, y + 22, word, bold=True)
        d.text(602, y + 41, below, size=12, kind="muted")
    d.line("M602 68V127")
    d.line("M602 182V241")
    d.line("M500 270H468V498H497")
    d.line("M602 410V469")
    d.line("M704 42H713V384H707")
    d.text(594, 440, "compare", at="end", size=13, kind="muted")
    return d.svg()


def mistakes_kinds(copy: LocalCopy) -> str:
    """The catalogue: how many of its mistakes can be made on the live pages, by kind and model."""
    listed = json.loads((FIGURES.parent / "live" / "data" / "mistakes.json").read_text(encoding="utf-8"))
    kinds = dict.fromkeys(cause["kind"] for cause in listed["causes"].values())
    models = {"minilm": "MiniLM", "gpt2": "GPT-2", "t5-small": "T5"}
    d = Drawing(
        720, 50 + 30 * len(kinds), f"{len(listed['mistakes'])} mistakes by model and by kind, as bars."
    )
    for column, title in enumerate(models.values()):
        d.text(280 + 150 * column, 24, title, at="start", bold=True)
    for row, kind in enumerate(kinds):
        y = 40 + 30 * row
        d.text(260, y + 17, kind, at="end", size=13)
        for column, model in enumerate(models):
            count = sum(
                one["model"] == model and listed["causes"][one["cause"]]["kind"] == kind
                for one in listed["mistakes"]
            )
            if count:
                d.cell(280 + 150 * column, y, 8 * count, 0.5, height=22)
            d.text(286 + 150 * column + 8 * count, y + 17, str(count), at="start", size=13, kind="muted")
    return d.svg()


DRAWINGS: dict[str, Callable[[LocalCopy], str]] = {
    "minilm-numbers.svg": minilm_numbers,
    "minilm-architecture.svg": minilm_architecture,
    "minilm-block.svg": minilm_block,
    "minilm-attention.svg": minilm_attention,
    "minilm-drift.svg": minilm_drift,
    "mistakes-kinds.svg": mistakes_kinds,
    "leaks.svg": leaks,
    "decision.svg": decision,
    "concepts.svg": concepts,
    "gpt2-architecture.svg": gpt2_architecture,
    "gpt2-merges.svg": gpt2_merges,
    "gpt2-block.svg": gpt2_block,
    "gpt2-attention.svg": gpt2_attention,
    "gpt2-cache.svg": gpt2_cache,
    "gpt2-check.svg": gpt2_check,
    "t5-architecture.svg": t5_architecture,
    "t5-buckets.svg": t5_buckets,
    "t5-block.svg": t5_block,
    "t5-cross-attention.svg": t5_cross_attention,
    "compared.svg": compared,
}


@cache
def _copy(prefix: str) -> LocalCopy:
    """The model that a figure is drawn from, by what the figure's name begins with. GPT-2's and T5's always
    from the miniatures, so that they are the same on every machine."""
    model = {"gpt2": "gpt2", "t5": "t5-small"}.get(prefix)
    if model is None:
        return local_copy.get("minilm", strict=True)
    return LocalCopy(model, local_copy.MINIATURES / model, "miniature")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed figures, write nothing"
    )
    check = parser.parse_args().check
    stale = []
    for name, draw in DRAWINGS.items():
        try:
            file, svg = FIGURES / name, draw(_copy(name.partition("-")[0]))
        except InputError as reason:
            print(f"{name}: {reason}", file=sys.stderr)
            return 2
        if check and (not file.is_file() or file.read_text(encoding="utf-8") != svg):
            stale.append(name)
        elif not check:
            FIGURES.mkdir(exist_ok=True)
            file.write_text(svg, encoding="utf-8")
    if stale:
        print(
            f"not what would be drawn now: {', '.join(stale)}; run `python -m tools.figures`", file=sys.stderr
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
