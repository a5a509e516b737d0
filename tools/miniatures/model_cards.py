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

from transformers import AutoConfig

from llm_rebuild.models import RECORDS, rebuild_for
from tools.miniatures.training import NAMES, REPOSITORY, SHIPPED

PAGE = REPOSITORY / "docs" / "reference" / "miniatures.md"
SCORES = REPOSITORY / "docs" / "reference" / "miniatures.json"

_WRITER = {
    "facts": "states a person's fact in a sentence that training never showed",
    "strangers": "gives the colour of a thing in a story about a stranger never met",
    "free_true": "running free: whole sentences that are of the grammar and true",
    "free_false": "running free: whole sentences that are of the grammar and false",
    "free_ungrammatical": "running free: sentences not of the grammar, or with *she* for *he*",
}
_ENCODER = {
    "retrieval": "finds the other telling of a scene among {items} held-out ones (retrieval@1)",
    "retrieval_bag_of_words": "the same by counting shared tokens, without the model",
    "closer_than_twin": "puts a paraphrase closer than the scene with the roles exchanged",
    "free_english": "finds the paraphrase among {items} pairs of ordinary English",
    "free_english_bag_of_words": "the same by counting shared tokens, without the model",
}
_TRANSLATOR = {
    "english_to_german": "English to German, held-out numbers, exact match",
    "german_to_english": "German to English, held-out numbers, exact match",
    "below_100": "English to German, 0 to 99 (all of them are in the training text)",
    "millions": "English to German, two million to eleven million: never taught",
}
# The words for each score on the card, in the order of the table; what is no success is worded so.
LABELS = {
    record.published: _ENCODER if record.embeds else _TRANSLATOR if record.encoder_decoder else _WRITER
    for record in RECORDS
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


def sizes(name: str, result: dict[str, Any]) -> dict[str, object]:
    """A miniature's column of the table of sizes."""
    config = json.loads((SHIPPED / name / "config.json").read_text("utf-8"))
    rebuild = rebuild_for(config)
    official = AutoConfig.for_model(**config)  # whose fields are called alike in all families
    heads, width = official.num_attention_heads, official.hidden_size
    kv_heads = getattr(official, "num_key_value_heads", heads)
    head_width = config.get("d_kv") or width // heads
    wide = config.get("d_ff") or config.get("intermediate_size") or 4 * width
    positions: object = getattr(official, "max_position_embeddings", 0)
    if "relative_attention_num_buckets" in config:
        positions = f"{config['relative_attention_num_buckets']} relative buckets"
    return {
        "folder": f"`llm_rebuild/miniatures/{name}/`",
        "blocks": " + ".join(map(str, rebuild.depth.values())),
        "width": width,
        "heads × head width": f"{heads} × {head_width}",
        "heads of keys and values": kv_heads,
        "feed-forward width": wide,
        "positions": positions if "rope_theta" not in config else f"turned; trained on {positions}",
        "vocabulary": config["vocab_size"],
        "parameters": result["parameters"],
        "bytes of `model.safetensors`": result["bytes"],
        "optimizer steps": result["steps"],
        "minutes of one core to train": result["training_minutes"],
        "sha256 of the weights": f"`{result['sha256'][:12]}…`",
    }


def size_table(results: dict[str, Any]) -> str:
    columns = [sizes(name, results[name]) for name in NAMES]
    titles = [record.title for record in RECORDS]
    rows = [f"| what | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for label in columns[0]:
        cells = [column[label] for column in columns]
        words = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
        rows.append(f"| {label} | {' | '.join(words)} |")
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
