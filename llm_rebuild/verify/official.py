"""The official model: loaded here, run here, and nowhere else. What leaves this file are copies.

Two ways to see inside it, both without changing it:

*   A forward hook on a module is called with what the module returned. That gives every checkpoint that
    is a module's output, which is most of them.
*   A function mode is told of every torch function while it is on. That gives what happens *between*
    modules: the product of query and key, the scaling, the softmax, the residual sums.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llm_rebuild.checkpoints import Checkpoint, join
from llm_rebuild.errors import InputError
from llm_rebuild.verify.loading import ATTENTIONS, architecture_of, load
from llm_rebuild.verify.question import Question


class Sentence(nn.Module):
    """The last step of a sentence encoder, as the official model card gives it in plain PyTorch."""

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """[batch, token, width] and [batch, token] -> [batch, width]."""
        expanded = attention_mask.unsqueeze(-1).expand(token_embeddings.size()).float()
        mean = torch.sum(token_embeddings * expanded, 1) / torch.clamp(expanded.sum(1), min=1e-9)
        return nn.functional.normalize(mean, p=2, dim=1)


class Official:
    """An official model from a local folder, ready to be run and watched.

    dtype  float32 as everywhere in this course; float64 where rounding is to be told from mistakes.
    """

    def __init__(self, folder: Path, attention: str = "eager", dtype: torch.dtype = torch.float32) -> None:
        if attention not in ATTENTIONS:
            raise InputError(f"attention {attention!r} is not one of {', '.join(ATTENTIONS)}")
        self.attention = attention
        self.model = load(folder, attention, dtype)
        self.architecture = architecture_of(folder)
        self._takes = frozenset(inspect.signature(self.model.forward).parameters)
        embeds = self.architecture is not None and self.architecture.embeds
        self.sentence = Sentence() if embeds else None
        self._past: dict[str, Any] = {}

    def run(self, question: Question, copies: bool = True) -> dict[str, Tensor]:
        """One forward pass. The answers by name, as copies; none without `copies`, which saves memory.

        A question with `cache` makes it remember keys and values; one that `goes_on` begins with those.
        """
        try:
            return self._call(question, copies)
        except (IndexError, RuntimeError, ValueError, TypeError) as error:
            if self.architecture is not None:
                raise
            reason = " ".join(str(error).split())[:160]  # a model that we do not know
            raise InputError(
                f"the official {self.model.config.model_type} model cannot read this input ({reason}); "
                "give it another"
            ) from None

    def _call(self, question: Question, copies: bool) -> dict[str, Tensor]:
        inputs = question.inputs
        arguments: dict[str, Any] = {"input_ids": inputs.token_ids}
        if "attention_mask" in self._takes:
            arguments["attention_mask"] = inputs.mask
        if "use_cache" in self._takes and not (self.architecture and not self.architecture.generates):
            arguments["use_cache"] = question.cache
        if inputs.decoder_ids is not None:
            arguments["decoder_input_ids"] = inputs.decoder_ids
            arguments["decoder_attention_mask"] = inputs.decoder_mask
        if question.goes_on:
            arguments |= self._past
            if inputs.decoder_ids is not None:  # the encoder has answered
                del arguments["input_ids"]
        self._past = {}
        with torch.no_grad():
            output = self.model(**arguments)
            answers = {
                name: output[name]
                for name in ("logits", "last_hidden_state", "pooler_output", "encoder_last_hidden_state")
                if output.get(name) is not None
            }
            if self.sentence is not None:
                answers["sentence_embedding"] = self.sentence(output.last_hidden_state, inputs.mask)
        if question.cache:
            self._past = {"past_key_values": output.get("past_key_values")}
            if "encoder_last_hidden_state" in answers:
                self._past["encoder_outputs"] = (output.encoder_last_hidden_state,)
        return {name: answer.clone() for name, answer in answers.items()} if copies else {}

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module by the path that checkpoints have."""
        body = self.architecture.official_body if self.architecture is not None else ""
        for path, part in self.model.named_modules():
            if path == body or not body:
                yield path.removeprefix(body), part
            elif path:  # of a model with a body inside, the outermost module computes nothing by itself
                yield path.removeprefix(f"{body}."), part
        if self.sentence is not None:
            yield "sentence", self.sentence

    def watch(
        self, checkpoints: list[Checkpoint], question: Question, keep: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """One forward pass that hands a copy of every checkpoint to `keep`, as it comes to be."""
        wanted = places(checkpoints)

        def found(path: str, event: str, value: Any) -> None:
            tensor = value[0] if isinstance(value, tuple) else value
            for name in wanted.get((path, event), ()):
                keep(name, tensor.clone())  # without gradients, as the whole run

        with Watcher(dict(self.parts()), found, wanted.keys()):
            return self.run(question)


class Watcher(TorchFunctionMode):
    """Reports `(module path, event, value)` while the official model runs.

    The events are `given` and `returned` (the module's input and output), `matmul[0]` (the first product
    inside the module, not counting its parts') and `into softmax[0]` (what that operation was given first).
    Operations on whole numbers do not count. Only the `places` asked for are watched: watching costs time.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        report: Callable[[str, str, Any], None],
        places: Collection[tuple[str, str]],
    ) -> None:
        super().__init__()
        self._parts, self._report, self._places = parts, report, places
        self._operations = {(path, event.removeprefix("into ").partition("[")[0]) for path, event in places}
        self._names = {operation for _, operation in self._operations}
        self._inside: list[str] = []  # paths of the modules that are running, outermost first
        self._seen: Counter[tuple[str, str]] = Counter()
        self._hooks: list[Any] = []

    def __enter__(self) -> Watcher:
        for path, part in self._parts.items():
            # torch's own modules (Linear, LayerNorm, …) have nothing inside that is looked for: it is
            # enough to be told what they return.
            if not type(part).__module__.startswith("torch.nn.") or (path, "given") in self._places:
                self._hooks.append(part.register_forward_pre_hook(self._entering(path)))
                self._hooks.append(part.register_forward_hook(self._leaving(path)))
            elif (path, "returned") in self._places:
                self._hooks.append(part.register_forward_hook(self._returning(path)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _entering(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any) -> None:
            self._inside.append(path)
            if (path, "given") in self._places:
                self._report(path, "given", arguments[0])

        return hook

    def _leaving(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self._inside.pop()
            if (path, "returned") in self._places:
                self._report(path, "returned", output)

        return hook

    def _returning(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self._report(path, "returned", output)

        return hook

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        operation = _OPERATIONS.get(function)
        if operation not in self._names:
            return result
        path = self._inside[-1] if self._inside else ""
        if (path, operation) not in self._operations:
            return result
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result  # arithmetic with positions, not with the numbers of the model
        event = f"{operation}[{self._seen[path, operation]}]"
        self._seen[path, operation] += 1
        if (path, f"into {event}") in self._places:
            self._report(path, f"into {event}", args[0])
        if (path, event) in self._places:
            self._report(path, event, result)
        return result


# torch has several functions for one operation: `a + b`, `a.add(b)` and `torch.add(a, b)` are all "add".
_SPELLINGS: dict[str, tuple[Any, ...]] = {
    "add": (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__),
    "mul": (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__),
    "div": (torch.div, Tensor.div, Tensor.__truediv__),
    "matmul": (torch.matmul, Tensor.matmul, Tensor.__matmul__),
    "softmax": (torch.softmax, Tensor.softmax, nn.functional.softmax),
    "sdpa": (nn.functional.scaled_dot_product_attention,),
    "pow": (torch.pow, Tensor.pow, Tensor.__pow__),
    "tanh": (torch.tanh, Tensor.tanh),
    "mean": (torch.mean, Tensor.mean),
    "rsqrt": (torch.rsqrt, Tensor.rsqrt),
    "cat": (torch.cat,),
    "sum": (torch.sum, Tensor.sum),
    "clamp": (torch.clamp, Tensor.clamp),
    "where": (torch.where, Tensor.where),
}
_OPERATIONS = {function: name for name, spellings in _SPELLINGS.items() for function in spellings}


def places(checkpoints: Iterable[Checkpoint]) -> dict[tuple[str, str], list[str]]:
    """Where to look -- module path and event -- for which checkpoints."""
    found: dict[tuple[str, str], list[str]] = {}
    for checkpoint in checkpoints:
        found.setdefault(_place(checkpoint), []).append(checkpoint.name)
    return found


def _place(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where to look for a checkpoint: the module's path and the event."""
    source = checkpoint.source
    if source == "output":  # the official module of this very name
        return checkpoint.name, "returned"
    parent, _, _ = checkpoint.name.rpartition(".")
    path, colon, event = source.partition(": ")
    if not colon:
        path, event = parent, source
    if event.startswith("into ") and "[" not in event:  # what a part was given
        return join(path, event.removeprefix("into ")), "given"
    return path, event
