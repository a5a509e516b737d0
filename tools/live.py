"""What the live pages know of the models, so that nothing of it is typed twice.

    python -m tools.live            # writes docs/live/data/
    python -m tools.live --check    # exit 1 if a file is not what would be written now

`javascripts/live/titles.js` has what people call each model. Besides, a model has two files. `NAME.json` says
of each checkpoint what it holds, from what it is computed, the line of the rebuild that computes it, where
the official model shows it, and its weights. `NAME.safetensors` is an official capture of one sentence, for
the page to compare itself with.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import llm_rebuild
from llm_rebuild.checkpoints import Tap
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.models import RECORDS
from llm_rebuild.models.architecture import Architecture
from llm_rebuild.using.generate import generate
from llm_rebuild.verify import Capture, ask, capture
from llm_rebuild.verify.equality import ROUNDED
from llm_rebuild.verify.run import run_rebuild
from llm_rebuild.verify.sources import source_of

PROJECT = Path(__file__).parent.parent
PACKAGE = Path(llm_rebuild.__file__).parent
FOLDER = PROJECT / "docs" / "live" / "data"
TITLES = PROJECT / "docs" / "javascripts" / "live" / "titles.js"
# A page opens with the first, which is the one that comes with official tensors: of what writes on from any
# text, of what embeds, of what translates.
_WRITER = ("The baker of Oru lives by the", "Every morning the farmer", "The cook")
_ENCODER = ("The cook gave the sailor a lamp.", "A sailor got a lamp from the cook.", "The old king sleeps.")
_TRANSLATOR = tuple(
    f"translate English to German: {words}"
    for words in ("four hundred twenty-seven", "nine", "two thousand sixty-six")
)
SENTENCES = {
    record.published: _ENCODER if record.embeds else _TRANSLATOR if record.encoder_decoder else _WRITER
    for record in RECORDS
}

# What the page reads of a folder.
FILES = {
    "config.json", "generation_config.json", "merges.txt", "model.safetensors", "spiece.model",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt",
}  # fmt: skip

# The colours of the map: what a checkpoint is to the model. The first pattern that its name ends with.
ROLES = (
    (r"(residual|(^|\.)embeddings|embeddings\.sum|word_and_type)", "residual"),
    (r"(layernorm|model\.norm|[qk]_norm)(\.\w+)?", "norm"),
    (r"(mlp|DenseReluDense|intermediate).*", "feed-forward"),
    (r"c_attn", "qkv"),
    (r"(query(\.\w+)?|\.q|q_proj)", "query"),
    (r"(keys?(\.\w+)?|\.k|k_proj)", "key"),
    (r"(values?|\.v|v_proj)", "value"),
    (r"decoder\.scaled", "answer"),
    (r"(product|scaled|biased|scores|probs|mask|relative_attention_bias)", "attention"),
    (r"(context|attn\.c_proj|attention\.output\.dense|Attention\.o|o_proj)", "value"),
    (r"(LayerNorm|ln_.|layer_norm(\.\w+)?)", "norm"),
    (r"\.output\.dense", "feed-forward"),
    (r"(wte|wpe|_embeddings|embed_tokens|rotary_emb\.\w+)", "embedding"),
    (r".*", "answer"),
)
# How each is computed, in the words of a textbook. x is what goes into it.
FORMULAS = (
    (r"(wte|word_embeddings|embed_tokens)", "the row of each token's id in the table"),
    (r"(wpe|position_embeddings)", "the row of each position in the table"),
    (r"token_type_embeddings", "row 0 of the table, for every token"),
    (r"(embeddings|embeddings\.sum|word_and_type|residual)", "a + b"),
    (r"rotary_emb\.turns", "position · θ^(−2i / head width), for each pair i"),
    (r"rotary_emb\.angles", "a, and a once more behind it"),
    (r"rotary_emb\.(longer_)?(cos|sin)", "cosine and sine of each angle"),
    (r"by_cos", "x · cos"),
    (r"minus", "−b, of the halves a and b"),
    (r"swapped", "−b, and a behind it"),
    (r"by_sin", "x · sin"),
    (r"self_attn\.(query|key)", "a + b"),
    (r"(^|\.)(mask|cross_mask)", "0 where one may look, the lowest float elsewhere"),
    (r"relative_attention_bias", "the row of each distance's bucket in the table"),
    (r"(LayerNorm|ln_\w)", "(x − mean) / √(variance + ε) · weight + bias"),
    (r"product", "query · keyᵀ, in each head"),
    (r"attn\.scaled|self\.scaled", "x / √(head width)"),
    (r"decoder\.scaled", "x / √width"),
    (r"biased", "x + bias of the distance"),
    (r"scores", "x + mask"),
    (r"probs", "eˣ / Σ eˣ, over the keys"),
    (r"head_context", "probs · value, in each head"),
    (r"context", "the heads side by side"),
    (r"act\.half", "0.5 x"),
    (r"act\.cube", "x³"),
    (r"act\.small_cube", "0.044715 x³"),
    (r"act\.steeper", "x + 0.044715 x³"),
    (r"act\.scaled", "√(2/π) · x"),
    (r"(act\.tanh|pooler\.activation)", "tanh x"),
    (r"act\.gate", "1 + x"),
    (r"mlp\.act", "half · gate"),
    (r"intermediate_act_fn", "x · Φ(x), Φ by the error function"),
    (r"DenseReluDense\.act", "max(x, 0)"),
    (r"mlp\.act_fn", "x / (1 + e⁻ˣ)"),
    (r"gated", "a · b"),
    (r"mean_square", "the mean of x²"),
    (r"square", "x²"),
    (r"above_zero", "x + ε"),
    (r"inverse_root", "1 / √x"),
    (r"normed", "x · 1/√(mean square + ε)"),
    (r"layer_norm|layernorm|model\.norm|[qk]_norm", "weight · x"),
    (r"attn\.(keys?|values?)|Attention\.(key|value)", "earlier tokens' and the new ones', heads apart"),
    (r"(q|k|v|o|gate|up|down)_proj", "x · weightᵀ"),
    (r"lm_head", "x · tableᵀ: one dot product a token of the vocabulary"),
    (r"masked", "x · mask"),
    (r"sentence\.sum", "Σ over the tokens"),
    (r"sentence\.count", "how many tokens are no padding"),
    (r"sentence\.mean", "sum / count"),
    (r"sentence\.embedding", "x / √(Σ x²)"),
    (r"c_attn|c_proj|c_fc", "x · weight + bias"),
    (r"\.(q|k|v|o|wi|wi_0|wi_1|wo)", "x · weightᵀ"),
    (r".*", "x · weightᵀ + bias"),
)


def by_name(table: tuple[tuple[str, str], ...], name: str) -> str:
    """What the first pattern that fits the end of a name says."""
    return next(words for pattern, words in table if re.search(f"(?:{pattern})$", name))


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


def official(name: str, *texts: str) -> Capture:
    """The official run of these texts as the page runs them: with a cache where there is one, and T5's
    decoder reads what it has written itself."""
    copy = miniature(name)
    architecture = copy.rebuild.architecture
    answers = None
    if architecture.encoder_decoder:  # the token that ends the answer is never read
        answers = [generate(copy, texts[0]).rows[0][:-1]] * len(texts)
    return capture(ask(copy, texts, decoder_ids=answers, use_cache=architecture.generates))


# -------------------------------------------------------------------------------- one checkpoint


def numbered(name: str, architecture: Architecture, words: dict[int, str]) -> str:
    """A name with words such as `{layer}` instead of the numbers of some blocks."""
    stack = architecture.stack_of(name)
    if stack is None:
        return name
    number, *rest = name.removeprefix(f"{stack.path}.").split(".")
    return ".".join([stack.path, words.get(int(number), number), *rest])


def official_words(path: str, event: str) -> str:
    """Where the official model shows a checkpoint, in words."""
    where = f"`{path}`" if path else "the model"
    if event == "returned":
        return f"what {where} returns"
    if event == "given":
        return f"what {where} is given"
    operation, _, call = event.removeprefix("into ").rstrip("]").partition("[")
    nth = ("first", "second", "third", "fourth", "fifth", "sixth")[int(call)]
    return f"{'what goes into ' if event.startswith('into ') else ''}the {nth} `{operation}` in {where}"


def weights_of(name: str, keys: Collection[str]) -> list[str]:
    """The keys of the weights that a checkpoint is computed with."""
    own = [key for key in keys if key.rpartition(".")[0] == name]
    tables = [key for key in ("wte.weight", "shared.weight") if key in keys]
    return own or (tables if name.endswith(("lm_head", "embed_tokens")) else [])


def lines_of_code(truth: Capture, copy: LocalCopy) -> dict[str, tuple[Path, int]]:
    """Each checkpoint's line in the rebuild: the last one that gave the tapped variable its value."""
    lines: dict[str, tuple[Path, int]] = {}

    def observe(name: str, tensor: Tensor) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame and Path(frame.f_code.co_filename).name in ("checkpoints.py", "part.py"):
            frame = frame.f_back
        assert frame is not None
        file = Path(frame.f_code.co_filename)
        lines[name] = file, assigned(file, frame.f_lineno)

    question = ask(
        copy, truth.inputs.texts, decoder_ids=ids(truth.inputs.decoder_ids),
        use_cache=copy.rebuild.architecture.generates,
    )  # fmt: skip
    run_rebuild(question, Tap(observe))
    return lines


def ids(tensor: Tensor | None) -> list[list[int]] | None:
    return None if tensor is None else tensor.tolist()


@cache
def statements(file: Path) -> list[ast.stmt]:
    """The simple statements of a file, in order."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    simple = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return, ast.For)
    return sorted((n for n in ast.walk(tree) if isinstance(n, simple)), key=lambda n: n.lineno)


def assigned(file: Path, tap: int) -> int:
    """The line that last gave the variable of a tap its value."""
    before = [s for s in statements(file) if s.lineno <= tap]
    call = before[-1]
    shown = call.value.args[-1] if isinstance(call, ast.Expr) and isinstance(call.value, ast.Call) else None
    for statement in reversed(before[:-1]):
        targets = {
            n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        if isinstance(shown, ast.Name) and shown.id in targets and not isinstance(statement, ast.For):
            return statement.lineno
    return call.lineno


@cache
def source(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def entries(truth: Capture, copy: LocalCopy) -> list[dict[str, Any]]:
    """What there is to know of each checkpoint. Blocks are alike, so a stack's are said once: of the
    last block, whose number is `{layer}`; `{before}` is the one before it. `first`: block 0's inputs."""
    architecture, depth = copy.rebuild.architecture, copy.rebuild.depth
    world, code = world_of(truth, copy), lines_of_code(truth, copy)
    keys = list(copy.rebuild.shapes(copy.weights()))
    listed = []
    for name, checkpoint in truth.checkpoints.items():
        stack = architecture.stack_of(name)
        layer = depth[stack.path] - 1 if stack else max(depth.values()) - 1
        words = {layer: "{layer}", layer - 1: "{before}"} if stack else {layer: "{last}"}
        pattern = numbered(name, architecture, words)
        twin = numbered(name, architecture, {0: str(layer)})
        if stack and "{layer}" not in pattern and twin in truth.checkpoints:
            continue  # the last block speaks for all
        path, event = source_of(checkpoint)
        (file, line), inputs = code[name], world.inputs_of(name)
        entry = {
            "name": pattern,
            "shape": checkpoint.shape,
            "meaning": checkpoint.meaning,
            "role": by_name(ROLES, name),
            "formula": by_name(FORMULAS, name),
            "code": [file.relative_to(PACKAGE).as_posix(), line, source(file)[line - 1].strip()],
            "official": official_words(numbered(path, architecture, words), event),
            "weights": [numbered(key, architecture, words) for key in weights_of(name, keys)],
            "inputs": [numbered(i, architecture, words) for i in inputs],
        }
        if stack and "{layer}" in pattern:
            alone = world.inputs_of(numbered(name, architecture, {layer: "0"}))
            if alone != [i.replace("{layer}", "0") for i in entry["inputs"]]:
                entry["first"] = alone
        listed.append(entry)
    return listed


def model(name: str) -> dict[str, Any]:
    """What the page is told of a model."""
    copy = miniature(name)
    truth = official(name, *SENTENCES[name][:2])  # of two lengths: there is padding, so every mask is there
    architecture = copy.rebuild.architecture
    return {
        "title": next(record.title for record in RECORDS if record.published == name),
        "type": architecture.model_type,
        "relatives": architecture.relatives,
        "tokenizer": architecture.tokenizer,
        "generates": architecture.generates,
        "stacks": [asdict(stack) for stack in architecture.stacks],
        "sentences": SENTENCES[name],
        "weights": dict(architecture.weights),
        "optional": dict(architecture.optional),
        "unused": list(architecture.unused),
        "crossing": architecture.crossing,
        "files": sorted(file.name for file in copy.folder.iterdir() if file.name in FILES),
        "checkpoints": entries(truth, copy),
    }


def titles() -> str:
    """The module that says what people call each model."""
    named = {record.title: record.published for record in RECORDS}
    about = "What people call each model, and its folder. Written by `python -m tools.live`."
    return f"// {about}\n\nexport const MODELS = {json.dumps(named, ensure_ascii=False)};\n"


def differences(name: str, file: Path) -> Iterator[str]:
    """What is not what would be written now. Bits are a processor's: numbers may be another order's."""
    expected = json.dumps(model(name), indent=1, ensure_ascii=False) + "\n"
    if not file.with_suffix(".json").is_file() or file.with_suffix(".json").read_text("utf-8") != expected:
        yield f"{name}.json"
    now = official(name, SENTENCES[name][0])
    stored = Capture.load(file.with_suffix(".safetensors"))
    for checkpoint, tensor in now.tensors.items():
        other = stored.tensors.get(checkpoint)
        if other is None or not torch.allclose(
            tensor, other, rtol=0, atol=ROUNDED * float(tensor.abs().max())
        ):
            yield f"{name}.safetensors: {checkpoint}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed files, write nothing"
    )
    if parser.parse_args().check:
        stale = [words for name in SENTENCES for words in differences(name, FOLDER / name)]
        stale += [] if TITLES.read_text("utf-8") == titles() else [TITLES.name]
        if stale:
            words = ", ".join(stale[:5])
            print(f"not what would be written now: {words}; run `python -m tools.live`", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    TITLES.write_text(titles(), encoding="utf-8")
    for name in SENTENCES:
        text = json.dumps(model(name), indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
        official(name, SENTENCES[name][0]).save(FOLDER / f"{name}.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
