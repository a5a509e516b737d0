"""Put the measured figures on the miniatures' page.

    python -m tools.miniatures.model_cards            rewrite the tables in docs/reference/miniatures.md

The page is prose with gaps between `<!-- figures: NAME -->` and `<!-- end -->`; what goes into a gap comes
from docs/reference/miniatures.json, which `evaluate --json` writes. A test asserts that the page is up to
date.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tools.miniatures.training import NAMES, REPOSITORY, SHIPPED

PAGE = REPOSITORY / "docs" / "reference" / "miniatures.md"
SCORES = REPOSITORY / "docs" / "reference" / "miniatures.json"

# The words for each score on the card, in the order of the table; what is no success is worded so.
LABELS = {
    "minilm": {
        "retrieval": "finds the other telling of a scene among {items} held-out ones (retrieval@1)",
        "retrieval_bag_of_words": "the same by counting shared tokens, without the model",
        "closer_than_twin": "puts a paraphrase closer than the scene with the roles exchanged",
        "free_english": "finds the paraphrase among {items} pairs of ordinary English",
        "free_english_bag_of_words": "the same by counting shared tokens, without the model",
    },
    "gpt2": {
        "facts": "states a person's fact in a sentence that training never showed",
        "strangers": "gives the colour of a thing in a story about a stranger never met",
        "free_true": "running free: whole sentences that are of the grammar and true",
        "free_false": "running free: whole sentences that are of the grammar and false",
        "free_ungrammatical": "running free: sentences not of the grammar, or with *she* for *he*",
    },
    "t5-small": {
        "english_to_german": "English to German, held-out numbers, exact match",
        "german_to_english": "German to English, held-out numbers, exact match",
        "below_100": "English to German, 0 to 99 (all of them are in the training text)",
        "millions": "English to German, two million to eleven million: never taught",
    },
}


def percent(score: float) -> str:
    """0.987 → "98.7 %"."""
    return f"{100 * score:.1f} %"


def score_table(name: str, result: dict[str, Any]) -> str:
    rows = ["| measured | score | items |", "|---|---:|---:|"]
    for key, label in LABELS[name].items():
        value = result["scores"][key]
        items = f"{value['items']:,}"
        rows.append(f"| {label.format(items=items)} | {percent(value['score'])} | {items} |")
    return "\n".join(rows)


def size_table(results: dict[str, Any]) -> str:
    rows = [
        "| what | MiniLM | GPT-2 | T5-small |",
        "|---|---|---|---|",
    ]
    configs = [json.loads((SHIPPED / name / "config.json").read_text("utf-8")) for name in NAMES]
    bert, gpt2, t5 = configs

    def row(label: str, *cells: object) -> None:
        words = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
        rows.append(f"| {label} | " + " | ".join(words) + " |")

    row("folder", *(f"`llm_rebuild/miniatures/{name}/`" for name in NAMES))
    row(
        "blocks",
        bert["num_hidden_layers"],
        gpt2["n_layer"],
        f"{t5['num_layers']} + {t5['num_decoder_layers']}",
    )
    row("width", bert["hidden_size"], gpt2["n_embd"], t5["d_model"])
    row(
        "heads × head width",
        f"{bert['num_attention_heads']} × {bert['hidden_size'] // bert['num_attention_heads']}",
        f"{gpt2['n_head']} × {gpt2['n_embd'] // gpt2['n_head']}",
        f"{t5['num_heads']} × {t5['d_kv']}",
    )
    row("feed-forward width", bert["intermediate_size"], 4 * gpt2["n_embd"], t5["d_ff"])
    row(
        "positions",
        bert["max_position_embeddings"],
        gpt2["n_positions"],
        f"{t5['relative_attention_num_buckets']} relative buckets",
    )
    row("vocabulary", *(config["vocab_size"] for config in configs))
    row("parameters", *(results[name]["parameters"] for name in NAMES))
    row("bytes of `model.safetensors`", *(results[name]["bytes"] for name in NAMES))
    row("optimizer steps", *(results[name]["steps"] for name in NAMES))
    row("minutes of one core to train", *(results[name]["training_minutes"] for name in NAMES))
    row("sha256 of the weights", *(f"`{results[name]['sha256'][:12]}…`" for name in NAMES))
    return "\n".join(rows)


def render(page: str, results: dict[str, Any]) -> str:
    """The page with every gap filled anew."""
    blocks = {"sizes": size_table(results)} | {name: score_table(name, results[name]) for name in NAMES}
    wanted = re.findall(r"<!-- figures: (\S+) -->", page)
    if sorted(wanted) != sorted(blocks):
        raise ValueError(f"the page has the gaps {wanted}, not {list(blocks)}")
    for name, block in blocks.items():
        gap = re.compile(
            rf"(<!-- figures: {re.escape(name)} -->)((?!<!-- figures).)*?(<!-- end -->)", re.DOTALL
        )
        page, filled = gap.subn(lambda found, block=block: f"{found[1]}\n\n{block}\n\n{found[3]}", page)
        if filled != 1:
            raise ValueError(f"the gap {name} has no end")
    return page


def main() -> None:
    results = json.loads(SCORES.read_text("utf-8"))
    PAGE.write_text(render(PAGE.read_text("utf-8"), results), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
