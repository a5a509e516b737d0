"""Pictures of what GPT-2 computes and of what is drawn from its scores, of the miniature."""

from __future__ import annotations

import unicodedata

from torch import Tensor
from torch.nn import functional as F

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.tokenizers.byte_bpe import to_symbols
from llm_rebuild.using.decoding import warm
from tools.figures.drawing import Drawing, shape
from tools.figures.gpt2 import GPT2_HEADS, GPT2_PROMPT, GPT2_START
from tools.figures.kinds import above, band, bars, beside, heat
from tools.figures.runs import run_of, written_on

CHAPTER = "part-3/generation.md"
MOST = 10  # tokens of a distribution that are drawn


def scores_after(copy: LocalCopy, text: str) -> Tensor:
    """The scores of the token after a text, [vocabulary]."""
    return run_of(copy, text)["lm_head"].tensor[0, -1]


def word_of(copy: LocalCopy, token_id: int) -> str:
    return copy.tokenizer().decode([token_id]).strip()


def gpt2_bytes(copy: LocalCopy) -> str:
    """Part 2: a text as characters, as bytes, and as the symbols that stand for the bytes."""
    text = written_on("part-2/gpt2.md", "text")
    data, symbols, side = text.encode(), to_symbols(text), 58
    d = Drawing(
        720, 196, f"The text {text} as characters, as {len(data)} bytes, and as {len(symbols)} symbols."
    )
    for y, words in ((34, "characters"), (94, "bytes"), (154, "symbols")):
        d.text(104, y, words, at="end", size=13, bold=True)
    at = 0
    for i, character in enumerate(text):
        width = len(character.encode())
        kind = ("accent", "surface")[i % 2]
        shown = f"{character} {unicodedata.name(character).lower()}" if character > "\uffff" else character
        d.box(118 + side * at, 8, side * width - 6, 40, kind)
        d.text(118 + side * (at + width / 2) - 3, 34, "space" if character == " " else shown, size=16)
        for byte in range(at, at + width):
            x = 118 + side * byte
            d.box(x, 68, side - 6, 40, kind)
            d.text(x + side / 2 - 3, 94, str(data[byte]), mono=True)
            d.box(x, 128, side - 6, 40, kind)
            d.text(x + side / 2 - 3, 154, symbols[byte], size=16, mono=True)
            d.line(f"M{x + side / 2 - 3:g} 108v18", arrow=False)
            d.line(f"M{x + side / 2 - 3:g} 48v18", arrow=False)
        at += width
    return d.svg()


def gpt2_stream(copy: LocalCopy) -> str:
    """Part 2: one token's row of the residual stream, and what is written on it."""
    truth, c = run_of(copy, GPT2_PROMPT), anatomy.describe(copy).config
    halves = [f"h.{i}.{half}" for i in range(c.n_layer) for half in ("attn", "mlp")]
    token = truth.inputs.tokens[0][-1].lstrip("Ġ")
    added = [truth[f"{half}.c_proj"].tensor[0, -1].tolist() for half in halves]
    stream = [
        truth[name].tensor[0, -1].tolist() for name in ("embeddings", *(f"{h}.residual" for h in halves))
    ]
    height, top, side = 26, 44, 3
    d = Drawing(
        720,
        top + 50 * len(stream) - 12,
        f"The residual stream of “{token}”, step by step: {c.n_embd} numbers, and what each half adds.",
    )
    limit = sorted(abs(number) for row in stream for number in row)[-len(stream) * 3]
    d.text(
        430, 22, f"the stream of “{token}”, {c.n_embd} numbers", at="start", size=13, bold=True, kind="good"
    )
    d.text(102, 22, "what a half of a block adds", at="start", size=13, bold=True)
    for i, row in enumerate(stream):
        y = top + 50 * i
        heat(d, 430, y, [row], side, height=height, limit=limit, kind="good")
        if i == 0:
            d.text(418, y + 12, "token + position", at="end", size=13)
            continue
        heat(d, 102, y - 25, [added[i - 1]], side, height=height, limit=limit)
        d.text(92, y - 7, halves[i - 1], at="end", size=13, mono=True)
        d.line(f"M392 {y - 12}H412V{y + 12}H424", "muted")
        d.line(f"M574 {y - 22}v18", "good")
    return d.svg()


def gpt2_thirds(copy: LocalCopy) -> str:
    """Part 3: what c_attn gives, and the three pieces of it that one head gets."""
    truth = run_of(copy, GPT2_PROMPT)
    block, head = GPT2_HEADS[0]
    c = anatomy.describe(copy).config
    tokens, width = truth.inputs.tokens[0], c.n_embd // c.n_head
    made = truth[f"h.{block}.attn.c_attn"].tensor[0]
    n, kinds = len(tokens), ("query", "key", "value")
    d = Drawing(
        720,
        388,
        f"What c_attn gives, {shape(*made.shape)}, in three thirds, and of each the piece of head {head}.",
    )
    side, left = 2, 84
    d.text(left, 20, f"c_attn {shape(*made.shape)}", at="start", size=13, bold=True)
    beside(d, left - 10, 48, tokens, 16)
    for third, (kind, part) in enumerate(zip(kinds, made.chunk(3, dim=-1), strict=True)):
        x, limit = left + third * (side * c.n_embd + 12), float(part.abs().quantile(0.98))
        d.text(x + side * c.n_embd / 2, 38, kind, size=13, kind=kind, bold=True)
        heat(d, x, 48, part.tolist(), side, height=16, limit=limit, kind=kind)
        d.frame(x + side * width * head, 46, side * width, 16 * n + 4, "ink")
        low = 72 + 16 * n
        for i in range(c.n_head):
            d.text(
                x + side * width * (i + 0.5),
                low,
                str(i),
                size=13,
                kind="ink" if i == head else "muted",
                bold=i == head,
            )
        d.line(f"M{x + side * width * (head + 0.5):g} {low + 8}V{low + 36}", kind)
        piece = part[:, head * width : (head + 1) * width]
        heat(d, x, low + 64, piece.tolist(), 8, height=16, limit=limit, kind=kind)
        d.text(x + 4 * width, low + 56, f"{kind} of head {head} {shape(*piece.shape)}", size=13, bold=True)
    d.text(left - 10, 72 + 16 * n, "head", at="end", size=13, kind="muted")
    beside(d, left - 10, 136 + 16 * n, tokens, 16)
    return d.svg()


def gpt2_masking(copy: LocalCopy) -> str:
    """Part 3: the scores of one head, the mask, and the shares."""
    truth = run_of(copy, GPT2_PROMPT)
    block, head = GPT2_HEADS[0]
    tokens, side, top = truth.inputs.tokens[0], 19, 96
    n = len(tokens)
    scaled = truth[f"h.{block}.attn.scaled"].tensor[0, head]
    scores = truth[f"h.{block}.attn.scores"].tensor[0, head]
    probs = truth[f"h.{block}.attn.probs"].tensor[0, head]
    open_ = truth["mask"].tensor[0, 0] == 0
    limit = float(scaled.abs().max())

    def hidden(numbers: Tensor) -> list[list[float | None]]:
        return [[float(number) if seen else None for number, seen in zip(row, line, strict=True)]
                for row, line in zip(numbers, open_, strict=True)]  # fmt: skip

    d = Drawing(720, top + side * n + 44, f"Head {head} of block {block}: scaled, mask, scores, probs.")
    panels = (
        ("scaled", scaled.tolist(), limit, ""),
        ("mask", None, 1.0, "+"),
        ("scores", hidden(scores), limit, "="),
        ("probs", hidden(probs), 1.0, "→"),
    )
    beside(d, 62, top, tokens, side)
    for i, (name, numbers, most, sign) in enumerate(panels):
        x = 72 + 160 * i
        if sign:
            d.text(x - 18, top + side * n / 2 + 6, sign, size=18, kind="muted")
        above(d, x, top - 8, tokens, side)
        d.text(x + side * n / 2, top + side * n + 24, name, bold=True)
        if numbers is not None:
            heat(d, x, top, numbers, side, limit=most)
            continue
        d.frame(x - 3, top - 3, n * side + 4, n * side + 4)
        for row in range(n):
            for column in range(n):
                words = "0" if open_[row, column] else "−∞"
                d.text(
                    x + side * (column + 0.5),
                    top + side * row + 14,
                    words,
                    size=11,
                    kind="ink" if words == "0" else "muted",
                )
    d.text(72 + 160 * 3 + side * n / 2, top + side * n + 40, "softmax of each row", size=12, kind="muted")
    return d.svg()


def gpt2_reading(copy: LocalCopy) -> str:
    """Part 3: what the residual stream would say at each step, if the head were asked at once."""
    truth, weights = run_of(copy, GPT2_PROMPT), copy.weights()
    c = anatomy.describe(copy).config
    last = int(scores_after(copy, GPT2_PROMPT).argmax())
    steps = ["embeddings", *(f"h.{i}.{half}.residual" for i in range(c.n_layer) for half in ("attn", "mlp"))]
    d = Drawing(
        720,
        14 + 44 * len(steps),
        "The likeliest next tokens, read from the residual stream after each half of a block.",
    )
    for row, name in enumerate(steps):
        stream = truth[name].tensor[0, -1]
        normed = F.layer_norm(
            stream, stream.shape, weights["ln_f.weight"], weights["ln_f.bias"], c.layer_norm_epsilon
        )
        shares = (normed @ weights["wte.weight"].T).softmax(dim=-1)
        y = 8 + 44 * row
        d.text(172, y + 22, name, at="end", size=13, mono=True)
        best = shares.topk(4)
        parts = [
            (f"{word_of(copy, i) or '␣'} {share:.2f}", share, "good" if i == last else "surface")
            for share, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        band(d, 184, y, [*parts, ("", max(1 - sum(size for _, size, _ in parts), 0.001), "surface")], 526, 34)
    return d.svg()


def gpt2_temperature(copy: LocalCopy) -> str:
    """Generation: one distribution at three temperatures."""
    scores = scores_after(copy, written_on(CHAPTER, "beginning"))
    best = scores.topk(MOST).indices.tolist()
    d = Drawing(720, 64 + 24 * MOST, f"The shares of the {MOST} likeliest tokens at three temperatures.")
    for column, temperature in enumerate((0.5, 1.0, 2.0)):
        shares = warm(scores[None], temperature).softmax(dim=-1)[0]
        x = 80 + 214 * column
        d.text(x, 22, f"temperature {temperature:g}", at="start", size=13, bold=True)
        items = [
            (word_of(copy, i) if not column else "", float(shares[i]), f"{shares[i]:.2f}", "warm")
            for i in best
        ]
        bars(d, x, 34, items, 260, pitch=24)
        rest = 1 - float(shares[best].sum())
        d.text(x, 52 + 24 * MOST, f"all the others: {rest:.2f}", at="start", size=13, kind="muted")
    return d.svg()


def gpt2_filters(copy: LocalCopy) -> str:
    """Generation: what top-k and top-p keep where the model hesitates and where it is sure."""
    k, p = 5, 0.9
    d = Drawing(
        720, 84 + 24 * MOST, f"What the {k} best are and what has the share {p} together, after two texts."
    )
    texts = (written_on(CHAPTER, "beginning"), "The baker of Oru keeps")
    for x, text in zip((80, 440), texts, strict=True):
        shares = scores_after(copy, text).softmax(dim=-1)
        best = shares.topk(MOST)
        enough = int((shares.sort(descending=True).values.cumsum(0) < p).sum()) + 1
        d.text(x - 66, 22, f"{text} …", at="start", size=13, bold=True)
        items = [
            (word_of(copy, i), share, f"{share:.2f}", "good" if row < enough else "muted")
            for row, (share, i) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
        ]
        bars(d, x, 40, items, 130 if items[0][1] > 0.5 else 260, pitch=24)
        for count, words, kind in (
            (k, f"top-k, k = {k}", "warm"),
            (min(enough, MOST), f"top-p, p = {p}", "good"),
        ):
            y = 37 + 24 * count
            d.line(f"M{x - 66} {y}H{x + 190}", kind, arrow=False, dashed=True)
            d.text(x + 196, y + 4, words, at="start", size=12, kind=kind)
    d.text(
        14,
        76 + 24 * MOST,
        "green: kept by top-p; above the orange line: kept by top-k",
        at="start",
        size=13,
        kind="muted",
    )
    return d.svg()


def gpt2_beams(copy: LocalCopy) -> str:
    """Generation: a search with two beams, and the candidates that fall away."""
    beams, steps = 2, 4
    alive: list[tuple[float, str, int]] = [(1.0, GPT2_START, 0)]  # share, text, the row where it stands
    greedy = GPT2_START
    d = Drawing(
        720,
        300,
        f"A search with {beams} beams: in each of {steps} steps the two best beginnings stay alive.",
    )
    d.box(6, 24, 118, 40, "surface")
    d.text(65, 49, GPT2_START, size=13, bold=True)
    for step in range(steps):
        x = 152 + 146 * step
        made = []
        for share, text, row in alive:
            best = scores_after(copy, text).softmax(dim=-1).topk(2)
            for one, i in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                made.append((share * one, text + copy.tokenizer().decode([i]), row, word_of(copy, i)))
        made.sort(reverse=True)
        greedy += copy.tokenizer().decode([int(scores_after(copy, greedy).argmax())])
        for row, (share, text, parent, word) in enumerate(made):
            y, kept = 24 + 66 * row, row < beams
            kind = "warm" if text == greedy else "accent" if kept else "surface"
            d.line(f"M{x - 28} {44 + 66 * parent}L{x - 2} {y + 20}", "muted", arrow=False, dashed=not kept)
            d.box(x, y, 118, 40, kind, dashed=not kept)
            d.text(x + 10, y + 25, word, at="start", size=13, bold=kept)
            d.text(x + 110, y + 25, f"{share:.3f}", at="end", size=13, kind="ink" if kept else "muted")
        alive = [(share, text, row) for row, (share, text, _, _) in enumerate(made[:beams])]
    d.text(
        6,
        292,
        "orange: what greedy writes; dashed: falls away; the number is the share of the whole text",
        at="start",
        size=13,
        kind="muted",
    )
    return d.svg()


FIGURES = (
    gpt2_bytes,
    gpt2_stream,
    gpt2_thirds,
    gpt2_masking,
    gpt2_reading,
    gpt2_temperature,
    gpt2_filters,
    gpt2_beams,
)
OF = {"gpt2": FIGURES}
