"""Mistakes between query and context: product, scale, bias, softmax, and the mixing of values."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, Value, World
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries
from llm_rebuild.diagnosis.hypotheses.embeddings import buckets


def product(world: World, f: Formula) -> Tries:
    query, key = f.inputs
    path = f.name.rpartition(".")[0]
    value = heads_of(world, path, "value")
    width = world[query].shape[-1]

    yield "query-key-swapped", "key times query", lambda w: w[key] @ w[query].transpose(-1, -2)
    for says, by in (
        (f"times 1/√{width}", width**-0.5),
        (f"divided by {width}", 1 / width),
    ):

        def product_scaled(w: World, by: float = by) -> Tensor:
            return (w[query] @ w[key].transpose(-1, -2)) * by

        def query_scaled(w: World, by: float = by) -> Tensor:
            return (w[query] * by) @ w[key].transpose(-1, -2)

        def key_scaled(w: World, by: float = by) -> Tensor:
            return w[query] @ (w[key] * by).transpose(-1, -2)

        scaled = f"{path}.scaled"
        for what, make in (("product", product_scaled), ("query", query_scaled), ("key", key_scaled)):
            if scaled in world.formulas and scaled in world.known:  # only here
                yield "scale-order", f"the {what} {says}", {f.name: make, scaled: lambda w: w[f.name]}
            yield "scale-extra", f"the {what} {says}", make
    yield "wrong-operand", "query times query", lambda w: w[query] @ w[query].transpose(-1, -2)
    yield "wrong-operand", "key times key", lambda w: w[key] @ w[key].transpose(-1, -2)
    yield "wrong-operand", "query times value", lambda w: w[query] @ w[value].transpose(-1, -2)
    yield "wrong-operand", "value times key", lambda w: w[value] @ w[key].transpose(-1, -2)

    def lengths(w: World) -> Tensor:
        return F.normalize(w[query], dim=-1) @ F.normalize(w[key], dim=-1).transpose(-1, -2)

    yield "scale-extra", "query and key were brought to length 1", lengths
    if world[query].shape[-2] == world[query].shape[-1]:
        yield "wrong-operand", "the key not transposed", lambda w: w[query] @ w[key]
    yield (
        "wrong-operand",
        "the key reshaped instead of transposed",
        lambda w: w[query] @ w[key].reshape(*w[key].shape[:2], w[key].shape[3], w[key].shape[2]),
    )


def heads_of(world: World, path: str, name: str) -> str:
    """The step that holds all keys or values of an attention by head, those of a cache included."""
    kept = world.formulas.get(f"{path}.{name}")
    return kept.name if kept is not None and kept.kind in ("same", "cat") else f"{path}.#{name}"


def scale(world: World, f: Formula) -> Tries:
    of, by = f.inputs[0], f.facts["by"]
    width = round(by**-2) if by and by != 1 else 0
    output = f.facts.get("output")
    missing, wrong = (
        ("output-scale-missing", "output-scale-wrong") if output else ("scale-missing", "scale-wrong")
    )
    yield missing, "went on as it was", lambda w: w[of]
    yield "rounding", f"divided by √{width}", lambda w: w[of] / math.sqrt(width or 1)
    yield "rounding", f"divided by √{width}", lambda w: w[of] / by**-1
    factors = {
        f"divided by {width}": 1 / max(width, 1),
        f"times √{width}": width**0.5,
        f"times {width}": width,
    }
    for attribute in ("n_embd", "hidden_size", "d_model", "d_kv"):
        total = getattr(world.config, attribute, 0)
        if total and total != width:
            factors |= {f"divided by √{total} ({attribute})": total**-0.5, f"divided by {total}": 1 / total}
    for attribute in ("n_head", "num_attention_heads", "num_heads"):
        heads = getattr(world.config, attribute, 0)
        if heads:
            factors |= {f"divided by √{heads}, the number of heads": heads**-0.5}
    if world[of].dim() == 4:
        keys = world[of].shape[-1]
        factors |= {f"divided by √{keys}, the number of keys": keys**-0.5}
    for says, factor in factors.items():
        if factor != by:
            yield wrong, says, lambda w, x=factor: w[of] * x  # type: ignore[misc]
    twice = wrong if output else "scale-extra"
    yield twice, "twice", lambda w: w[of] * by * by
    mask = f"{f.name.rpartition('.')[0]}.scores"
    if mask in world.formulas and not output:
        hidden = world.formulas[mask].inputs[1]

        def masked_first(w: World, by: float = by) -> Value:
            hides = w.value(hidden)
            return None if hides is None else (w[of] + hides) * by

        yield "scale-order", "the mask was added before, and scaled as well", masked_first
        yield "scale-order", "the mask was added first", lambda w: masked_first(w, 1.0)


def add_bias(world: World, f: Formula) -> Tries:
    product, bias = f.inputs
    path = f.name.rpartition(".")[0]
    width = world[f"{path}.#query"].shape[-1]
    side = f.name.partition(".")[0]
    if world.formulas[bias].kind == "no bias":
        for own in ("decoder.#bias", "encoder.#bias"):
            if own in world.formulas:
                says = f"that of the {own.partition('.')[0]}'s self-attention"
                yield "position-bias-extra", says, lambda w, own=own: w[product] + w[own]  # type: ignore[misc]

        def mixed(w: World) -> Tensor:
            table = w.weights[table_of(side)]
            query, key = w[product].shape[-2:]
            apart = torch.arange(key) - torch.arange(query)[:, None]
            config = w.config
            both = buckets(
                apart, True, config.relative_attention_num_buckets, config.relative_attention_max_distance
            )
            return w[product] + F.embedding(both, table).permute(2, 0, 1).unsqueeze(0)

        yield "position-bias-extra", "distances between answer and text", mixed
    else:
        yield "position-bias-missing", "the product alone", lambda w: w[product]
        if f"{path}.scores" in world.formulas:
            hidden = world.formulas[f"{path}.scores"].inputs[1]
            yield "scale-order", "the mask was added before the bias", lambda w: w[product] + w[hidden]
        yield (
            "position-bias-wrong",
            "query and key exchanged in the bias",
            lambda w: w[product] + w[bias].transpose(-1, -2),
        )
        yield "position-bias-wrong", "the bias subtracted", lambda w: w[product] - w[bias]
        yield "position-bias-wrong", "the bias twice", lambda w: w[product] + 2 * w[bias]
        yield "position-bias-wrong", "multiplied by the bias", lambda w: w[product] * w[bias]
        yield "position-bias-wrong", "multiplied by 1 + the bias", lambda w: w[product] * (1 + w[bias])
        yield "position-bias-wrong", "the heads in reverse", lambda w: w[product] + w[bias].flip(1)
        yield (
            "position-bias-wrong",
            "the bias of the first head for all",
            lambda w: w[product] + w[bias][:, :1],
        )
        yield (
            "position-bias-wrong",
            "the mean over the heads",
            lambda w: w[product] + w[bias].mean(1, keepdim=True),
        )

        def moved(w: World) -> Tensor:
            table = w[world.formulas[bias].inputs[0]]
            heads = table.shape[-1]
            return w[product] + table.reshape(1, heads, *table.shape[:2])

        yield "position-bias-wrong", "brought into shape by a reshape, which mixes its axes", moved
        other = "encoder" if side == "decoder" else "decoder"

        def of_the_other(w: World) -> Tensor:
            table = world.formulas[world.formulas[bias].inputs[0]]
            numbers = w[table.inputs[0]]
            return w[product] + F.embedding(numbers, w.weights[table_of(other)]).permute(2, 0, 1).unsqueeze(0)

        if table_of(other) in world.weights:
            yield "position-bias-wrong", f"from the table of the {other}", of_the_other
    for says, by in ((f"1/√{width}", width**-0.5), (f"1/{width}", 1 / width), (f"√{width}", width**0.5)):
        yield "scale-extra", f"times {says} before the bias", lambda w, by=by: w[product] * by + w[bias]  # type: ignore[misc]
        yield "scale-extra", f"times {says} after the bias", lambda w, by=by: (w[product] + w[bias]) * by  # type: ignore[misc]


def table_of(side: str) -> str:
    return f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def softmax(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    before = world.formulas[of]
    x, mask = before.inputs if len(before.inputs) == 2 else (of, "")

    def hides(w: World) -> Tensor:
        hidden = w.value(mask) if mask else None
        return torch.zeros(1, 1, 1, 1, dtype=torch.bool) if hidden is None else hidden < -1

    for axis, says in ((-2, "over the queries"), (1, "over the heads"), (0, "over the batch")):
        yield "softmax-axis", says, lambda w, axis=axis: F.softmax(w[of], axis)  # type: ignore[misc]
    yield (
        "softmax-axis",
        "over queries and keys together",
        lambda w: F.softmax(w[of].flatten(-2), -1).view(w[of].shape),
    )
    yield "softmax-missing", "the scores went on as they were", lambda w: w[of]
    yield "mask-missing", "of the scores before the mask", lambda w: F.softmax(w[x], -1)
    for says, after in after_softmax(x, hides):
        yield "mask-after-softmax", says, after
    yield (
        "mask-after-softmax",
        "the mask added to the shares",
        lambda w: F.softmax(w[x], -1) + w[mask],
    )
    yield "softmax-changed", "its logarithm", lambda w: F.log_softmax(w[of], -1)
    yield "softmax-changed", "a sigmoid", lambda w: torch.sigmoid(w[of])
    yield "softmax-changed", "of the negative scores", lambda w: F.softmax(-w[of], -1)
    yield "softmax-changed", "the exponentials, not divided by their sum", lambda w: w[of].exp()
    yield (
        "softmax-changed",
        "the exponentials less the largest, not divided by their sum",
        lambda w: (w[of] - w[of].amax(-1, keepdim=True)).exp(),
    )
    yield "softmax-changed", "applied twice", lambda w: F.softmax(F.softmax(w[of], -1), -1)
    yield "softmax-changed", "to base 2", lambda w: F.softmax(w[of] * math.log(2), -1)
    yield (
        "softmax-changed",
        "divided by the length instead of the sum",
        lambda w: F.normalize(F.softmax(w[of], -1), dim=-1),
    )
    yield (
        "softmax-changed",
        "with one more in the sum",
        lambda w: w[of].exp() / (1 + w[of].exp().sum(-1, keepdim=True)),
    )
    yield (
        "softmax-changed",
        "scores divided by their sum",
        lambda w: w[of] / w[of].sum(-1, keepdim=True),
    )
    yield (
        "softmax-changed",
        "the largest score alone",
        lambda w: F.one_hot(w[of].argmax(-1), w[of].shape[-1]).float(),
    )
    width = next(
        (world[n].shape[-1] for n in (f"{f.name.rpartition('.')[0]}.#query",) if n in world.formulas), 1
    )
    for by, says in ((0.5, "÷ 2"), (2.0, "× 2"), (width**-0.5, f"÷ √{width}")):
        yield (
            "softmax-changed" if by in (0.5, 2.0) else "scale-extra",
            f"of the scores {says}",
            lambda w, by=by: F.softmax(w[of] * by, -1),  # type: ignore[misc]
        )
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")
        yield (
            "wrong-dtype",
            f"computed in {short}",
            lambda w, t=narrow: F.softmax(w[of].to(t), -1).float(),  # type: ignore[misc]
        )
    yield "rounding", "in float64, then rounded", lambda w: F.softmax(w[of].double(), -1).float()


def after_softmax(of: str, hides: Callable[[World], Tensor]) -> tuple[tuple[str, Make], ...]:
    def alone(w: World) -> Tensor:
        return F.softmax(w[of], -1) * (~hides(w)).float()

    def again(w: World) -> Tensor:
        kept = alone(w)
        return kept / kept.sum(-1, keepdim=True)

    return (
        ("shares of hidden tokens set to 0 afterwards", alone),
        ("shares of hidden tokens set to 0 afterwards, the others raised to sum to 1", again),
    )


def mix(world: World, f: Formula) -> Tries:
    probs, value = f.inputs
    path = f.name.rpartition(".")[0]
    key, query = heads_of(world, path, "key"), f"{path}.#query"
    scores = f"{path}.scores"
    yield "wrong-operand", "the shares transposed", lambda w: w[probs].transpose(-1, -2) @ w[value]
    for other in (key, query):
        says = f"the {other.rpartition('.')[2].strip('#')} instead of the value"
        yield "wrong-operand", says, lambda w, o=other: w[probs] @ w[o]  # type: ignore[misc]
    yield "softmax-missing", "the scores instead of the shares", lambda w: w[scores] @ w[value]
    if f"{path}.scaled" in world.formulas:
        yield (
            "softmax-missing",
            "the scaled products instead of the shares",
            lambda w: w[f"{path}.scaled"] @ w[value],
        )
    yield "wrong-operand", "the values without the shares", lambda w: w[value]
    yield (
        "wrong-operand",
        "all values in equal shares",
        lambda w: torch.full_like(w[probs], 1 / w[probs].shape[-1]) @ w[value],
    )
    mask = world.formulas[scores].inputs[1] if scores in world.formulas else ""
    if mask:

        def masked(w: World) -> Tensor:
            hidden = w.value(mask)
            shown = torch.ones(()) if hidden is None else (hidden >= -1).float()
            return (w[probs] * shown.transpose(-1, -2) if shown.dim() else w[probs]) @ w[value]

        yield "mask-direction", "queries hidden after the softmax", masked
