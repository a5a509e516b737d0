"""The graph of an official run, read off its trace: of the course's models and of any other.

A trace says what made each tensor, what went into it and with which numbers. For the usual kinds of steps
(linear layers, norms, activations, products, sums, …) that is nearly the formula. What is missing, how heads
are cut or whom a mask hides, is tried; only a formula that gives the official tensor is kept. A step without
one is not diagnosed by computation, and everything else is said of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis import graph
from llm_rebuild.diagnosis.graph import DECODER_IDS, DECODER_MASK, MASK, PAST, TOKEN_IDS, Formula, World
from llm_rebuild.models import architecture_for, rebuild_for
from llm_rebuild.models.ops import ACTIVATIONS
from llm_rebuild.verify.any_model import Step
from llm_rebuild.verify.capture import Capture, steps_of
from llm_rebuild.verify.equality import by_rounding, identical

# Operations inside an RMS norm that is written out, and the kinds of steps that they are.
NORM_STEPS = {
    "pow": "square",
    "mean": "mean square",
    "add": "plus eps",
    "rsqrt": "inverse root",
    "mul": "multiply",
}
# Operations inside an activation that is written out.
BENDING = {"pow": torch.pow, "mul": torch.mul, "add": torch.add, "tanh": torch.tanh, "div": torch.div}
DISTANCE = 128  # from which on all share a bucket, where config.json has no number of that name

Guess = list[Formula]  # of one step, with the steps in between that it needs, itself last


def world_of(truth: Capture, copy: LocalCopy, prompt: Capture | None = None) -> World:
    """The graph of a captured run with its official tensors in it, as far as its formulas could be found.

    prompt  The capture of the pass before, where this one goes on from its keys and values.
    """
    architecture, steps = architecture_for(copy.config), steps_of(truth, copy, prompt)
    weights = copy.weights(truth.dtype)
    weights = weights if architecture is None else rebuild_for(copy.config).renamed(weights)
    facts: dict[str, graph.Value] = {
        TOKEN_IDS: truth.inputs.token_ids,
        MASK: truth.inputs.mask,
        DECODER_IDS: truth.inputs.decoder_ids,
        DECODER_MASK: truth.inputs.decoder_mask,
        **truth.tensors,
    }
    if prompt is not None:
        facts |= {f"{PAST}{name}": tensor for name, tensor in prompt.tensors.items()}
    if architecture is None:
        blocks = _blocks(truth.tensors)
    else:
        output = architecture.block_output
        blocks = {name: number for name in steps if (number := output(name)) is not None}
    run = graph.Run(truth.attention == "sdpa", _sizes(copy.config), blocks)
    return _Reader(steps, truth.tensors, World({}, facts, weights.peek(), run), copy.config).world()


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """The whole numbers of a config.json that may be a size."""
    return {k: n for k, n in config.items() if isinstance(n, int) and n > 1 and not k.endswith("_id")}


def _numbers(config: Mapping[str, Any]) -> Iterator[float]:
    """The numbers of a config.json, and of what is inside it."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float) and value > 1:
            yield float(value)


def _blocks(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What blocks hand on: a block is a module whose name is a number. What goes into the first is the last
    tensor of that shape before it."""
    blocks = {name: int(last) for name in tensors if (last := name.rpartition(".")[2]).isdigit()}
    first = next(iter(blocks), "")
    for name, tensor in tensors.items():
        if any(word.isdigit() for word in name.split(".")):
            break
        if first and tensor.shape == tensors[first].shape:
            blocks = {n: b for n, b in blocks.items() if b >= 0} | {name: -1}
    return blocks


class _Reader:
    """Finds the formulas of a run, step by step."""

    def __init__(
        self,
        steps: Mapping[str, Step],
        tensors: Mapping[str, Tensor],
        world: World,
        config: Mapping[str, Any],
    ) -> None:
        self.steps, self.tensors, self.start, self.config = steps, tensors, world, config
        self.found: dict[str, Formula] = {}

    def world(self) -> World:
        """The graph with all that was found in it."""
        for name, step in self.steps.items():
            if name in self.tensors:
                right = (guess for guess in self.guesses(name, step) if self.right(guess, step))
                for formula in next(right, [Formula(name, "given")]):
                    self.found[formula.name] = formula
        return replace(self.start, formulas={f.name: self.with_use(f) for f in self.found.values()})

    def right(self, guess: Guess, step: Step) -> bool:
        """Whether a guess gives the official tensor; where several steps are one kernel, but for rounding."""
        world = replace(self.start, formulas={**self.found, **{f.name: f for f in guess}})
        value, official = world.attempt(guess[-1]), self.tensor(guess[-1].name)
        return value is not None and (by_rounding if step.kind == "sdpa" else identical)(value, official)

    def tensor(self, name: str) -> Tensor:
        """A tensor that is official, of this run or of the one before."""
        return self.start[name]

    def with_use(self, formula: Formula) -> Formula:
        """What a step is to those that use it."""
        users = [f for f in self.found.values() if formula.name in f.inputs]
        facts: dict[str, Any] = {}
        if formula.kind == "product" and not any(f.kind == "scale" for f in users):
            facts["unscaled"] = True
        if formula.kind == "scale" and any(f.facts.get("head") for f in users):
            facts["output"] = True
        norm = next((f.name for f in users if f.kind == "layer norm"), None)
        if "residual" in formula.facts and norm is not None:
            facts["norm"] = norm
        return replace(formula, facts={**formula.facts, **facts}) if facts else formula

    def guesses(self, name: str, step: Step) -> Iterator[Guess]:
        """What the step may be, the likelier first."""
        module, kind = step.kind[0].isupper(), step.kind
        inputs = tuple(step.arguments or step.inputs) if module else tuple(step.inputs)
        if not all(x in self.tensors for x in inputs):  # of a narrowed capture
            return
        shape = self.tensor(name).shape
        if step.same_as is not None and self.tensor(step.same_as).shape == shape:
            yield from self.masked_by_none(name, step)
            yield [Formula(name, "same", (step.same_as,))]
            return
        if "embedding" in kind.lower():
            yield from self.embedding(name, inputs, step)
        elif kind in ("Linear", "Conv1D"):
            yield from self.linear(name, kind, inputs)
        elif "Norm" in kind and self.key(name, "weight"):
            yield from self.norm(name, step, inputs)
        elif kind in NORM_STEPS and inputs and "norm" in step.path.lower():  # Gemma adds 1 to a weight
            yield from self.inside_norm(name, step)
        elif kind in BENDING and self.bends(step.path):
            yield from self.inside_activation(name, step)
        elif kind == "where" and len(shape) == 4:
            yield from self.mask(name, step)
        elif len(inputs) == 1 and (module or kind in ACTIVATIONS):
            yield from self.activation(name, step, inputs[0])
        elif kind in ("matmul", "bmm"):
            yield from self.product(name, step)
        elif kind == "sdpa" and step.same_as is None:
            yield from self.fused(name, step)
        elif kind == "cat" and len(shape) == 4:
            yield from self.kept(name, step)
        elif kind == "softmax" and len(inputs) == 1:
            yield [Formula(name, "softmax", inputs)]
        elif kind in ("mul", "div") and len(inputs) == 1 and step.numbers:
            by = step.numbers[0] if kind == "mul" else 1 / step.numbers[0]
            wave = {"wave": True} if "rotary" in step.path.lower() else {}
            yield [Formula(name, "scale", inputs, facts={"by": by, **wave})]
        yield from self.turning(name, step)
        yield from self.moved(name, step)
        yield from self.pooled(name, step)
        yield from self.added(name, step)

    # ------------------------------------------------------------------------------- tables and rows

    def embedding(self, name: str, inputs: tuple[str, ...], step: Step) -> Iterator[Guess]:
        """Rows of a table; or what a module of its own hands on, perhaps after a factor."""
        key, shape = self.key(name, "weight"), self.tensor(name).shape
        tables = [k for k, w in self.start.weights.items() if w.dim() == 2 and w.shape[1] == shape[-1]]
        for table in [key] if key else sorted(tables, key=lambda k: -len(self.start.weights[k])):
            guesses = [*self.lookups(name, table)]
            yield from sorted(guesses, key=lambda guess: guess[-1].facts["what"] not in name)
        for x in inputs[:1]:
            yield [Formula(name, "same", (x,))]
            for by in step.numbers:
                yield [Formula(name, "scale", (x,), facts={"by": by, "embedding": True})]

    def lookups(self, name: str, key: str) -> Iterator[Guess]:
        """What may say which rows: the tokens, their places, their types, the distances between them."""
        texts = ((TOKEN_IDS, MASK), (DECODER_IDS, DECODER_MASK))
        for ids, mask in reversed(texts) if self.decodes(name) else texts:
            yield [Formula(name, "lookup", (ids,), (key,), {"what": "token"})]
            for kind, inputs in (("positions", (ids, mask)), ("counted", (mask,))):
                for first in (0, 1, 2):
                    places = Formula(f"{name}.#positions", kind, inputs, facts={"first": first})
                    yield [places, Formula(name, "lookup", (places.name,), (key,), {"what": "position"})]
            types = Formula(f"{name}.#types", "types", (ids,))
            yield [types, Formula(name, "lookup", (types.name,), (key,), {"what": "type"})]
            limits = [n for word, n in self.start.run.sizes.items() if "distance" in word] or [DISTANCE]
            for both_ways in (ids == TOKEN_IDS, ids != TOKEN_IDS):
                facts = {"both_ways": both_ways, "count": len(self.start.weights[key]), "limit": limits[0]}
                buckets = Formula(f"{name}.#buckets", "buckets", (ids, mask), facts=facts)
                yield [buckets, Formula(name, "lookup", (buckets.name,), (key,), {"what": "bucket"})]

    def key(self, path: str, word: str) -> str:
        """The key of a module's weight. A file saved without its head lacks the first word of the path."""
        words = path.split(".")
        keys = (".".join([*words[start:], word]) for start in range(len(words)))
        return next((key for key in keys if key in self.start.weights), "")

    # ------------------------------------------------------------------- linear layers, norms, bends

    def linear(self, name: str, kind: str, inputs: tuple[str, ...]) -> Iterator[Guess]:
        """A linear layer; without a weight of its own it is tied to a table."""
        weight, bias = self.key(name, "weight"), self.key(name, "bias")
        group, tensor = f"{name.rpartition('.')[0]}.", self.tensor(name)
        others = [f for f in self.found.values() if f.facts.get("group") == group and f.kind == "linear"]
        head = not weight or name.endswith(("head", "embed_out"))
        facts: dict[str, Any] = {"head": True} if head else {"group": group}
        tables = [k for k, w in self.start.weights.items() if w.dim() == 2 and len(w) == tensor.shape[-1]]
        for x in inputs:
            before: Guess = []
            if others and x not in others[0].inputs and part_of(x) != part_of(name):
                facts = {**facts, "cross": x}  # not from where its neighbours are: from another text
            if self.tensor(x).dim() == 4:
                before, x = [Formula(f"{name}.#context", "merge", (x,))], f"{name}.#context"
            elif self.tensor(x).dim() > tensor.dim():
                before, x = [Formula(f"{name}.#first", "first token", (x,))], f"{name}.#first"
            for key in [weight] if weight else tables:
                used = (key, bias) if bias else (key,)
                yield [*before, Formula(name, kind.lower(), (x,), used, facts)]

    def norm(self, name: str, step: Step, inputs: tuple[str, ...]) -> Iterator[Guess]:
        """A LayerNorm; or the last step of an RMS norm."""
        weight, bias = self.key(name, "weight"), self.key(name, "bias")
        for x in inputs if bias else ():
            for eps in step.numbers[-1:]:
                yield [Formula(name, "layer norm", (x,), (weight, bias), {"eps": eps})]
        whole = next((x for x in (f"{name}.#heads", *inputs) if x in self.found), "")
        facts = {"whole": whole, "norm": name, "eps": self.epsilon(step.path)}
        for x in step.inputs:
            yield [Formula(name, "stretch", (x,), (weight,), facts)]

    def epsilon(self, path: str) -> float:
        """What a norm that is written out adds under the root."""
        steps = (s for s in self.steps.values() if s.path == path and s.kind == "add")
        return next((step.numbers[0] for step in steps if step.numbers), 0.0)

    def inside_norm(self, name: str, step: Step) -> Iterator[Guess]:
        """A step of an RMS norm, of the whole width or of each head."""
        kind, x, eps = NORM_STEPS[step.kind], step.inputs[0], self.epsilon(step.path)
        into = self.steps[step.path].arguments if step.path in self.steps else ()
        whole = next((name for name in (f"{step.path}.#heads", *into) if name in self.found), x)
        facts = {"whole": whole, "norm": step.path, "eps": eps}
        yield [Formula(name, kind, tuple(step.inputs), facts=facts)]
        shape = self.tensor(name).shape
        if self.tensor(x).dim() == 3 and len(shape) == 4:
            cut = Formula(f"{step.path}.#heads", "by head", (x,), facts={"heads": shape[2]})
            inputs = (cut.name, *step.inputs[1:])
            yield [cut, Formula(name, kind, inputs, facts={**facts, "whole": cut.name})]

    def bends(self, path: str) -> bool:
        """Whether a module is an activation."""
        return path in self.steps and "Activation" in self.steps[path].kind

    def inside_activation(self, name: str, step: Step) -> Iterator[Guess]:
        """A step of an activation that is written out."""
        for whole in self.steps[step.path].arguments[:1]:
            facts = {
                "of": partial(_bent, BENDING[step.kind], step.numbers),
                "step": step.kind,
                "whole": whole,
            }
            yield [Formula(name, "elementwise", tuple(step.inputs), facts=facts)]

    def activation(self, name: str, step: Step, x: str) -> Iterator[Guess]:
        """An activation: its own operation, or the last of its steps."""
        for activation in ACTIVATIONS:
            whole = Formula(name, "act", (x,), facts={"name": activation, "whole": x})
            if len(step.inputs) == 2 and self.right([whole], step):
                facts = {**whole.facts, "of": torch.mul}
                yield [Formula(name, "elementwise", tuple(step.inputs), facts=facts)]
            yield [whole]

    # --------------------------------------------------------------------------------- attention

    def cut(self, path: str, role: str, x: str, heads: int) -> Iterator[tuple[Guess, str]]:
        """A tensor as [batch, head, token, head width]: as it is, or cut, or a third of it cut. `x` may be of
        the pass before."""
        tensor, at = self.tensor(x), ("query", "key", "value").index(role)
        if tensor.dim() == 4:
            cached = x.removeprefix(PAST)
            yield ([Formula(cached, "same", (x,))], cached) if cached != x else ([], x)
        facts: dict[str, Any] = {"heads": heads, "group": f"{path}.#", "name": role}
        thirds = tensor.dim() == 3 and tensor.shape[-1] % (3 * heads) == 0
        for third in ({}, {"part": at}) if thirds else ({},):
            for whole in ({}, {"whole": True}) if at else ({},):  # on some processors it tells in the bits
                cut = Formula(f"{path}.#{role}", "split", (x,), facts={**facts, **third, **whole})
                yield [cut], cut.name

    def past(self, path: str) -> list[str]:
        """What an attention kept of the pass before."""
        parts = (f"{PAST}{path}.{role}{s}" for role in ("key", "value") for s in ("", "s"))
        return [name for name in parts if name in self.start.tensors]

    def product(self, name: str, step: Step) -> Iterator[Guess]:
        """Query times key, or shares times value; the second may be shared by several heads."""
        shape, path = self.tensor(name).shape, step.path
        if len(shape) != 4 or not step.inputs:
            return
        (a, *others), heads = step.inputs, shape[1]
        for b in others or [*self.past(path), a]:
            for before, query in self.cut(path, "query", a, heads):
                for kind, role in (("product", "key"), ("mix", "value")):
                    for cuts, x in self.shared(f"{name}.#shared", path, role, b, heads):
                        yield [*before, *cuts, Formula(name, kind, (query, x))]

    def shared(self, name: str, path: str, role: str, x: str, heads: int) -> Iterator[tuple[Guess, str]]:
        """Keys or values as so many heads: cut, and where there are fewer, each repeated."""
        tensor = self.tensor(x)
        for count in [tensor.shape[1]] if tensor.dim() == 4 else range(heads, 0, -1):
            if heads % count or (tensor.dim() == 3 and tensor.shape[-1] % count):
                continue
            for cuts, one in self.cut(path, role, x, count):
                if count == heads:
                    yield cuts, one
                else:
                    repeated = Formula(name, "repeat", (one,), facts={"times": heads // count})
                    yield [*cuts, repeated], name

    def kept(self, name: str, step: Step) -> Iterator[Guess]:
        """Keys or values behind those of the pass before."""
        role = name.rpartition(".")[2].removesuffix("s")
        for x in step.inputs if role in ("key", "value") else ():
            for cuts, new in self.cut(step.path, role, x, self.tensor(name).shape[1]):
                yield [*cuts, Formula(name, "cat", (f"{PAST}{name}", new), facts={"name": role})]

    def fused(self, name: str, step: Step) -> Iterator[Guess]:
        """Attention in one kernel: its steps, none of which is shown."""
        path, shape, kinds = step.path, self.tensor(name).shape, {x: self.found[x].kind for x in step.inputs}
        heads, tables = shape[1], [x for x in step.inputs if kinds[x] == "lookup"]
        parts = [x for x in step.inputs if kinds[x] not in ("lookup", "mask", "biased mask")]
        a, *others = parts if len(parts) > 1 else [*parts, *(self.past(path) or 2 * parts)]
        by = next((number for number in step.numbers[::-1] if number > 0), shape[-1] ** -0.5)
        product, scaled, scores, probs = (f"{path}.{n}" for n in ("product", "scaled", "scores", "probs"))
        if len(others) != 2:
            return
        for queries, query in self.asking(path, a, heads):
            for keys, key in self.shared(f"{path}.#keys", path, "key", others[0], heads):
                for values, value in self.shared(f"{path}.#values", path, "value", others[1], heads):
                    steps = [*queries, *keys, *values, Formula(product, "product", (query, key))]
                    if by != 1.0:
                        steps.append(Formula(scaled, "scale", (product,), facts={"by": by}))
                    ends = [Formula(probs, "softmax", (scores,)), Formula(name, "mix", (probs, value))]
                    for before, kind, mask in self.hidden(path, tables, heads):
                        yield [*steps, *before, Formula(scores, kind, (steps[-1].name, mask)), *ends]

    def asking(self, path: str, x: str, heads: int) -> Iterator[tuple[Guess, str]]:
        """Queries as a kernel takes them: one new token's heads may stand as the tokens of the head of keys
        that they share."""
        yield from self.cut(path, "query", x, heads)
        if self.tensor(x).dim() == 4 and self.tensor(x).shape[1] > heads:
            yield [Formula(f"{path}.#grouped", "grouped", (x,), facts={"heads": heads})], f"{path}.#grouped"

    def hidden(self, path: str, tables: list[str], heads: int) -> Iterator[tuple[Guess, str, str]]:
        """What a kernel is given beside queries, keys and values: a mask that is a checkpoint, one that is
        none, or the bias of places with a mask in it; what makes it, and how it is added."""
        for name, formula in self.found.items():
            if formula.kind in ("mask", "biased mask"):
                yield [], "add mask" if formula.kind == "mask" else "add", name
        for mask in self.masks(f"{path}.#mask"):
            yield [mask], "add mask", mask.name
            for bias in self.biases(path, tables, heads):
                both = Formula(f"{path}.#biased_mask", "biased mask", (bias.name, mask.name))
                yield [bias, mask, both], "add", both.name

    def masks(self, name: str) -> Iterator[Formula]:
        """Whom a mask may hide: in a decoder first what comes later, then padding of the other text."""
        for causal in (True, False) if not self.decodes(name) else ():
            yield Formula(name, "mask", (MASK, TOKEN_IDS), facts={"causal": causal})
        if self.decodes(name):
            yield Formula(name, "mask", (DECODER_MASK, DECODER_IDS), facts={"causal": True})
            yield Formula(name, "mask", (MASK, DECODER_IDS), facts={"causal": False, "cross": True})

    def decodes(self, name: str) -> bool:
        """Whether a step is of a decoder beside an encoder."""
        return self.start.tensors[DECODER_IDS] is not None and "decoder" in name.lower()

    def mask(self, name: str, step: Step) -> Iterator[Guess]:
        """A mask; for a fused kernel one with the bias of places in it."""
        yield from ([mask] for mask in self.masks(name))
        for before in self.biases(name, step.inputs, self.tensor(name).shape[1]):
            for mask in self.masks(f"{name}.#mask"):
                yield [before, mask, Formula(name, "biased mask", (before.name, mask.name))]

    def biases(self, name: str, tables: Iterable[str], heads: int) -> Iterator[Formula]:
        """What may be added to scores by the distance of two tokens: a table's numbers, or nothing."""
        yield from (Formula(f"{table}.#bias", "bias by head", (table,)) for table in tables)
        yield Formula(f"{name}.#no_bias", "no bias", (DECODER_IDS, MASK), facts={"heads": heads})

    def masked_by_none(self, name: str, step: Step) -> Iterator[Guess]:
        """Scores to which a mask that hides nothing is not even added."""
        if any(s.kind == "softmax" and name in s.inputs for s in self.steps.values()):
            for mask in self.masks(f"{step.path}.#mask"):
                yield [mask, Formula(name, "add mask", (str(step.same_as), mask.name))]

    def hiding(self, names: Iterable[str]) -> list[str]:
        """The masks among some tensors."""
        return [n for n in names if self.tensor(n).dim() == 4 and float(self.tensor(n).min()) < -1e3]

    # ----------------------------------------------------------------------------- sums and the rest

    def moved(self, name: str, step: Step) -> Iterator[Guess]:
        """Heads side by side again."""
        tensor, parts = self.tensor(name), [x for x in step.inputs if x in self.tensors]
        if len(parts) == 1 and tensor.dim() == 3 and self.tensor(parts[0]).dim() == 4:
            yield [Formula(name, "merge", (parts[0],))]
            yield [Formula(name, "by token", (parts[0],))]

    def pooled(self, name: str, step: Step) -> Iterator[Guess]:
        """From tokens' vectors to one: padding set to 0, the sum, the count, the mean, its length."""
        shape, real, x = self.tensor(name).shape, f"{step.path}.#real", tuple(step.inputs)
        if step.kind == "mul" and len(x) == 1 and len(shape) == 3:
            yield [Formula(real, "real", (*x, MASK)), Formula(name, "masked", (*x, real))]
        elif step.kind == "sum" and len(x) == 1:
            yield [Formula(name, "total", x)]
        elif step.kind == "clamp" and real in self.found:
            yield [Formula(name, "count", (real,))]
        elif step.kind == "div":
            yield [Formula(name, "divide" if len(x) == 2 else "unit", x)]

    def added(self, name: str, step: Step) -> Iterator[Guess]:
        """Two tensors, or one and what is no checkpoint: a mask, a bias, a residual, any sum or product."""
        parts, shape = tuple(x for x in step.inputs if x in self.tensors), self.tensor(name).shape
        if len(parts) < len(step.inputs) or not parts:
            return
        if step.kind == "add" and len(shape) == 4:
            for bias in self.biases(name, parts[1:], shape[1]):
                yield [bias, Formula(name, "add bias", (parts[0], bias.name))]
        if len(parts) != 2:
            return
        if step.kind == "add" and len(shape) == 4:
            yield from self.rotation(name, step)
        for mask in self.hiding(parts):
            yield [Formula(name, "add mask", (next(x for x in parts if x != mask), mask))]
        residual = min(parts, key=list(self.tensors).index)
        in_a_block = any(word.isdigit() for word in name.split(".")) and len(shape) == 3
        yield [Formula(name, "add", parts, facts={"residual": residual} if in_a_block else {})]
        yield [Formula(name, "multiply", parts)]

    def rotation(self, name: str, step: Step) -> Iterator[Guess]:
        """x · cos + (x with its halves exchanged) · sin: two products with a table each."""
        steps = self.steps
        products = [
            steps[i].inputs for i in step.inputs if steps[i].kind == "mul" and len(steps[i].inputs) == 2
        ]
        if len(products) == 2:
            (x, cos), (_, sin) = products
            for cuts, cut in self.turned(step.path, x, self.tensor(name).shape[1]):
                yield [*cuts, Formula(name, "rotate", (cut, cos, sin))]

    def turned(self, path: str, x: str, heads: int) -> Iterator[tuple[Guess, str]]:
        """A query or a key as heads, before it is turned: the query comes first."""
        query = self.found.get(f"{path}.#query")
        yield from self.cut(path, "query" if query is None or query.inputs == (x,) else "key", x, heads)

    def speeds(self, name: str) -> Iterator[dict[str, Any]]:
        """How far pairs may turn: by a base, or, where its powers were scaled, as place 1 tells."""
        start = self.tensor(f"{PAST}{name}" if f"{PAST}{name}" in self.start.tensors else name)
        width = 2 * start.shape[-1]
        for base in (*_numbers(self.config), *graph.BASES):
            yield {"base": base, "width": width, "speeds": graph.speeds_of(base, width)}
        yield {"width": width, "speeds": start[0, min(1, start.shape[1] - 1)]}

    def turning(self, name: str, step: Step) -> Iterator[Guess]:
        """Rotary positions, step by step: the angles, their waves, and a head's numbers by these."""
        kind, inputs, shape = step.kind, tuple(step.inputs), self.tensor(name).shape
        if "rotary" in step.path.lower():
            for facts in self.speeds(name) if kind == "mul" and not inputs else ():
                yield [Formula(name, "turns", (TOKEN_IDS, MASK), facts=facts)]
            if kind == "cat" and len(inputs) == 1:
                yield [Formula(name, "twice", inputs)]
            if kind in ("cos", "sin") and len(inputs) == 1:
                yield [Formula(name, "wave", inputs, facts={"wave": kind})]
            yield from ([Formula(name, "same", (x,))] for x, f in self.found.items() if f.kind == "wave")
        elif len(shape) == 4 and kind in ("neg", "cat", "mul") and inputs:
            minus = kind == "cat" and self.found[inputs[0]].kind == "minus"
            for cuts, x in self.turned(step.path, inputs[minus], shape[1]) if len(inputs) > minus else ():
                if kind == "neg":
                    yield [*cuts, Formula(name, "minus", (x,))]
                if minus:
                    yield [*cuts, Formula(name, "swapped", (inputs[0], x))]
                if kind == "mul" and len(inputs) == 2 and self.tensor(inputs[1]).dim() == 3:
                    yield [*cuts, Formula(name, "by wave", (x, inputs[1]))]


def _bent(function: Any, numbers: tuple[float, ...], *x: Tensor) -> Tensor:
    """A step of an activation: of tensors, and of the plain numbers behind them. LookupError where a weight
    goes in, too, which is no input of the step."""
    try:
        bent: Tensor = function(*x, *numbers)
    except TypeError as error:
        raise LookupError(str(error)) from None
    return bent
