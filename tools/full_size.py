"""Models at full size without the hub: the official config, and seeded numbers for weights.

    python -m tools.full_size gpt2 --out DIR
    python -m tools.full_size t5-small --out DIR
    python -m tools.full_size smollm2-135m --out DIR

What is verified on such a folder is that the rebuild computes what the official model computes, at the
real sizes and in the hub's file layout. The numbers mean nothing, but none of them is idle: no norm is all
ones and no bias is zero, so one that is left out or swapped shows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild.models import rebuild_for
from llm_rebuild.weights import Weights

# What the hub's config.json says of the architecture, a file for each. The other fields are the official
# class's defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))
    for file in sorted(Path(__file__).with_name("sizes").glob("*.json"))
}


def make(folder: Path, config: Mapping[str, Any], seed: int = 0, optional: Iterable[str] = ()) -> Path:
    """Write config.json and model.safetensors for `config` into `folder`, in the hub's layout.

    optional  Keys that the file may do without and shall have, such as `pooler.dense.weight`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rebuild = rebuild_for(config)
    shapes = rebuild.shapes(Weights({key: torch.zeros(0) for key in optional}))
    random = torch.Generator().manual_seed(seed)
    tensors = {key: _numbers(key, shape, random) for key, shape in shapes.items()}
    if config["model_type"] == "gpt2":  # the hub's file holds each block's causal mask, too
        positions = rebuild.config.n_positions
        triangle = torch.ones(positions, positions).tril().view(1, 1, positions, positions)
        tensors |= {f"h.{i}.attn.bias": triangle.clone() for i in range(rebuild.config.n_layer)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    return folder


def _numbers(key: str, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Normally distributed, about as wide as in trained models."""
    normal = torch.randn(shape, generator=random)
    if key.endswith("bias"):
        return 0.1 * normal
    if len(shape) == 1:  # a norm's stretch
        return 1.0 + 0.2 * normal
    if "relative_attention_bias" in key or key == "shared.weight":
        return normal
    if key.endswith(("Attention.q.weight", "wpe.weight")):
        return 0.02 * normal  # T5 does not scale its scores; what it learns for the query is small instead
    return normal * (0.1 if "emb" in key or key == "wte.weight" else 0.9 * max(shape) ** -0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(make(arguments.out, CONFIGS[arguments.name], arguments.seed))


if __name__ == "__main__":
    main()
