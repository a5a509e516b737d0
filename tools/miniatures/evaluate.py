"""Measure the shipped miniatures again, from their files alone.

    python -m tools.miniatures.evaluate                 print the scores
    python -m tools.miniatures.evaluate --json FILE     write them, too (docs/reference/miniatures.json)

Items are from the held-out side of each grammar's split, which was fixed before the tokenizers were
trained; where a score is about something else, its label on the page says so.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models.architecture import Architecture
from tools.miniatures import number_words, paraphrases, world, writers
from tools.miniatures.training import FIGURES, NAMES, SHIPPED, write_json

EVALUATION_SEED = 2_026
Scores = dict[str, dict[str, Any]]

# Everyday English that no grammar of ours wrote: what the encoder makes of it.
FREE_PARAPHRASES = (
    ("The weather is lovely today.", "It is a beautiful day outside."),
    ("He drove his car to the office.", "He went to work by automobile."),
    ("The film was far too long.", "That movie went on for ages."),
    ("She plays the violin very well.", "She is an excellent violinist."),
    ("The train was late again this morning.", "Once more the train did not arrive on time."),
    ("My brother has moved to another town.", "My brother now lives in a different city."),
    ("Dinner will be ready soon.", "We are going to eat in a few minutes."),
    ("The baby would not stop crying.", "The infant wept the whole time."),
    ("They are building a new bridge over the river.", "A bridge across the river is under construction."),
    ("I forgot my umbrella at home.", "My umbrella is still in the house."),
    ("The exam was harder than expected.", "Nobody thought the test would be so difficult."),
    ("The company made a large profit.", "The firm earned a lot of money."),
    ("A dog barked all night.", "The whole night a hound was barking."),
    ("The museum is closed on Mondays.", "You cannot visit the museum on a Monday."),
    ("Her answer was not correct.", "What she replied was wrong."),
    ("The water in the lake is very cold.", "The lake is icy."),
    ("He lost his keys somewhere in the park.", "His keys are lying somewhere in the park."),
    ("The meeting has been moved to Friday.", "We will meet on Friday instead."),
    ("This soup needs more salt.", "There is not enough salt in the soup."),
    ("The old house was torn down.", "They demolished the old building."),
)


def share(right: int | float, items: int) -> dict[str, Any]:
    """One score: the share of items that are right, rounded to a tenth of a percent."""
    return {"score": round(right / items, 3), "items": items}


# ---------------------------------------------------------------------------------------------- minilm


def evaluate_minilm(folder: Path, scenes: int = 1000) -> Scores:
    """Retrieval among paraphrases; each query's right answer is one of `scenes` candidates."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def embed(sentences: list[str]) -> Tensor:
        rows = []
        for start in range(0, len(sentences), 100):
            inputs = tokenizer(sentences[start : start + 100], padding=True, return_tensors="pt")
            states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
            rows.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(rows)

    def bag_of_words(sentences: list[str]) -> Tensor:
        counts = torch.zeros(len(sentences), len(tokenizer))
        for row, ids in enumerate(tokenizer(sentences, add_special_tokens=False)["input_ids"]):
            for token, count in Counter(ids).items():
                counts[row, token] = count
        return F.normalize(counts, dim=-1)

    def found(encode: Callable[[list[str]], Tensor], pairs: list[tuple[str, str]]) -> dict[str, Any]:
        queries, candidates = encode([one for one, _ in pairs]), encode([other for _, other in pairs])
        best = (queries @ candidates.mT).argmax(1)
        return share(best.eq(torch.arange(len(pairs))).sum().item(), len(pairs))

    held_out = paraphrases.held_out_scenes(EVALUATION_SEED, scenes)
    telling = random.Random(EVALUATION_SEED)
    pairs = [scene.two_tellings(telling) for scene in held_out]
    twins = [scene for scene in held_out if scene.twin]
    twin_texts = [
        (*scene.two_tellings(telling), scene.twin.two_tellings(telling)[1]) for scene in twins if scene.twin
    ]
    query, same, turned = (embed([texts[place] for texts in twin_texts]) for place in range(3))
    closer = ((query * same).sum(1) > (query * turned).sum(1)).sum().item()
    return {
        "retrieval": found(embed, pairs),
        "retrieval_bag_of_words": found(bag_of_words, pairs),
        "closer_than_twin": share(closer, len(twins)),
        "free_english": found(embed, list(FREE_PARAPHRASES)),
        "free_english_bag_of_words": found(bag_of_words, list(FREE_PARAPHRASES)),
    }


# -------------------------------------------------------------------------------------------------- writers


def evaluate_writer(folder: Path, questions: int = 576, strangers: int = 200, passages: int = 200) -> Scores:
    """Facts of the world, reading from the story, and what the model writes when it runs free."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    end = tokenizer.eos_token_id
    right = partial(writers.continues_with, model, tokenizer)

    facts = world.held_out_questions()
    random.Random(EVALUATION_SEED).shuffle(facts)
    facts = facts[:questions]
    generator = random.Random(EVALUATION_SEED)
    stories = [world.draw_stranger(generator, held_out=True) for _ in range(strangers)]
    carried = [question for story in stories for question in story.questions()]

    # Prompts: every person by name and by trade, in an order drawn once.
    beginnings = [who[0].upper() + who[1:] for person in world.PEOPLE for who in (person.name, person.role)]
    beginnings += [f"A stranger came to {village}" for village in world.VILLAGES]
    generator.shuffle(beginnings)
    verdicts: Counter[str] = Counter()
    torch.manual_seed(EVALUATION_SEED)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    for start in range(0, passages, 50):
        prompts = tokenizer(beginnings[start : min(start + 50, passages)], padding=True, return_tensors="pt")
        length = prompts["input_ids"].shape[1]
        rows = model.generate(**prompts, max_new_tokens=100, do_sample=True, top_k=0, pad_token_id=end)
        for prompt, written in zip(rows[:, :length].tolist(), rows[:, length:].tolist(), strict=True):
            written = written[: written.index(end)] if end in written else written
            text = tokenizer.decode([t for t in prompt if t != end] + written, skip_special_tokens=True)
            verdicts.update(verdict for _, verdict in world.check(text))
    sentences = sum(verdicts.values())
    return {
        "facts": share(sum(right(*question) for question in facts), len(facts)),
        "strangers": share(sum(right(*question) for question in carried), len(carried)),
        "free_true": share(verdicts["true"], sentences),
        "free_false": share(verdicts["false"], sentences),
        "free_ungrammatical": share(verdicts["not of the grammar"], sentences),
    }


# ---------------------------------------------------------------------------------------------- t5-small


def evaluate_t5(folder: Path, numbers: int = 2000) -> Scores:
    """Exact match of greedy translations of held-out numbers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()

    def exact(pairs: list[tuple[str, str]]) -> dict[str, Any]:
        pairs = sorted(pairs, key=lambda pair: len(pair[0]))  # little padding
        right = 0
        for start in range(0, len(pairs), 200):
            batch = pairs[start : start + 200]
            inputs = tokenizer([source for source, _ in batch], padding=True, return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)
            answers = tokenizer.batch_decode(ids, skip_special_tokens=True)
            right += sum(answer == target for answer, (_, target) in zip(answers, batch, strict=True))
        return share(right, len(pairs))

    generator = random.Random(EVALUATION_SEED)

    def draw(count: int, *, to_german: bool) -> list[tuple[str, str]]:
        return [number_words.draw_pair(generator, held_out=True, to_german=to_german) for _ in range(count)]

    prefix = number_words.TO_GERMAN
    below_100 = [(prefix + number_words.english(n), number_words.german(n)) for n in range(100)]
    # What training never showed: the word "million".
    millions = [
        (f"{prefix}{number_words.english(n)} million", f"{number_words.german(n)} Millionen")
        for n in range(2, 12)
    ]
    return {
        "english_to_german": exact(draw(numbers, to_german=True)),
        "german_to_english": exact(draw(numbers // 2, to_german=False)),
        "below_100": exact(below_100),
        "millions": exact(millions),
    }


def evaluation_of(record: Architecture) -> Callable[[Path], Scores]:
    """What a miniature is asked, by what its architecture answers."""
    if record.embeds:
        return evaluate_minilm
    return evaluate_t5 if record.encoder_decoder else evaluate_writer


@torch.no_grad()
def evaluate(name: str, folder: Path) -> dict[str, Any]:
    """All that the model card says in numbers about one miniature."""
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    curve = json.loads((FIGURES / f"miniature-{name}-loss.json").read_text("utf-8"))
    copy = LocalCopy(name, folder, "miniature")
    return {
        "sha256": provenance["files"]["model.safetensors"]["sha256"],
        "bytes": provenance["files"]["model.safetensors"]["size"],
        "parameters": sum(math.prod(shape) for shape in copy.rebuild.shapes(copy.weights()).values()),
        "steps": provenance["steps"],
        "training_minutes": round(curve["cpu_seconds"] / 60, 1),
        "scores": evaluation_of(copy.rebuild.architecture)(folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the shipped miniatures again.")
    parser.add_argument("--miniatures", type=Path, default=SHIPPED, help="folder of their folders")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    options = parser.parse_args()
    results = {}
    for name in NAMES:
        began = time.monotonic()
        results[name] = evaluate(name, options.miniatures / name)
        for score, value in results[name]["scores"].items():
            print(f"{name:9} {score:27} {value['score']:7.1%}  of {value['items']:,}")
        print(f"{name:9} {'seconds':27} {time.monotonic() - began:7.1f}")
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
