"""Where two runs part, said in words: which block, which head, which tokens, and which step is to blame.

The words come from the checkpoint's own shape, `[batch, head, query, key]`, and from the tokens of the input.
The blame comes from what a checkpoint is computed from: where all of that is still bit-identical, the
difference arises in this very step and nowhere before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import block_of
from llm_rebuild.errors import listed
from llm_rebuild.models import ARCHITECTURES
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, Verdict, finite
from llm_rebuild.verify.rounding import MISTAKE, ROUNDING, UNCLEAR, Rounding

InputsOf = Callable[[str], Sequence[str]]

LONGEST_TOKEN = 24
MOST_NAMES = 4


@dataclass(frozen=True)
class Divergence:
    """The first checkpoint that is not bit-identical.

    verdict   How it differs.
    words     Where the worst difference is: `block 3, head 7, query token 4 "rock", key token 1 "open"`.
              Empty where there is no coordinate, as for another shape.
    inputs    The checkpoints that it is computed from; None where that is not known. Then those before it
              stand for them.
    differing Those of them that are there and not bit-identical themselves.
    unshown   Those of them that are not there.
    before    How many checkpoints come before it.
    """

    verdict: Verdict
    words: str = ""
    inputs: tuple[str, ...] | None = None
    differing: tuple[str, ...] = ()
    unshown: tuple[str, ...] = ()
    before: int = 0

    @property
    def name(self) -> str:
        """The checkpoint at which the runs part."""
        return self.verdict.name

    @property
    def inputs_identical(self) -> bool:
        """Whether all that it is computed from is there, and has the official bits."""
        return not self.differing and not self.unshown

    def __str__(self) -> str:
        """The verdict, and where the worst difference is."""
        return self.verdict.in_words(self.words)

    def blame(self, rounding: Rounding | None = None) -> str:
        """In a sentence: whether what went in was still identical, and whether it is rounding."""
        if self.verdict.verdict == MISSING:
            return "it was not shown"
        if self.differing:
            return f"what belongs into it differs already: {listed(self.differing, MOST_NAMES)}"
        if self.unshown:
            names = listed(self.unshown, MOST_NAMES)
            return f"what belongs into it was not shown ({names}): the difference arises there or here"
        if self.before == 0:
            came = "nothing is computed before it"
        elif self.inputs is None:
            one = self.before == 1
            came = f"{'the' if one else f'all {self.before}'} checkpoint{'' if one else 's'} before it "
            came += f"{'is' if one else 'are'} bit-identical"
        elif not self.inputs:
            came = "no other checkpoint belongs into it"
        else:
            are = "is" if len(self.inputs) == 1 else "are"
            came = f"what belongs into it ({listed(self.inputs, MOST_NAMES)}) {are} bit-identical"
        kind = rounding.kind(self.name) if rounding else UNCLEAR
        if rounding and self.name in rounding.off:
            came += f", and {rounding.words(self.name)}"
        if kind == ROUNDING:
            return f"{came}: rounding, no mistake"
        if kind == MISTAKE:
            return f"{came}: the mistake is made here"
        return f"{came}: the difference arises here"

    def to_json(self, rounding: Rounding | None = None) -> dict[str, Any]:
        """`first_divergence` of `verify --json`, docs/reference/json.md."""
        verdict = self.verdict
        return {
            "name": self.name,
            "coordinate": None if verdict.coordinate is None else list(verdict.coordinate),
            "official": finite(verdict.official),
            "rebuilt": finite(verdict.rebuilt),
            "words": self.words,
            "inputs_identical": self.inputs_identical,
            "rounding": rounding.to_json(self.name) if rounding else None,
        }


def describe(
    verdicts: Sequence[Verdict], truth: Capture, inputs_of: InputsOf | None = None
) -> Divergence | None:
    """Where the runs part; None where they never do.

    verdicts   In the order of computation.
    inputs_of  Which checkpoints a checkpoint is computed from. Names that this run has not are left out.
    """
    identical = {verdict.name: verdict.identical for verdict in verdicts}
    unshown = {verdict.name for verdict in verdicts if verdict.verdict == MISSING}
    first = next((verdict for verdict in verdicts if not verdict.identical), None)
    if first is None:
        return None
    inputs = None if inputs_of is None else tuple(n for n in inputs_of(first.name) if n in identical)
    return Divergence(
        verdict=first,
        words=in_words(first, truth),
        inputs=inputs,
        differing=tuple(name for name in inputs or () if not identical[name] and name not in unshown),
        unshown=tuple(name for name in inputs or () if name in unshown),
        before=list(identical).index(first.name),
    )


def first_mistake(verdicts: Sequence[Verdict], rounding: Rounding | None) -> Verdict | None:
    """The first checkpoint whose difference stays in float64."""
    if rounding is None:
        return None
    return next((v for v in verdicts if not v.identical and rounding.kind(v.name) == MISTAKE), None)


# ------------------------------------------------------------------------------ coordinates in words


def in_words(verdict: Verdict, truth: Capture) -> str:
    """Where a verdict's worst difference is: `block 3, head 7, query token 4 "rock", key token 1 "open"`."""
    if verdict.coordinate is None:
        return ""
    words = [*place(verdict.name, truth), *axes_in_words(verdict.name, verdict.coordinate, truth)]
    return ", ".join(words)


def place(name: str, truth: Capture) -> list[str]:
    """The part of the model in words: `block 3`; where it has two stacks of them, also which, and which
    attention."""
    number = block_of(name).rpartition(".")[2]
    if not number:
        return []
    architecture = ARCHITECTURES.get(truth.model_type)
    stack = architecture.stack_of(name) if architecture else None
    words = [f"{stack.side} block {number}" if stack and stack.side else f"block {number}"]
    return [*words, "cross-attention"] if architecture and architecture.crosses(name) else words


def axes_in_words(name: str, coordinate: Sequence[int], truth: Capture) -> list[str]:
    """Each axis of a coordinate in words; an axis of one element says nothing and is left out."""
    shape = truth.tensors[name].shape
    axes = axes_of(name, truth)
    if axes is None or len(axes) != len(shape):
        return [f"at {list(coordinate)}"]
    row = coordinate[axes.index("batch")] if "batch" in axes else None
    if row is None and len(truth.inputs.token_ids) == 1:
        row = 0
    words = []
    for axis, index, size in zip(axes, coordinate, shape, strict=True):
        if axis in ("token", "query", "key"):
            labels = token_labels(name, axis, truth, row, size)
            what = "token" if axis == "token" else f"{axis} token"
            words.append(" ".join([what, str(index), *([labels[index]] if labels[index] else [])]))
        elif axis == "batch":
            words += [f"text {index + 1} of {size}"] if size > 1 else []
        elif axis == "head":
            words.append(f"head {index}")
        elif axis == "vocabulary":
            words.append(f"score of id {index}")
        elif axis == "3 × width":
            width = size // 3
            words.append(f"{('query', 'key', 'value')[index // width]}, number {index % width} of {width}")
        elif size > 1:
            words.append(f"number {index} of {size}")
    return words


def axes_of(name: str, truth: Capture) -> list[str] | None:
    """The axes of a checkpoint: `["batch", "head", "query", "key"]`. None for a model without a rebuild."""
    checkpoint = truth.checkpoints.get(name)
    return checkpoint.shape.strip("[]").split(", ") if checkpoint else None


def token_labels(name: str, axis: str, truth: Capture, row: int | None, size: int) -> list[str]:
    """A label for every position along an axis of tokens: the token in quotes, `(padding)`, or `id 17`.

    Empty labels where a position holds another token in each row. In a decoding step the keys are all tokens
    so far, the queries the last of them.
    """
    if row is None:
        return [""] * size
    inputs, architecture = truth.inputs, ARCHITECTURES.get(truth.model_type)
    decoder = architecture is not None and architecture.counts_decoder(name, axis)
    if decoder and inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        labels = _labels(inputs.decoder_ids[row], inputs.decoder_mask[row], (), _tokens_of_ids(inputs))
        if len(labels) == inputs.decoder_ids.shape[1]:
            labels[0] += " (start)"
    else:
        tokens = inputs.tokens[row] if row < len(inputs.tokens) else ()
        labels = _labels(inputs.token_ids[row], inputs.mask[row], tokens, {})
    return labels[len(labels) - size :] if size <= len(labels) else [""] * size


def _labels(ids: Tensor, mask: Tensor, tokens: Sequence[str], token_of: Mapping[int, str]) -> list[str]:
    """One for each position of the mask, of which the last ones are those of `ids`."""
    labels, seen = [], 0
    first_new = len(mask) - len(ids)
    for at, real in enumerate(mask.tolist()):
        new_id = int(ids[at - first_new]) if at >= first_new else None
        if not real:
            labels.append("(padding)")
            continue
        if seen < len(tokens):
            labels.append(quoted(tokens[seen]))
        elif new_id is not None:
            labels.append(quoted(token_of[new_id]) if new_id in token_of else f"id {new_id}")
        else:
            labels.append("")
        seen += 1
    return labels


def _tokens_of_ids(inputs: Inputs) -> dict[int, str]:
    """What the ids of the texts stand for: the decoder often reads the same ones."""
    token_of: dict[int, str] = {}
    for ids, mask, tokens in zip(inputs.token_ids, inputs.mask, inputs.tokens, strict=False):
        token_of.update(zip(ids[mask.bool()].tolist(), tokens, strict=False))
    return token_of


def quoted(token: str) -> str:
    """A token in quotes, on one line and not too long."""
    visible = "".join(c if c.isprintable() else repr(c)[1:-1] for c in token)
    return f'"{visible}"' if len(visible) <= LONGEST_TOKEN else f'"{visible[: LONGEST_TOKEN - 1]}…"'
