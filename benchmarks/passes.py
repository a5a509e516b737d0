"""Forward passes for several benchmarks: the rebuild's, and the official one with nothing around it."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.harness import Run
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask


def question_of(copy: LocalCopy, tokens: int, texts: int, attention: str) -> Question:
    """So many texts of so many tokens, drawn from a seed."""
    seeded = torch.Generator().manual_seed(0)
    ids = torch.randint(copy.rebuild.config.vocab_size, (texts, tokens), generator=seeded)
    return ask(copy, token_ids=ids.tolist(), attention=attention)


def rebuilt(question: Question) -> Run:
    """The rebuild's forward pass, from ids to answer."""
    model, batch = (
        question.rebuild.part(question.weights, attention=question.attention),
        question.inputs.batch,
    )

    def run() -> Tensor:
        with torch.no_grad():
            output = question.rebuild.run(batch, model)
        answer: Tensor = output.sentence_embedding if hasattr(output, "sentence_embedding") else output.logits
        return answer

    return run


def arguments_of(question: Question) -> dict[str, object]:
    """What the official model is called with."""
    inputs = question.inputs
    arguments: dict[str, object] = {"input_ids": inputs.token_ids, "attention_mask": inputs.mask}
    if question.rebuild.architecture.generates:
        arguments["use_cache"] = False
    if inputs.decoder_ids is not None:
        arguments |= {"decoder_input_ids": inputs.decoder_ids, "decoder_attention_mask": inputs.decoder_mask}
    return arguments


def bare(question: Question, official: Official) -> Run:
    """The official forward pass, from ids to answer, and nothing else: no hook, no copy."""
    arguments, mask = arguments_of(question), question.inputs.mask

    def run() -> Tensor:
        with torch.no_grad():
            output = official.model(**arguments)
            if official.sentence is None:
                logits: Tensor = output.logits
                return logits
            embedding: Tensor = official.sentence(output.last_hidden_state, mask)
            return embedding

    return run
