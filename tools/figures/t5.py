"""The pictures of T5's chapters, of the miniature."""

from __future__ import annotations

from functools import cache
from math import log10

import torch

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify import capture
from llm_rebuild.verify.capture import Capture
from tools.figures.drawing import Drawing, shape
from tools.figures.kinds import Plot, above, band, bars, beside, heat

T5_SENTENCE = "translate English to German: four hundred twenty-seven"


@cache
def _t5_answer(copy: LocalCopy) -> tuple[list[int], list[str]]:
    """What the model makes of the sentence, the start token first: ids and tokens."""
    from llm_rebuild.using.generate import Settings, generate

    (row,) = generate(copy, T5_SENTENCE, Settings(20)).rows
    return list(row), [copy.tokenizer().tokens[i] for i in row]


@cache
def _translation(copy: LocalCopy) -> Capture:
    """The official run on the sentence, with the model's own answer before the decoder."""
    return capture(copy, T5_SENTENCE, decoder_ids=[_t5_answer(copy)[0][:-1]])


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
                d.cell(x, y, side - 2, 0.06 + 0.34 * near, "warm" if later else "accent")
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
            d.cell(x, y, w - 1, 0.06 + 0.34 * near, "warm" if both else "accent", height=28)
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
        for i, (name, kind) in enumerate({"q": "query", "k": "key", "v": "value"}.items()):
            middle = x - 66 + 66 * i
            rows = read if crossing and name != "q" else written
            d.box(middle - 32, 152, 64, 44, kind)
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
    tokens, truth = _t5_answer(copy)[1], _translation(copy)
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


def t5_parameters(copy: LocalCopy) -> str:
    """Part 2: where the numbers are, to scale; and what a decoder block has that an encoder block has not."""
    model = anatomy.describe(copy)
    d = Drawing(
        720,
        340,
        f"The {model.parameters:,} numbers of this T5 as bars: the token table, both towers, two blocks.",
    )
    table = model.part("shared").parameters
    towers = {
        side: [part for part in model.parts if part.path.startswith(f"{side}.block")]
        for side in ("encoder", "decoder")
    }
    most = max(sum(part.parameters for part in blocks) for blocks in towers.values())
    left, scale = 100, 600 / most
    beside(d, left - 12, 20, ("token table", "encoder", "decoder"), 50, mono=False)
    band(d, left, 24, [(f"{table:,}", table, "accent")], table * scale, 36)
    for row, blocks in enumerate(towers.values(), start=1):
        parts = [
            (f"block {i}: {part.parameters:,}", part.parameters, "warm") for i, part in enumerate(blocks)
        ]
        band(d, left, 24 + 50 * row, parts, sum(part.parameters for part in blocks) * scale, 36)
    d.text(left, 206, "block 1 of each, three times as large:", at="start", size=13, kind="muted")
    kinds = {
        "SelfAttention": "self-attention",
        "EncDecAttention": "cross-attention",
        "DenseReluDense": "feed-forward",
    }
    for row, (side, blocks) in enumerate(towers.items()):
        sizes = dict.fromkeys(kinds.values(), 0)
        for name, size in blocks[1].shapes.items():
            for module, words in kinds.items():
                if module in name:
                    sizes[words] += torch.Size(size).numel()
        parts = [
            (f"{words} {size:,}", size, "good" if words == "cross-attention" else "surface")
            for words, size in sizes.items()
            if size
        ]
        d.text(left - 12, 244 + 50 * row, side, at="end", size=13)
        band(d, left, 220 + 50 * row, parts, sum(sizes.values()) * scale * 3, 36)
    d.text(
        left, 322, f"with the two last norms, {model.parameters:,} in all", at="start", size=13, kind="muted"
    )
    return d.svg()


def t5_growth(copy: LocalCopy) -> str:
    """Part 2: what is never normalised grows; the last norm of each tower brings it back."""
    truth = _translation(copy)
    d = Drawing(
        720, 330, "The mean length of a token's vector along both towers: it grows up to the last norm."
    )
    ends = {"encoder": "good", "decoder": "warm"}
    lines = {}
    for side in ends:
        names = [name for name in truth if name.startswith(side) and name.endswith("residual")]
        names = [f"{side}.embed_tokens", *names, f"{side}.final_layer_norm"]
        lines[side] = [float(truth[name].tensor.norm(dim=-1).mean()) for name in names]
    longest = max(map(len, lines.values()))
    most = 10 * (1 + int(max(map(max, lines.values())) / 10))
    plot = Plot(d, (60, 20, 600, 270), (0, longest - 1), (0, most))
    plot.rows(range(0, most + 1, 20))
    for side, kind in ends.items():
        points = list(enumerate(lines[side]))
        plot.curve(points[:-1], kind)
        plot.curve(points[-2:], kind, side, dashed=True)
        for x, y in points:
            plot.dot(x, y, kind, 4)
    d.text(60, 300, "token table", size=13, kind="muted")
    d.text(
        330, 300, "after each sum: two in an encoder block, three in a decoder block", size=13, kind="muted"
    )
    return d.svg()


def t5_rows(copy: LocalCopy) -> str:
    """Part 2: the rows of the token table: tokens, sentinels, and rows of nobody."""
    rows, tokens = anatomy.describe(copy).config.vocab_size, copy.tokenizer().tokens
    sentinels = sum(token.startswith("<extra_id_") for token in tokens)
    d = Drawing(
        720, 110, f"The {rows} rows of the token table: pieces, {sentinels} sentinels, and rows of no token."
    )
    pieces, nobody = len(tokens) - sentinels, rows - len(tokens)
    parts = [
        (f"{pieces} pieces of words, and three special tokens", pieces, "accent"),
        (f"{sentinels} sentinels", sentinels, "warm"),
        ("", nobody, "surface"),
    ]
    band(d, 10, 30, parts, 700)
    d.text(10, 90, "row 0", at="start", size=13, kind="muted")
    d.text(10 + 700 * pieces / rows, 90, tokens[pieces], size=13, mono=True, kind="muted")
    d.text(10 + 700 * len(tokens) / rows, 22, tokens[-1], size=13, mono=True, kind="muted", at="end")
    d.text(710, 90, f"{nobody} rows of no token", at="end", size=13, kind="muted")
    return d.svg()


def t5_bias(copy: LocalCopy) -> str:
    """Part 3: what each head adds to a score, by distance, in both towers."""
    from llm_rebuild.models.t5 import bucket_of

    model, farthest, side = anatomy.describe(copy), 20, 14.0
    heads = model.config.num_heads
    weights = copy.weights()
    d = Drawing(
        720, 330, "What each head adds to the score of a token, by how far before or behind it stands."
    )
    tables = []
    for tower, both in (("encoder", True), ("decoder", False)):
        distances = torch.arange(-farthest, farthest + 1 if both else 1)[None]
        name = f"{tower}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        tables.append(
            (tower, distances[0].tolist(), weights[name][bucket_of(distances, both, model.config)[0]].T)
        )
    most = max(float(table.abs().max()) for _, _, table in tables)
    for number, (tower, distances, table) in enumerate(tables):
        y = 40 + 140 * number
        d.text(100, y - 14, tower, at="start", bold=True)
        beside(d, 90, y, (f"head {head}" for head in range(heads)), 20, mono=False)
        heat(d, 100, y, table.tolist(), side, height=20, limit=most)
        for distance in range(-farthest, distances[-1] + 1, 5):
            x = 100 + side * (distance + farthest + 0.5)
            d.text(x, y + 20 * heads + 18, f"{distance:+d}" if distance else "itself", size=12, kind="muted")
    x = 100 + side * (farthest + 2)
    d.text(x, 216, f"blue: added, up to {most:.1f}", at="start", size=13, kind="muted")
    d.text(x, 236, "orange: taken away", at="start", size=13, kind="muted")
    return d.svg()


def t5_scores(copy: LocalCopy) -> str:
    """Part 3: one head's product, with the distances added, and the shares that come of it."""
    truth, side, head = _translation(copy), 16.0, 3
    tokens, n = truth.inputs.tokens[0], len(truth.inputs.tokens[0])
    d = Drawing(
        720, 330, f"Head {head} of the encoder's block 0: the product, the product with the bias, the shares."
    )
    name = "encoder.block.0.layer.0.SelfAttention."
    shown = {
        "product": truth[f"{name}product"].tensor[0, head],
        "biased": truth[f"{name}biased"].tensor[0, head],
        "probs": truth[f"{name}probs"].tensor[0, head],
    }
    most = max(float(shown[which].abs().max()) for which in ("product", "biased"))
    words = {
        "product": "query · key, not scaled",
        "biased": "a number for each distance added",
        "probs": "softmax, row by row",
    }
    beside(d, 84, 84, tokens, side)
    for column, (which, numbers) in enumerate(shown.items()):
        x = 92 + 200 * column
        above(d, x, 76, tokens, side)
        heat(d, x, 84, numbers.tolist(), side, limit=1.0 if which == "probs" else most)
        d.text(x, 84 + n * side + 24, which, at="start", bold=True)
        d.text(x, 84 + n * side + 43, words[which], at="start", size=12, kind="muted")
    return d.svg()


def t5_relu(copy: LocalCopy) -> str:
    """Part 3: what a ReLU makes zero: the wide numbers of one block, and the share in each."""
    truth = _translation(copy)
    names = [name.removesuffix(".act") for name in truth if name.endswith("DenseReluDense.act")]
    wide = truth[f"{names[0]}.wi"].tensor.flatten()
    low, high = int(wide.min()) - 1, int(wide.max()) + 1
    edges = torch.linspace(low, high, 2 * (high - low) + 1)
    counts = torch.histogram(wide, edges).hist.tolist()
    d = Drawing(720, 300, "The wide numbers of the encoder's first block: those below zero become zero.")
    d.text(20, 20, f"the {len(wide):,} numbers of block 0 before the ReLU", at="start", bold=True)
    plot = Plot(d, (20, 40, 400, 250), (low, high), (0, max(counts)))
    below = [(edge, count) for edge, count in zip(edges.tolist(), counts, strict=False) if edge < 0]
    plot.histogram([*(edge for edge, _ in below), 0.0], [count for _, count in below], "warm")
    plot.histogram(edges.tolist()[len(below) :], counts[len(below) :], "accent")
    plot.columns(range(low, high + 1, 2))
    d.text(plot.x(-3.5), 120, "become 0", at="end", size=13, kind="warm")
    d.text(plot.x(1.5), 120, "stay", at="start", size=13, kind="accent")
    d.text(440, 20, "zeros behind the ReLU", at="start", bold=True)
    zeros = [float((truth[f"{name}.act"].tensor == 0).float().mean()) for name in names]
    labels = [" ".join((name.split(".")[0], name.split(".")[2])) for name in names]
    rows = [(label, zero, f"{zero:.0%}", "warm") for label, zero in zip(labels, zeros, strict=True)]
    bars(d, 530, 44, rows, 130, pitch=34)
    return d.svg()


def t5_heads(copy: LocalCopy) -> str:
    """Part 3: the cross-attention of all heads of all blocks."""
    truth, tokens = _translation(copy), _t5_answer(copy)[1]
    c = anatomy.describe(copy).config
    d = Drawing(720, 368, f"Cross-attention in all {c.decoder_layers} blocks and {c.num_heads} heads.")
    for head in range(c.num_heads):
        d.text(76 + 162 * head + 72, 20, f"head {head}", bold=True)
    for block in range(c.decoder_layers):
        probs = truth[f"decoder.block.{block}.layer.1.EncDecAttention.probs"].tensor[0]
        y = 36 + 92 * block
        d.text(66, y + 40, f"block {block}", at="end", bold=True)
        for head, shares in enumerate(probs):
            heat(d, 76 + 162 * head, y, shares.tolist(), 12, height=18, limit=1.0)
    y = 36 + 92 * c.decoder_layers + 8
    d.text(76, y, f"rows: {'  '.join(tokens[1:])}", at="start", size=13, mono=True, kind="muted")
    read = " ".join(truth.inputs.tokens[0])
    d.text(76, y + 22, f"columns: {read}", at="start", size=12, mono=True, kind="muted")
    return d.svg()


def t5_steps(copy: LocalCopy) -> str:
    """Part 3: a translation, step by step: the three best next tokens each time."""
    ids, tokens = _t5_answer(copy)
    shares = _translation(copy)["lm_head"].tensor[0].softmax(dim=-1)
    d = Drawing(
        720, 40 + 96 * len(shares), "The three most probable next tokens in each step of the translation."
    )
    vocabulary = copy.tokenizer().tokens
    d.text(20, 20, "read so far", at="start", size=13, kind="muted")
    d.text(448, 20, "share of the next token, on a logarithmic scale", at="start", size=13, kind="muted")
    for step, row in enumerate(shares):
        y = 36 + 96 * step
        for place, token in enumerate(tokens[: step + 1]):
            d.text(20, y + 17 + 18 * place, token, at="start", size=13, mono=True, kind="muted")
        best = row.topk(3)
        items = [
            (
                vocabulary[i],
                max(6 + log10(share), 0),
                f"{share:.4f}" if share > 5e-5 else f"{share:.0e}",
                "accent" if i == ids[step + 1] else "muted",
            )
            for share, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        bars(d, 448, y, items, 30, mono=True)
    return d.svg()


def t5_caches(copy: LocalCopy) -> str:
    """Part 3: the two caches of a block: one grows by a token in each step, one is filled once."""
    tokens, text = _t5_answer(copy)[1], _translation(copy).inputs.tokens[0]
    side, y, lefts, steps = 30.0, 108.0, (20.0, 250.0), len(tokens) - 1
    d = Drawing(
        720,
        320,
        "Keys and values that are kept: of the answer one more in each step, of the text all at once.",
    )
    d.text(lefts[0], 20, "of the answer", at="start", bold=True)
    d.text(lefts[1], 20, "of the text", at="start", bold=True)
    above(d, lefts[0], y - 8, tokens[:-1], side)
    above(d, lefts[1], y - 8, text, side)
    for step in range(steps):
        top = y + 36 * step
        for place in range(step + 1):
            d.box(lefts[0] + side * place, top, side - 3, side - 3, "warm" if place == step else "surface")
        for place in range(len(text)):
            d.box(lefts[1] + side * place, top, side - 3, side - 3, "surface" if step else "warm")
        d.text(lefts[1] - 20, top + 19, f"step {step + 1}", at="end", size=13, kind="muted")
        d.text(lefts[1] + side * len(text) + 8, top + 19, tokens[step + 1], at="start", size=12, mono=True)
    y += 36 * steps + 14
    d.box(20, y, 14, 14, "warm")
    d.text(42, y + 12, "computed in this step", at="start", size=13)
    d.box(250, y, 14, 14)
    d.text(272, y + 12, "at hand", at="start", size=13)
    return d.svg()


FIGURES = (
    t5_parameters,
    t5_growth,
    t5_rows,
    t5_bias,
    t5_scores,
    t5_relu,
    t5_heads,
    t5_steps,
    t5_caches,
    t5_architecture,
    t5_buckets,
    t5_block,
    t5_cross_attention,
)
OF = {"t5-small": FIGURES}
