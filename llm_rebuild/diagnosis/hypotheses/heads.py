"""Mistakes in cutting the width into heads, in joining it again, and in what a cache keeps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries


def split(world: World, f: Formula) -> Tries:
    group, heads = f.facts["group"], f.facts["heads"]
    members = {
        name: world.formulas[group + name]
        for name in ("query", "key", "value")
        if group + name in world.formulas
    }

    def together(how: Callable[[World, Formula], Tensor]) -> dict[str, Make]:
        """The same mistake in all three, as one function makes it."""
        return {m.name: (lambda w, m=m: how(w, m)) for m in members.values()}  # type: ignore[misc]

    def part(w: World, m: Formula, index: int | None = None) -> Tensor:
        x = w[m.inputs[0]]
        if "part" not in m.facts:
            return x
        return x.chunk(3, dim=-1)[m.facts["part"] if index is None else index]

    def heads_of(x: Tensor, count: int = heads) -> Tensor:
        return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)

    if f.facts["name"] != "query" and group + "query" in world.formulas:
        order = world.reaching(f.name, ())  # the group is tried once, where it is first met
        if group + "query" in order:
            return
    if "part" in f.facts:
        names = ("query", "key", "value")
        for order_of in permutations(range(3)):
            if order_of == (0, 1, 2):
                continue
            says = ", ".join(names[order_of.index(i)] for i in range(3))
            yield (
                "qkv-order",
                f"as {says}",
                {
                    members[name].name: (
                        lambda w, m=members[name], i=order_of[number]: heads_of(part(w, m, i))  # type: ignore[misc]
                    )
                    for number, name in enumerate(names)
                },
            )

        def interleaved(w: World, m: Formula) -> Tensor:
            x = w[m.inputs[0]]
            return x.reshape(*x.shape[:2], heads, 3, -1)[..., m.facts["part"], :].transpose(1, 2)

        def every_third(w: World, m: Formula) -> Tensor:
            return heads_of(w[m.inputs[0]][..., m.facts["part"] :: 3])

        yield "qkv-interleaved", "head by head: query, key, value of the first head, …", together(interleaved)
        yield "qkv-interleaved", "every third number", together(every_third)

    def no_transpose(w: World, m: Formula) -> Tensor:
        x = part(w, m)
        return x.reshape(x.shape[0], heads, x.shape[1], -1)

    def width_first(w: World, m: Formula) -> Tensor:
        x = part(w, m)
        return x.reshape(*x.shape[:2], -1, heads).permute(0, 3, 1, 2)

    ways: tuple[tuple[str, Callable[[World, Formula], Tensor]], ...] = (
        ("reshaped to [batch, head, token, head width] at once, without a transpose", no_transpose),
        ("the head width in front of the heads", width_first),
    )
    for says, how in ways:
        yield "heads-split", says, together(how)
    for says, how in ways:
        for m in members.values():
            only = f"only in the {m.facts['name']}: {says}"
            yield "heads-split", only, {m.name: (lambda w, m=m, how=how: how(w, m))}  # type: ignore[misc]
    width = part(world, f).shape[-1]
    for count in (heads * 2, heads // 2, 1, heads * 3, heads + 1, heads - 1, 2, 8, 12, 16):
        if 0 < count != heads and width % count == 0:
            yield (
                "heads-count",
                f"{count} heads instead of {heads}",
                together(lambda w, m, count=count: heads_of(part(w, m), count)),  # type: ignore[misc]
            )
    for m in members.values():
        yield (
            "wrong-operand",
            f"the heads of the {m.facts['name']} in reverse",
            {m.name: (lambda w, m=m: heads_of(part(w, m)).flip(1))},  # type: ignore[misc]
        )


def merge(world: World, f: Formula) -> Tries:
    of = f.inputs[0]

    def shaped(x: Tensor, like: Tensor) -> Tensor:
        batch, heads, token, width = like.shape
        return x.reshape(batch, token, heads * width)

    yield "heads-merged", "reshaped without moving the tokens in front", lambda w: shaped(w[of], w[of])
    yield (
        "heads-merged",
        "the head width in front of the heads",
        lambda w: shaped(w[of].permute(0, 2, 3, 1), w[of]),
    )
    yield (
        "heads-merged",
        "heads and head width exchanged",
        lambda w: shaped(w[of].transpose(2, 3), w[of]),
    )
    yield "heads-merged", "the heads in reverse", lambda w: shaped(w[of].flip(1).transpose(1, 2), w[of])
    for order in permutations((1, 2, 3)):
        if order != (2, 1, 3):
            yield (
                "heads-merged",
                "its axes in another order",
                lambda w, order=order: shaped(w[of].permute(0, *order), w[of]),  # type: ignore[misc]
            )
    yield (
        "heads-merged",
        "the mean over the heads, repeated",
        lambda w: w[of].mean(1).repeat(1, 1, w[of].shape[1]),
    )


def cat(world: World, f: Formula) -> Tries:
    old, new = f.inputs
    other = {"key": "value", "value": "key"}[f.facts["name"]]
    path = f.name.rpartition(".")[0]
    yield "cache-not-appended", "the new token alone, without those before", lambda w: w[new]
    yield "cache-not-appended", "those before alone, without the new token", lambda w: w[old]
    yield "cache-order", "the new token in front of those before", lambda w: torch.cat([w[new], w[old]], -2)
    yield (
        "cache-mixed",
        f"the new {other} appended",
        lambda w: torch.cat([w[old], w[f"{path}.#{other}"]], -2),
    )
    far = f"#past.{path}.{other}"
    if far in world.known:
        yield "cache-mixed", f"the kept {other}s", lambda w: torch.cat([w[far], w[f"{path}.#{other}"]], -2)
        yield "cache-mixed", f"appended to the kept {other}s", lambda w: torch.cat([w[far], w[new]], -2)

    def in_place(at: int) -> Make:
        def make(w: World) -> Tensor:
            kept = w[old].clone()
            kept[:, :, at] = w[new][:, :, -1]
            return kept

        return make

    yield "cache-not-appended", "the new token written over the last one", in_place(-1)
    yield "cache-order", "the new token written over the first one", in_place(0)
    yield (
        "cache-not-appended",
        "the first of those before dropped",
        lambda w: torch.cat([w[old][:, :, 1:], w[new]], -2),
    )
    yield (
        "cache-not-appended",
        "the last of those before dropped",
        lambda w: torch.cat([w[old][:, :, :-1], w[new]], -2),
    )
    yield "cache-order", "the new token twice", lambda w: torch.cat([w[old], w[new], w[new]], -2)
    yield "cache-order", "those before in reverse", lambda w: torch.cat([w[old].flip(-2), w[new]], -2)
    yield "cache-order", "the rows of the batch exchanged", lambda w: torch.cat([w[old].flip(0), w[new]], -2)
    for number in range(12):
        elsewhere = f"#past.{other_block(path, number)}.{f.facts['name']}"
        if elsewhere in world.known and elsewhere != old:
            yield (
                "cache-order",
                f"the keys and values kept by block {number}",
                lambda w, e=elsewhere: torch.cat([w[e], w[new]], -2),  # type: ignore[misc]
            )


def same(world: World, f: Formula) -> Tries:
    if f.inputs[0].startswith("#past."):
        path, kept = f.name.rpartition(".")[0], f.inputs[0].rpartition(".")[0]
        exchanged: dict[str, Make] = {
            f"{path}.key": lambda w: w[f"{kept}.value"],
            f"{path}.value": lambda w: w[f"{kept}.key"],
        }
        yield "cache-mixed", "keys and values exchanged", exchanged
        other = {"key": "value", "value": "key"}[f.facts["name"]]
        yield "cache-mixed", f"the kept {other}s", lambda w: w[f"{kept}.{other}"]
        for number in range(12):
            elsewhere = f"{other_block(kept, number)}.{f.facts['name']}"
            if elsewhere in world.known and elsewhere != f.inputs[0]:
                yield "cache-order", f"those kept by block {number}", lambda w, e=elsewhere: w[e]  # type: ignore[misc]


def other_block(path: str, number: int) -> str:
    words = path.split(".")
    for at, word in enumerate(words):
        if word.isdigit():
            return ".".join([*words[:at], str(number), *words[at + 1 :]])
    return path
