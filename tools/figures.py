"""The course's figures, drawn from the anatomy and from a run, so that their numbers are never typed.

    python -m tools.figures            # writes docs/figures/*.svg
    python -m tools.figures --check    # exit 1 if one of them is not what would be drawn now

Inline SVG with the site's CSS variables, so a figure follows the light and the dark page. One tag a line
and no blank line, because Markdown ends an HTML block at one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path

from llm_rebuild import anatomy, local_copy
from llm_rebuild.local_copy import LocalCopy

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
SENTENCE = "Open-source LLMs rock."


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

    def cell(self, x: float, y: float, side: float, share: float) -> None:
        """One square of a heat map: `share` from 0 to 1, in steps of a twentieth, as ink on paper."""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" '
            f'fill="var(--fig-accent)" fill-opacity="{round(share * 20) / 20:g}"/>'
        )

    def _key(self) -> str:
        return f"{self.size[0]}-{self.size[1]}"  # an id has to be unique on a page with several figures

    def svg(self) -> str:
        width, height = self.size
        head = [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.title)}">',
            "<defs>",
        ]
        for kind in sorted(
            {k for k in ("muted", "accent", "warm", "good", "bad") if f"arrow-{k}-" in str(self.tags)}
        ):
            head.append(
                f'<marker id="arrow-{kind}-{self._key()}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
                f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--fig-{kind})"/></marker>'
            )
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
    step(200, 616, "attention.output.dense", "output.dense", "accent", w=220)
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
    d.line("M240 83C300 112 400 112 478 124", "bad", dashed=True)
    d.text(360, 104, "✗ interim tensors", size=13, kind="bad")
    d.box(60, 262, 270, 48, "surface")
    d.text(195, 282, "the official model's memory", size=14)
    d.text(195, 300, "(live weights)", size=13, kind="muted")
    d.box(390, 262, 270, 48, "accent")
    d.text(525, 282, "model.safetensors on your disk", size=14)
    d.text(525, 300, "+ token ids, mask, config.json", size=13, kind="muted")
    d.line("M120 262V218")
    d.line("M570 262V218", "good")
    d.text(580, 244, "✓", kind="good", at="start", bold=True)
    d.line("M290 262C330 226 420 236 488 218", "bad", dashed=True)
    d.text(388, 250, "✗ live weights", size=13, kind="bad", at="end")
    return d.svg()


DRAWINGS: dict[str, Callable[[LocalCopy], str]] = {
    "minilm-numbers.svg": minilm_numbers,
    "minilm-architecture.svg": minilm_architecture,
    "minilm-block.svg": minilm_block,
    "minilm-attention.svg": minilm_attention,
    "leaks.svg": leaks,
}


@cache
def _copy(figure: str) -> LocalCopy:
    """The model that a figure is drawn from, by the figure's name. GPT-2's and T5's always from the
    miniatures, so that they are the same on every machine."""
    model = {"gpt2": "gpt2", "t5": "t5-small"}.get(figure.partition("-")[0])
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
        file, svg = FIGURES / name, draw(_copy(name))
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
