"""The pictures of T5's chapters, of the miniature."""

from __future__ import annotations

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from tools.figures.drawing import Drawing, shape

T5_SENTENCE = "translate English to German: four hundred twenty-seven"


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
        d.slanted(left + j * side + 22, top - 8, token)
    height = len(probs) * side
    d.box(left - 3, top - 3, probs.shape[1] * side + 4, height + 4)
    for i, row in enumerate(probs):
        d.text(left - 12, top + i * side + 26, tokens[i + 1], at="end", size=13, mono=True)
        for j, share in enumerate(row.tolist()):
            d.cell(left + j * side, top + i * side, side - 2, share)
    return d.svg()


FIGURES = (
    t5_architecture,
    t5_buckets,
    t5_block,
    t5_cross_attention,
)
