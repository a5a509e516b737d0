"""The pictures of GPT-2's chapters, of the miniature."""

from __future__ import annotations

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from tools.figures.drawing import Drawing, shape
from tools.figures.runs import run_of

GPT2_PROMPT = "The baker of Oru lives by the"
GPT2_START = "The baker of Oru"
GPT2_WORD = " baker"
GPT2_HEADS = ((0, 2), (0, 3))  # block and head: one finds the trade, one the village


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

    def step(x: float, y: float, name: str, words: str, kind: str = "surface", w: float = 176) -> None:
        d.step(x, y, words, of(name), kind, w)

    def plus(y: float, name: str) -> None:
        d.plus(stream, y)
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
        d.step(x, 136, part, heads, part, w=168)
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
    d.text(stream + 20, 688, "attn.residual", at="start", size=13, mono=True, kind="good")
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
    truth = run_of(copy, GPT2_PROMPT)
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
            d.slanted(left + i * side + 19, top - 8, token)
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
            d.slanted(left + i * side + 19, top - 8, token.strip())
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


FIGURES = (
    gpt2_architecture,
    gpt2_block,
    gpt2_attention,
    gpt2_merges,
    gpt2_cache,
    gpt2_check,
)
OF = {"gpt2": FIGURES}
