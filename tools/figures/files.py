"""Pictures of files and of the numbers in them: the first chapters."""

from __future__ import annotations

import json
import struct

import torch

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from tools.figures.drawing import Drawing
from tools.figures.kinds import Plot, bars, beside, heat
from tools.figures.minilm import SENTENCE
from tools.figures.runs import run_of


def minilm_rows(copy: LocalCopy) -> str:
    """Start: the rows that a sentence's tokens take out of the table."""
    truth = run_of(copy, SENTENCE)
    rows = truth["embeddings.word_embeddings"].tensor[0]
    tokens, ids, shown = truth.inputs.tokens[0], truth.inputs.token_ids[0].tolist(), 44
    d = Drawing(
        720,
        86 + 24 * len(tokens),
        f"The rows of {len(tokens)} tokens: of each {rows.shape[1]} numbers the first {shown}, as squares.",
    )
    d.text(70, 22, "token", at="end", size=13, kind="muted")
    d.text(144, 22, "row", at="end", size=13, kind="muted")
    d.text(160, 22, f"its first {shown} numbers of {rows.shape[1]}", at="start", size=13, kind="muted")
    beside(d, 70, 34, tokens, 24)
    for row, number in enumerate(ids):
        d.text(144, 50 + 24 * row, str(number), at="end", size=13, mono=True, kind="muted")
        d.text(704, 50 + 24 * row, "…", size=13, kind="muted")
    limit = float(rows[:, :shown].abs().max())
    heat(d, 160, 34, rows[:, :shown].tolist(), 12, height=24, limit=limit)
    y = 54 + 24 * len(tokens)
    d.cell(160, y, 14, 0.8)
    d.text(182, y + 12, f"above zero: the fullest is {limit:.2f}", at="start", size=13)
    d.cell(430, y, 14, 0.8, "warm")
    d.text(452, y + 12, "below zero", at="start", size=13)
    return d.svg()


def minilm_files(copy: LocalCopy) -> str:
    """Part 1: the folder by size, from the pins."""
    groups = {
        "the network": ("model.safetensors", "config.json"),
        "words": ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"),
        "one vector for a sentence": ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
    }
    pins = local_copy.PINS["minilm"].files
    d = Drawing(720, 344, f"The {len(pins)} files of MiniLM by what they are for, and how large each is.")
    plot = Plot(d, (230, 20, 590, 308), (10, 1e8), (0, 1), log="x")
    y = 6
    for (group, names), kind in zip(groups.items(), ("accent", "query", "good"), strict=True):
        d.text(220, y + 18, group, at="end", size=13, bold=True)
        sizes = ((name, plot.x(pins[name].size) - 230, f"{pins[name].size:,}", kind) for name in names)
        bars(d, 230, y + 26, sizes, 1, pitch=24, mono=True)
        y += 30 + 24 * len(names)
    words = {10: "10 bytes", 1e3: "1 kB", 1e5: "100 kB", 1e7: "10 MB"}
    plot.columns(words, words.__getitem__)
    return d.svg()


def minilm_bytes(copy: LocalCopy) -> str:
    """Part 1: the weight file from its first byte on, and one number of it as bits."""
    name = "encoder.layer.0.attention.self.query.weight"
    with copy.weights_file.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        header = file.read(length)
        entry = json.loads(header)[name]
        begin = entry["data_offsets"][0]
        file.seek(8 + length + begin)
        number = file.read(4)
    (value,) = struct.unpack("<f", number)
    d = Drawing(
        720,
        362,
        "The weight file: eight bytes that say how long the table of contents is, that table, and numbers. "
        f"Below, the 32 bits of one number, {value:.7f}.",
    )

    def row(x: float, y: float, signs: list[str], kind: str, pitch: int = 26) -> None:
        for i, sign in enumerate(signs):
            d.box(x + pitch * i, y, pitch - 2, 26, kind)
            d.text(x + pitch * i + pitch / 2 - 1, y + 18, sign, size=13, mono=True)

    def words(x: float, y: float, text: str, *, bold: bool = False) -> None:
        d.text(x, y, text, at="start", size=13, bold=bold, kind="ink" if bold else "muted")

    words(10, 22, "8 bytes: a length", bold=True)
    row(10, 32, [f"{byte:02x}" for byte in first], "near")
    words(10, 78, f"the lowest first: {length:,}")
    words(240, 22, f"{length:,} bytes: the contents, in JSON", bold=True)
    row(240, 32, list(header[:10].decode()), "query")
    words(504, 50, "…")
    words(240, 78, "for each tensor its name, type, shape, place")
    words(530, 22, "the rest: numbers", bold=True)
    d.box(530, 32, 180, 26, "accent")
    words(530, 78, "one row after another")
    d.line("M372 84V104", "query")
    d.box(10, 106, 620, 48, "query")
    d.text(20, 126, f'"{name}":', at="start", size=13, mono=True)
    d.text(20, 145, json.dumps(entry), at="start", size=13, mono=True)
    d.line("M660 84V211H126", "accent")
    words(10, 188, f"4 bytes at 8 + {length:,} + {begin:,}: the matrix's first number", bold=True)
    row(10, 198, [f"{byte:02x}" for byte in number], "accent")
    words(10, 254, "the same bytes, the highest first, bit by bit", bold=True)
    bits = f"{int.from_bytes(number, 'little'):032b}"
    for start, end, kind, word in (
        (0, 1, "bad", "sign"),
        (1, 9, "warm", "exponent"),
        (9, 32, "good", "fraction"),
    ):
        row(10 + 22 * start, 264, list(bits[start:end]), kind, 22)
        words(10 + 22 * start + (6 if start else 0), 308, word)
    exponent, fraction = int(bits[1:9], 2), int(bits[9:], 2)
    sign = "−" if bits[0] == "1" else ""
    power = f"2^({exponent} − 127)"
    formula = f"{sign}(1 + {fraction:,} / {2**23:,}) × {power} = {sign}{abs(value):.7f}"
    d.text(10, 344, formula, at="start", size=14, mono=True)
    return d.svg()


def minilm_half(copy: LocalCopy) -> str:
    """Part 1: what float16 makes of numbers of float32."""
    bits = torch.tensor(0.05).half().view(torch.int16)
    steps = [float((bits + i).view(torch.float16)) for i in range(7)]
    row = copy.tokenizer().encode("rock").ids[1]
    table = copy.weights()["embeddings.word_embeddings.weight"][row:].flatten()
    numbers = table[(table > steps[0]) & (table < steps[-1])][:16].sort().values
    d = Drawing(
        720, 216, f"{len(numbers)} numbers in float32, and the {len(steps)} in float16 among which they lie."
    )
    plot = Plot(d, (50, 40, 670, 150), (steps[0], steps[-1]), (0, 1))
    d.text(14, 24, "numbers of the table of words, in float32", at="start", size=13, bold=True, kind="accent")
    d.line("M40 48H680", "line", arrow=False)
    d.line("M40 150H680", "line", arrow=False)
    for number, nearest in zip(numbers.tolist(), numbers.half().tolist(), strict=True):
        d.line(f"M{plot.x(number):g} 54L{plot.x(nearest):g} 138", "muted", arrow=False)
        d.dot(plot.x(number), 48, "accent", 4)
    for i, step in enumerate(steps):
        d.line(f"M{plot.x(step):g} 138V162", "warm", arrow=False)
        if i % 2 == 0:
            d.text(plot.x(step), 180, f"{step:.6f}", size=13, mono=True)
    d.text(14, 206, "all the numbers that float16 has here", at="start", size=13, bold=True, kind="warm")
    return d.svg()


def minilm_sizes(copy: LocalCopy) -> str:
    """Part 1: the three published weight files, from the pins."""
    sizes = {model: local_copy.PINS[model].files["model.safetensors"].size for model in local_copy.PINS}
    d = Drawing(
        720, 44 + 62 * len(sizes), "The weight files of the three models, and how large half of each is."
    )
    y = 12
    for model, size in sorted(sizes.items(), key=lambda item: item[1]):
        items = [("float32", size / 1e6, f"{size / 1e6:.0f} MB, as published", "accent"),
                 ("float16, bfloat16", size / 2e6, f"{size / 2e6:.0f} MB", "muted")]  # fmt: skip
        d.text(14, y + 16, model, at="start", bold=True)
        bars(d, 230, y, items, 0.55)
        y += 62
    d.text(
        230,
        y + 12,
        f"4 bytes a number, or 2; {sum(sizes.values()) / 1e6:.0f} MB in all",
        at="start",
        size=13,
        kind="muted",
    )
    return d.svg()


FIGURES = (minilm_rows, minilm_files, minilm_bytes, minilm_half, minilm_sizes)
OF = {"minilm": FIGURES}
