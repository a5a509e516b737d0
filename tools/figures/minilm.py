"""The pictures of MiniLM's chapters."""

from __future__ import annotations

from math import log10
from pathlib import Path

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify.official import Official
from tools.figures.drawing import Drawing, shape
from tools.figures.runs import run_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
SENTENCE = "Open-source LLMs rock."


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
        step(x, 56, f"attention.self.{part}", part, part)
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
    truth = run_of(copy, SENTENCE)
    tokens = truth.inputs.tokens[0]
    probs = truth["encoder.layer.0.attention.self.probs"].tensor
    side, top, lefts = 26.0, 92.0, (96.0, 440.0)
    n = len(tokens)
    d = Drawing(720, int(top + n * side + 44), "Where each token looks, in head 2 and head 3 of block 0.")
    for left, head in zip(lefts, (2, 3), strict=True):
        for i, token in enumerate(tokens):
            d.text(left - 8, top + i * side + 19, token, at="end", size=13, mono=True)
            d.slanted(left + i * side + 17, top - 8, token)
            for j in range(n):
                d.cell(left + j * side, top + i * side, side - 2, float(probs[0, head, i, j]))
        d.text(left + n * side / 2, top + n * side + 28, f"head {head}", bold=True)
    return d.svg()


def minilm_drift(copy: LocalCopy) -> str:
    """Part 3: how far three changed models are off after each block, as the page's own table says."""
    lines = (DOCS / "part-3" / "floats.md").read_text(encoding="utf-8").splitlines()
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


def minilm_hooks(copy: LocalCopy) -> str:
    """Hooks: the checkpoints of block 0 that a module returns, and those that are made in between."""
    official = Official(copy.folder, "eager").model
    modules = {name for name, _ in official.named_modules()}
    block = "encoder.layer.0."
    names = [name for name in run_of(copy, SENTENCE) if name.startswith(block)]
    rows = (len(names) + 1) // 2
    d = Drawing(
        720, 60 + 34 * rows, f"The {len(names)} checkpoints of a block, and which of them a hook sees."
    )
    for number, name in enumerate(names):
        x, y = 20 + 350 * (number // rows), 10 + 34 * (number % rows)
        kind = "accent" if name in modules else "surface"
        d.box(x, y, 330, 27, kind, dashed=name not in modules)
        d.text(x + 12, y + 18, name.removeprefix(block), at="start", size=13, mono=True)
    y = 10 + 34 * rows + 18
    d.box(20, y - 4, 16, 16, "accent")
    d.text(44, y + 9, "a module returns it: a hook is called", at="start", size=13)
    d.box(370, y - 4, 16, 16, dashed=True)
    d.text(394, y + 9, "made between modules: no hook", at="start", size=13)
    return d.svg()


FIGURES = (
    minilm_hooks,
    minilm_numbers,
    minilm_architecture,
    minilm_block,
    minilm_attention,
    minilm_drift,
)
OF = {"minilm": FIGURES}
