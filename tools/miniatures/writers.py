"""What the miniatures share that go on with a text: rows of passages, and what is known of them by heart."""

from __future__ import annotations

import argparse
import random

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.miniatures import world
from tools.miniatures.training import Curve, spread_initial_values, train


def rows(tokenizer: PreTrainedTokenizerBase, text: random.Random, count: int, length: int) -> Tensor:
    """Passages, each with the end token behind it, cut into rows of ids [count, length].

    A row begins where a passage begins, so that a prompt without anything before it is at home.
    """
    drawn = []
    for _ in range(count):
        ids: list[int] = []
        while len(ids) < length:
            ids += [*tokenizer(world.draw_passage(text))["input_ids"], tokenizer.eos_token_id]
        drawn.append(ids[:length])
    return torch.tensor(drawn)


def continues_with(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, beginning: str, answer: str
) -> bool:
    """Whether greedy decoding says the answer: each of its tokens is the likeliest after those before."""
    prompt = tokenizer(beginning)["input_ids"]
    wanted = tokenizer(answer, add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([prompt + wanted])).logits[0]
    return bool(logits[len(prompt) - 1 : -1].argmax(-1).tolist() == wanted)


def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """The share of held-out questions, a third of them, that are answered."""
    questions = world.held_out_questions()[::3]
    return sum(continues_with(model, tokenizer, *question) for question in questions) / len(questions)


def learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: random.Random,
    options: argparse.Namespace,
    *,
    curve: Curve,
    batch: int,
    positions: int,
    measure_every: int,
) -> None:
    """Train a model on rows of passages, from spread initial values on."""
    spread_initial_values(model)

    def draw_loss(step: int) -> Tensor:
        ids = rows(tokenizer, text, batch, positions)
        return model(input_ids=ids, labels=ids).loss

    train(
        model,
        draw_loss,
        curve=curve,
        steps=options.steps,
        learning_rate=3e-3,
        measure=lambda: recall(model, tokenizer),
        measure_every=measure_every,
    )
