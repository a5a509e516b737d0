"""Pictures of the course as a whole, and of more than one model."""

from __future__ import annotations

import json
from pathlib import Path

from llm_rebuild.models import RECORDS
from llm_rebuild.using.generate import Settings, generate
from llm_rebuild.verify import capture
from llm_rebuild.verify.capture import Capture
from tools.figures.drawing import Drawing
from tools.figures.gpt2 import GPT2_PROMPT
from tools.figures.kinds import above, beside, heat
from tools.figures.minilm import SENTENCE
from tools.figures.runs import copy_of, run_of
from tools.figures.t5 import T5_SENTENCE

DOCS = Path(__file__).resolve().parents[2] / "docs"


def three_kinds() -> str:
    """Start: who looks at whom in an encoder, a decoder, and both, read from runs of the three models."""
    t5 = copy_of("t5-small")
    (row,) = generate(t5, T5_SENTENCE, Settings(20)).rows
    run = capture(t5, T5_SENTENCE, decoder_ids=[list(row)[:-1]])
    read, written = run.inputs.tokens[0], [t5.tokenizer().tokens[i] for i in list(row)[:-1]]
    minilm, gpt2 = run_of(copy_of("minilm"), SENTENCE), run_of(copy_of("gpt2"), GPT2_PROMPT)

    def seen(run: Capture, name: str) -> list[list[float]]:
        return (run[name].tensor[0].amax(dim=0) > 0).float().mul(0.7).tolist()

    block, whole = "decoder.block.0.layer", minilm.inputs.tokens[0]
    sentence = gpt2.inputs.tokens[0]
    panels = (
        (110, 92, whole, whole, "encoder", seen(minilm, "encoder.layer.0.attention.self.probs"), "accent"),
        (450, 92, sentence, sentence, "decoder", seen(gpt2, "h.0.attn.probs"), "accent"),
        (
            110,
            374,
            written,
            written,
            "both: what it writes",
            seen(run, f"{block}.0.SelfAttention.probs"),
            "accent",
        ),
        (
            450,
            374,
            written,
            read,
            "… at what it reads",
            seen(run, f"{block}.1.EncDecAttention.probs"),
            "good",
        ),
    )
    d = Drawing(
        720, 460, "Which tokens each token may look at: in an encoder, in a decoder, and in both together."
    )
    for x, y, rows, columns, title, numbers, kind in panels:
        d.text(x - 100, y - 74, title, at="start", bold=True)
        beside(d, x - 10, y, (token.lstrip("▁Ġ") or "▁" for token in rows), 20)
        above(d, x, y - 8, (token.lstrip("▁Ġ") or "▁" for token in columns), 20)
        heat(d, x, y, [[number or None for number in line] for line in numbers], 20, limit=1.0, kind=kind)
    return d.svg()


def concepts() -> str:
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


def compared() -> str:
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


def leaks() -> str:
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


def decision() -> str:
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


def mistakes_kinds() -> str:
    """The catalogue: how many of its mistakes can be made on the live pages, by kind and model."""
    listed = json.loads((DOCS / "live" / "data" / "mistakes.json").read_text(encoding="utf-8"))
    kinds = dict.fromkeys(cause["kind"] for cause in listed["causes"].values())
    models = {record.published: record.title for record in RECORDS}
    d = Drawing(
        720, 50 + 30 * len(kinds), f"{len(listed['mistakes'])} mistakes by model and by kind, as bars."
    )
    for column, title in enumerate(models.values()):
        d.text(270 + 110 * column, 24, title, at="start", bold=True)
    for row, kind in enumerate(kinds):
        y = 40 + 30 * row
        d.text(250, y + 17, kind, at="end", size=13)
        for column, model in enumerate(models):
            count = sum(
                one["model"] == model and listed["causes"][one["cause"]]["kind"] == kind
                for one in listed["mistakes"]
            )
            if count:
                d.cell(270 + 110 * column, y, 6 * count, 0.5, height=22)
            d.text(276 + 110 * column + 6 * count, y + 17, str(count), at="start", size=13, kind="muted")
    return d.svg()


FIGURES = (
    three_kinds,
    concepts,
    compared,
    leaks,
    decision,
    mistakes_kinds,
)
OF = {None: FIGURES}
