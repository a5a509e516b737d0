"""The tables of docs/part-2/compared.md: every difference of the three models, and what has changed since,
with its line of code.

    python -m tools.compared            # writes the tables into the page
    python -m tools.compared --check    # exit 1 if the page is not what would be written now

No line is typed here, only looked for: a piece of it, in one function of one file, where it must be exactly
once. A line that has moved gets its new number, and one that is gone or has a double is an error.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tools import sources

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "llm_rebuild"
PAGE = PROJECT / "docs" / "part-2" / "compared.md"
MODELS, TODAY = ("MiniLM", "GPT-2", "T5"), ("GPT-2", "Llama")
MINILM, GPT2, T5, LLAMA = (f"models/{name}.py" for name in ("minilm", "gpt2", "t5", "llama"))


class NotOnceError(Exception):
    """A line is not in the source exactly once."""


@dataclass(frozen=True)
class Line:
    """Where a line is looked for: a piece of it, in a function (`Class.method`; "" for the whole file)."""

    file: str
    function: str
    piece: str


@dataclass(frozen=True)
class Found:
    file: Path
    number: int
    code: str


@dataclass(frozen=True)
class Difference:
    """One row of an overview. `words` and `lines` in the order of its models."""

    title: str
    why: str
    words: tuple[str, ...]
    lines: tuple[tuple[Line, ...], ...]


DIFFERENCES = (
    Difference(
        "Tokenizer",
        "Three ways to cut a word: the longest piece first, the most frequent neighbours first, or the most "
        "probable cut of all.",
        ("WordPiece", "byte-level BPE", "Unigram"),
        (
            (Line("tokenizers/wordpiece.py", "longest_match", "for end in range("),),
            (Line("tokenizers/byte_bpe.py", "merge_steps", "best = min("),),
            (Line("tokenizers/unigram.py", "best_pieces", "so_far + score > reached[end]"),),
        ),
    ),
    Difference(
        "Special tokens",
        "What the tokenizer puts around a text. T5's decoder needs a first token besides, and takes the "
        "padding.",
        ("`[CLS]` … `[SEP]`", "none", "`</s>` at the end"),
        (
            (Line("tokenizers/wordpiece.py", "WordPiece.encode", 'tokens = ["[CLS]"'),),
            (),
            (
                Line("tokenizers/unigram.py", "Unigram.encode", "tokens.append(END)"),
                Line("models/t5_config.py", "Config.read", 'start = config.get("decoder_start_token_id"'),
            ),
        ),
    ),
    Difference(
        "Position",
        "How the model knows the order of the words.",
        ("a learned row, added", "a learned row, added", "a number for each distance, added to the scores"),
        (
            (Line(MINILM, "embed", "x = x + position"),),
            (Line(GPT2, "embed", "x = word + position"),),
            (Line(T5, "eager_attention", "biased = product + looks.bias"),),
        ),
    ),
    Difference(
        "Norm",
        "LayerNorm shifts to mean 0 and scales to variance 1. RMSNorm only scales.",
        ("LayerNorm", "LayerNorm", "RMSNorm: no mean, no bias"),
        (
            (Line("models/ops.py", "layer_norm", "return F.layer_norm("),),
            (Line("models/ops.py", "layer_norm", "return F.layer_norm("),),
            (Line(T5, "rms_norm", "normed = x * inverse_root"),),
        ),
    ),
    Difference(
        "Epsilon",
        "What keeps the norm's division safe. Too small to matter, one would think.",
        ("1e-12", "1e-5", "1e-6"),
        (
            (Line("models/minilm_config.py", "", 'layer_norm_eps: float = 1e-12'),),
            (Line("models/gpt2_config.py", "", 'layer_norm_epsilon: float = 1e-5'),),
            (Line("models/t5_config.py", "", 'layer_norm_epsilon: float = 1e-6'),),
        ),
    ),
    Difference(
        "Where the norm stands",
        "After the sum (post-LN) or before the work (pre-LN). What is only normalised before needs one more "
        "norm at the very end.",
        (
            "after each half, and after the embeddings",
            "before each half, and at the end",
            "before each half, and at the end of each tower",
        ),
        (
            (Line(MINILM, "add_and_norm", "x = layer_norm("),),
            (
                Line(GPT2, "block", 'part.at("ln_1")'),
                Line(GPT2, "body", 'model.at("ln_f")'),
            ),
            (
                Line(T5, "self_attention", 'part.at("layer_norm")'),
                Line(T5, "encode", 'encoder.at("final_layer_norm")'),
            ),
        ),
    ),
    Difference(
        "Query, key and value",
        "Three products, or one that makes all three side by side.",
        ("three matrices", "one matrix, cut in three", "three matrices"),
        (
            (Line(MINILM, "self_attention", 'query = linear(x, part.at("query"))'),),
            (
                Line(GPT2, "self_attention", 'qkv = conv1d(x, part.at("c_attn"))'),
                Line(GPT2, "self_attention", "qkv.chunk(3"),
            ),
            (Line(T5, "self_attention", 'query = linear(normed, inside.at("q"))'),),
        ),
    ),
    Difference(
        "Weight layout",
        "PyTorch keeps a linear layer's weight as `[out, in]`. GPT-2's file has it the other way round, and "
        "where a matrix is square nothing complains.",
        ("`[out, in]`", "`[in, out]`", "`[out, in]`"),
        (
            (Line("models/ops.py", "linear", "return F.linear("),),
            (Line(GPT2, "conv1d", "torch.addmm("),),
            (Line(T5, "linear", "return F.linear("),),
        ),
    ),
    Difference(
        "Biases",
        "A number that is added behind each product.",
        ("everywhere", "everywhere", "nowhere"),
        (
            (Line("models/ops.py", "linear", 'part.weights["bias"]'),),
            (Line(GPT2, "conv1d", 'weights["bias"]'),),
            (Line(T5, "linear", 'F.linear(x, part.weights["weight"])'),),
        ),
    ),
    Difference(
        "Head width",
        "The width divided by the heads, or a number of its own.",
        ("width / heads", "width / heads", "`d_kv`"),
        (
            (Line("models/ops.py", "split_heads", "return x.view("),),
            (Line("models/ops.py", "split_heads", "return x.view("),),
            (Line("models/t5_config.py", "_attention", "[num_heads * d_kv, d_model]"),),
        ),
    ),
    Difference(
        "Scaling of the scores",
        "By the root of the head width, as a product and not as a division. T5 has no such line: its "
        "initialisation made up for it, and the fused kernel has to be told.",
        ("× 1/√(head width)", "× 1/√(head width)", "none"),
        (
            (Line(MINILM, "eager_attention", "scaled = product *"),),
            (Line(GPT2, "eager_attention", "scaled = product * scale"),),
            (Line(T5, "fused_attention", "scale=1.0"),),
        ),
    ),
    Difference(
        "Mask",
        "Who may be looked at.",
        ("all but padding", "what came before", "encoder: all but padding; decoder: what came before"),
        (
            (Line(MINILM, "make_mask", "may_look = mask.bool()"),),
            (Line(GPT2, "make_mask", "not_later = order <="),),
            (
                Line(T5, "may_look_at_text", "mask.bool()[:, None, None, :]"),
                Line(T5, "may_look_back", "not_later = (order <="),
            ),
        ),
    ),
    Difference(
        "Looking at another text",
        "Only a model with two towers can: queries from one side, keys and values from the other.",
        ("no", "no", "cross-attention"),
        ((), (), (Line(T5, "cross_attention", "keys_and_values(encoded"),)),
    ),
    Difference(
        "Adding back",
        "The input is added to what was made of it. Post-LN has normalised that input; pre-LN leaves it as "
        "it is, so it may grow from block to block.",
        ("the input, normalised", "the input as it is", "the input as it is"),
        (
            (Line(MINILM, "add_and_norm", "x = x + residual"),),
            (Line(GPT2, "block", "x = attended + x"),),
            (Line(T5, "self_attention", "x = x + mix("),),
        ),
    ),
    Difference(
        "Activation",
        "The bend in the middle of the feed-forward half.",
        ("GELU, exact", "GELU, by tanh", "ReLU"),
        (
            (Line("models/ops.py", "", '"gelu": lambda'),),
            (Line("models/ops.py", "gelu_new", "scaled = math.sqrt(2.0 / math.pi)"),),
            (Line("models/ops.py", "", '"relu": lambda'),),
        ),
    ),
    Difference(
        "Head",
        "What the last vectors become.",
        (
            "none: the mean of the tokens",
            "a score for each next token",
            "a score for each next token, scaled first",
        ),
        (
            (Line(MINILM, "average", "mean = total / count"),),
            (Line(GPT2, "head", "logits = F.linear("),),
            (Line(T5, "head", "scaled = x * model.config.d_model**-0.5"),),
        ),
    ),
    Difference(
        "Tying",
        "Whether the table that turns ids into vectors is also the one that turns vectors into scores.",
        ("no head to tie", "tied", "tied, and shared by both towers"),
        (
            (),
            (Line(GPT2, "head", 'else "wte.weight"'),),
            (Line(T5, "head", 'else "shared.weight"'),),
        ),
    ),
    Difference(
        "Cache",
        "Keys and values that are kept for the next token.",
        (
            "none: one pass",
            "one for each block",
            "two for each block: the answer's, which grows, and the text's",
        ),
        (
            (),
            (Line(GPT2, "self_attention", "past.extended(key, value)"),),
            (Line(T5, "decode", "[(own, far)]"),),
        ),
    ),
)  # fmt: skip

SINCE = (
    Difference(
        "Places that are turned in",
        "No table of places, which ends where training ended. Queries and keys are turned by an angle for "
        "each place, in every block, so that their product knows the distance.",
        ("a learned row, added once", "an angle for each pair of numbers"),
        (
            (Line(GPT2, "embed", "x = word + position"),),
            (
                Line(LLAMA, "make_turn", "turns = positions"),
                Line(LLAMA, "rotate", "turned = by_cos + by_sin"),
            ),
        ),
    ),
    Difference(
        "Heads that share",
        "Several heads of queries look at one of keys and values, which the cache then keeps once.",
        ("a key and a value for each query", "a key and a value for a group of queries"),
        (
            (Line(GPT2, "self_attention", "qkv.chunk(3"),),
            (Line(LLAMA, "repeat", "return x[:, :, None].expand("),),
        ),
    ),
    Difference(
        "A gate",
        "Two wide vectors instead of one: the first is bent and says how much of the second goes on.",
        ("GELU, by tanh", "SiLU, times the other branch"),
        (
            (Line(GPT2, "feed_forward", "bent = ACTIVATIONS["),),
            (Line(LLAMA, "feed_forward", "gated = bent * up"),),
        ),
    ),
    Difference(
        "A norm without a mean",
        "As in T5: each token is scaled and never shifted.",
        ("LayerNorm", "RMSNorm"),
        (
            (Line("models/ops.py", "layer_norm", "return F.layer_norm("),),
            (Line(LLAMA, "rms_norm", "normed = x * inverse_root"),),
        ),
    ),
    Difference(
        "No biases",
        "None in a linear layer and none in a norm; Qwen2 has kept three. Matrices lie as `[out, in]`.",
        ("everywhere", "nowhere"),
        (
            (Line(GPT2, "conv1d", 'weights["bias"]'),),
            (Line(LLAMA, "linear", "biased = part.path"),),
        ),
    ),
    Difference(
        "A table for the answer",
        "A large model can afford a second one.",
        ("that of the words", "its own; in small ones that of the words"),
        (
            (Line(GPT2, "head", 'else "wte.weight"'),),
            (Line(LLAMA, "head", 'own = "lm_head.weight"'),),
        ),
    ),
    Difference(
        "Words that are cut otherwise",
        "Byte-level BPE still, from one file. Digits go by threes, so that numbers are cut alike, and a "
        "token stands before each text.",
        ("digits as they come", "at most three digits"),
        (
            (Line("tokenizers/byte_bpe.py", "Rules", "= (SPLIT,)"),),
            (Line("tokenizers/byte_bpe_json.py", "ByteBPEJson.from_folder", "splits=_splits("),),
        ),
    ),
)  # fmt: skip


def find(line: Line) -> Found:
    """The line's number and its code. Raises NotOnceError if it is not there exactly once."""
    text = (PACKAGE / line.file).read_text(encoding="utf-8")
    lines = text.splitlines()
    first, last = _lines_of(text, line)
    hits = [n for n in range(first, last + 1) if line.piece in lines[n - 1]]
    if len(hits) != 1:
        where = f"{line.file}, {line.function}" if line.function else line.file
        raise NotOnceError(f"{where}: {line.piece!r} is there {len(hits)} times, not once")
    code = re.sub(r"\s{2,}#.*$", "", lines[hits[0] - 1]).strip()
    return Found(PACKAGE / line.file, hits[0], code)


def _lines_of(text: str, line: Line) -> tuple[int, int]:
    """The first and last line of the function that is meant."""
    node: ast.AST = ast.parse(text)
    if not line.function:
        return 1, len(text.splitlines())
    for name in line.function.split("."):
        inside = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == name
        ]
        if len(inside) != 1:
            raise NotOnceError(f"{line.file}: {name} is defined {len(inside)} times, not once")
        node = inside[0]
    return node.lineno, node.end_lineno or node.lineno


def slug(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def link(found: Found) -> str:
    target = sources.address(found.file, found.number, PAGE.relative_to(PROJECT / "docs").as_posix())
    return f"[`{found.file.name}:{found.number}`]({target})"


def overview(differences: tuple[Difference, ...], models: tuple[str, ...]) -> str:
    """One row for each difference, in words; each title leads to its lines of code."""
    rows = [f"| part | {' | '.join(models)} |", "|---" * (1 + len(models)) + "|"]
    rows += [f"| [{d.title}](#{slug(d.title)}) | {' | '.join(d.words)} |" for d in differences]
    return "\n".join(rows)


def lines(differences: tuple[Difference, ...], models: tuple[str, ...]) -> str:
    """Each difference with the lines of code that make it."""
    sections = []
    for d in differences:
        rows = ["| part | how, and the line | where |", "|---|---|---|"]
        for model, words, wanted in zip(models, d.words, d.lines, strict=True):
            found = [find(line) for line in wanted]
            how = "<br>".join([words, *(f"`{f.code}`" for f in found)])
            where = "<br>".join(link(f) for f in found) or "–"
            rows.append(f"| **{model}** | {how} | {where} |")
        sections.append(f"### {d.title}\n\n{d.why}\n\n" + "\n".join(rows))
    return "\n\n".join(sections)


def written(page: str) -> str:
    """The page with its tables as they are now."""
    tables = {
        "overview": overview(DIFFERENCES, MODELS),
        "lines": lines(DIFFERENCES, MODELS),
        "since": overview(SINCE, TODAY),
        "lines since": lines(SINCE, TODAY),
    }
    for name, table in tables.items():
        begin, end = f"<!-- compared: {name} -->", "<!-- end -->"
        if page.count(begin) != 1:
            raise NotOnceError(f"{PAGE.name}: {begin} is there {page.count(begin)} times, not once")
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the page, write nothing")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    try:
        now = written(page)
    except NotOnceError as error:
        print(f"tools/compared.py: {error}", file=sys.stderr)
        return 1
    if check and now != page:
        print(
            f"{PAGE.name} is not what would be written now; run `python -m tools.compared`", file=sys.stderr
        )
        return 1
    if not check:
        PAGE.write_text(now, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
