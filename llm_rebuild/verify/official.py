"""The official model: loaded here, run here, and nowhere else.

What it computes on the way, `trace.py` watches.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.models.part import check_attention
from llm_rebuild.models.pipeline import Pipeline
from llm_rebuild.verify.loading import load
from llm_rebuild.verify.question import Question, check


class Sentence(nn.Module):
    """The last step of a sentence encoder, in plain PyTorch: the mean as the official model card gives it,
    the other poolings as sentence-transformers' `Pooling`. A test holds all of it against that library."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """[batch, token, width] and [batch, token] -> [batch, width]."""
        if self.pipeline.pooling == "cls":
            pooled = token_embeddings[:, 0]
        elif self.pipeline.pooling == "max":
            real = attention_mask.bool().unsqueeze(-1)
            pooled = torch.where(real, token_embeddings, -torch.inf).amax(1)
        else:
            expanded = attention_mask.unsqueeze(-1).expand(token_embeddings.size()).to(token_embeddings.dtype)
            pooled = torch.sum(token_embeddings * expanded, 1) / torch.clamp(expanded.sum(1), min=1e-9)
        return nn.functional.normalize(pooled, p=2, dim=1) if self.pipeline.normalize else pooled


class Official:
    """An official model from a local folder, ready to be run and watched, in a type of `weights.DTYPES`."""

    def __init__(self, folder: Path, attention: str = "eager", dtype: str = "float32") -> None:
        check_attention(attention)
        copy = LocalCopy(folder.name, folder, "folder")
        check(copy, copy.weights(dtype))  # before it invents what is missing
        self.architecture = copy.architecture
        self.model = load(folder, self.architecture, attention, dtype)
        self._takes = frozenset(inspect.signature(self.model.forward).parameters)
        embeds = self.architecture is not None and self.architecture.embeds
        self.sentence = Sentence(Pipeline.read(folder)) if embeds else None
        self._past: dict[str, Any] = {}

    def run(self, question: Question) -> dict[str, Tensor]:
        """One forward pass: the answers by name.

        A question with `cache` makes it remember keys and values; one that `goes_on` begins with those.
        """
        try:
            return self._call(question)
        except (IndexError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            kind = self.model.config.model_type
            raise InputError(
                f"the official {kind} model cannot read this input ({one_line(error)}); give it another, "
                "or look through its config.json"
            ) from error

    def _call(self, question: Question) -> dict[str, Tensor]:
        inputs = question.inputs
        arguments: dict[str, Any] = {"input_ids": inputs.token_ids}
        if "attention_mask" in self._takes:
            arguments["attention_mask"] = inputs.mask
        if "use_cache" in self._takes and not (self.architecture and not self.architecture.generates):
            arguments["use_cache"] = question.cache
        if inputs.decoder_ids is not None:
            arguments["decoder_input_ids"] = inputs.decoder_ids
            arguments["decoder_attention_mask"] = inputs.decoder_mask
        if not question.goes_on:
            self._forget()
        else:
            arguments |= self._past
            if inputs.decoder_ids is not None:  # the encoder has answered
                del arguments["input_ids"]
        self._past = {}
        with torch.no_grad():
            output = self.model(**arguments)
            answers = {name: answer for name, answer in output.items() if isinstance(answer, Tensor)}
            if self.sentence is not None:
                answers["sentence_embedding"] = self.sentence(output.last_hidden_state, inputs.mask)
        if question.cache:
            self._past = {"past_key_values": output.get("past_key_values")}
            if "encoder_last_hidden_state" in answers:
                self._past["encoder_outputs"] = (answers["encoder_last_hidden_state"],)
        return answers

    def _forget(self) -> None:
        """Turn as before a text that was longer than those in training ("dynamic" scaling): officially the
        angles that were made for it stay for the next text, until one is shorter than those in training."""
        for part in self.model.modules():
            original = getattr(part, "original_inv_freq", None)
            if original is not None and getattr(part, "rope_type", None) == "dynamic":
                part.register_buffer("inv_freq", original, persistent=False)
                part.max_seq_len_cached = part.original_max_seq_len

    @cached_property
    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """Every module that computes, by the path that checkpoints have: no list of modules, and no dropout,
        which in evaluation hands on what it is given."""
        idle = (nn.Dropout, nn.ModuleList, nn.ModuleDict)
        body = self.architecture.official_body if self.architecture is not None else ""
        parts = [
            (f"{path}.".removeprefix(f"{body}.").removesuffix("."), part)
            for path, part in self.model.named_modules()
            # Of a model with a body inside, the outermost module computes nothing by itself.
            if (path or not body) and not isinstance(part, idle)
        ]
        return (*parts, ("sentence", self.sentence)) if self.sentence is not None else tuple(parts)
