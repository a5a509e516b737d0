"""What the training scripts share: seeding, the loop, the loss curve, and the folder's manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llm_rebuild.models import RECORDS

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = REPOSITORY / "llm_rebuild" / "miniatures"
FIGURES = REPOSITORY / "docs" / "figures"
NAMES = tuple(record.published for record in RECORDS)
SIZE_LIMIT = 3_000_000  # bytes of model.safetensors
SPARE_STANDARD_DEVIATION = 0.02  # the usual initial spread of BERT and GPT-2 weights


def arguments(name: str, steps: int) -> argparse.Namespace:
    """The command line that all scripts share."""
    parser = argparse.ArgumentParser(description=f"Train the {name} miniature.")
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder to write, e.g. llm_rebuild/miniatures/{name}"
    )
    parser.add_argument(
        "--figures", type=Path, default=FIGURES, help="folder for the loss curve (JSON and SVG)"
    )
    parser.add_argument("--steps", type=int, default=steps, help=f"optimizer steps (default {steps})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; the bits depend on it (default 1)"
    )
    return parser.parse_args()


def start(seed: int, threads: int) -> random.Random:
    """Seed everything that draws, and return the generator that draws the text."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    return random.Random(seed)


def fresh_folder(target: Path) -> Path:
    """An empty folder to write into; `finish` puts it at `target`, so a run that is stopped leaves no half.

    What stands at `target` may be an earlier miniature, which is replaced then; anything else is left alone.
    """
    if target.is_dir() and any(target.iterdir()):
        provenance = target / "provenance.json"
        if not provenance.is_file() or json.loads(provenance.read_text("utf-8")).get("source") != "miniature":
            raise SystemExit(f"{target} is neither empty nor an earlier miniature: choose another folder")
    return Path(tempfile.mkdtemp(prefix="miniature-"))


@dataclass
class Curve:
    """The loss over the steps, and a held-out score now and then."""

    name: str
    score_name: str
    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    score_steps: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0  # of this process: what else the machine does hardly counts


def spread_initial_values(model: nn.Module) -> None:
    """Start norms and biases next to 1 and 0, not on them, so that a swapped or forgotten one shows.

    The gradient of an attention key's bias is zero but for rounding (the softmax does not see a constant
    added to all scores of a query), so training alone would leave it at its initial value.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * SPARE_STANDARD_DEVIATION)
            elif name.endswith("word_embeddings.weight"):
                parameter[0].normal_(std=SPARE_STANDARD_DEVIATION)  # the padding row, else all zeros


def train(
    model: nn.Module,
    draw_loss: Callable[[int], Tensor],
    *,
    curve: Curve,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    warmup: int = 200,
    measure: Callable[[], float] | None = None,
    measure_every: int = 500,
) -> None:
    """AdamW with a linear warm-up and a cosine decay; fills `curve`.

    `draw_loss(step)` draws a batch and returns its loss; `measure()` returns the held-out score.
    """
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    began = time.process_time()
    recent: list[float] = []
    model.train()
    bar = tqdm(range(1, steps + 1), desc=curve.name, unit="step", mininterval=2.0)
    for step in bar:
        warm = min(1.0, step / warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm * (0.02 + 0.98 * cosine)
        loss = draw_loss(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if step % 20 == 0 or step == steps:
            curve.steps.append(step)
            curve.loss.append(round(sum(recent) / len(recent), 5))
            bar.set_postfix(loss=f"{curve.loss[-1]:.4f}")
            recent.clear()
        if measure and (step % measure_every == 0 or step == steps):
            model.eval()
            with torch.no_grad():
                curve.score.append(round(measure(), 4))
            curve.score_steps.append(step)
            model.train()
            bar.write(f"step {step}: {curve.score_name} {curve.score[-1]:.2%} (held out)")
    model.eval()
    curve.cpu_seconds = round(time.process_time() - began, 1)


def save_weights(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write model.safetensors, after checking what the miniatures promise about it."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(f"{key} is {tensor.dtype}, not float32")
    file = folder / "model.safetensors"
    # Cloned, because safetensors refuses tensors that share memory.
    copies = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    save_file(copies, file, {"format": "pt"})
    file.chmod(0o644)
    if file.stat().st_size > SIZE_LIMIT:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, more than {SIZE_LIMIT:,}")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, without what is true of this machine only."""
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    facts = json.loads(config.read_text("utf-8"))
    write_json(config, {key: facts[key] for key in facts if key not in ("is_local", "local_files_only")})


def write_json(file: Path, value: object) -> None:
    """UTF-8 with a newline at the end, keys in the order given."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def finish(folder: Path, curve: Curve, options: argparse.Namespace) -> None:
    """Write the manifest, put the folder where it belongs, and the curve beside the documentation."""
    script = "train_" + curve.name.removesuffix("-small")
    packages = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "numpy")
    write_json(
        folder / "provenance.json",
        {
            "name": curve.name,
            "source": "miniature",
            "revision": f"seed {options.seed}, {options.steps} steps",
            "date": date.today().isoformat(),
            "seed": options.seed,
            "steps": options.steps,
            "script": f"python -m tools.miniatures.{script}",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
            "files": {
                file.relative_to(folder).as_posix(): {"sha256": sha256(file), "size": file.stat().st_size}
                for file in sorted(folder.rglob("*"))
                if file.is_file() and file.name != "provenance.json"
            },
        },
    )
    if options.out.exists():
        shutil.rmtree(options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, options.out)
    options.out.chmod(0o755)
    options.figures.mkdir(parents=True, exist_ok=True)
    write_json(options.figures / f"miniature-{curve.name}-loss.json", asdict(curve))
    (options.figures / f"miniature-{curve.name}-loss.svg").write_text(loss_figure(curve), encoding="utf-8")


def sha256(file: Path) -> str:
    """The hexadecimal digest of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------------- the figure

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 56, 20, 44


def loss_figure(curve: Curve) -> str:
    """An SVG of the curve: loss on a logarithmic axis (left), held-out score (right).

    It is meant to stand inline in a page: all strokes are `currentColor` or a theme variable, so it reads on
    light and on dark.
    """
    last_step = curve.steps[-1]
    low = math.floor(math.log10(min(curve.loss)) * 2) / 2
    high = math.ceil(math.log10(max(curve.loss)) * 2) / 2

    def across(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last_step

    def down_loss(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(loss)) / (high - low)

    def down_score(score: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - score)

    def points(pairs: list[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)

    identifier = f"miniature-{curve.name}-loss"
    end = f"training loss {curve.loss[0]:.2f} → {curve.loss[-1]:.4f} in {last_step:,} steps"
    if curve.score:
        end += f"; held-out {curve.score_name} {curve.score[-1]:.1%} at the end"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-desc" '
        'style="font:12px var(--md-text-font-family,system-ui),sans-serif">',
        f'<title id="{identifier}-title">Training of the {curve.name} miniature</title>',
        f'<desc id="{identifier}-desc">{end}</desc>',
        '<g fill="currentColor" stroke="none">',
    ]
    lines = []
    for decade in range(math.ceil(low), math.floor(high) + 1):
        y = down_loss(10.0**decade)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    for quarter in range(5):
        step = last_step * quarter // 4
        lines.append(f'<path d="M{across(step):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        x, y = across(step), HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{step:,}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">step</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 7}" text-anchor="middle">loss</text>')
    if curve.score:
        for percent in (0, 50, 100):
            y = down_score(percent / 100)
            parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}">{percent} %</text>')
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{TOP - 7}" text-anchor="end">'
            f"{curve.score_name}, held out (dots)</text>"
        )
    parts.append("</g>")
    parts.append('<g stroke="currentColor" stroke-opacity=".2" fill="none">' + "".join(lines) + "</g>")
    loss_points = points([(across(s), down_loss(v)) for s, v in zip(curve.steps, curve.loss, strict=True)])
    parts.append(f'<polyline points="{loss_points}" fill="none" stroke="currentColor" stroke-width="1.5"/>')
    if curve.score:
        score_pairs = [
            (across(step), down_score(score))
            for step, score in zip(curve.score_steps, curve.score, strict=True)
        ]
        accent = "var(--fig-accent,currentColor)"
        style = f'fill="none" stroke="{accent}" stroke-dasharray="4 3"'
        parts.append(f'<polyline points="{points(score_pairs)}" {style}/>')
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in score_pairs)
        parts.append(f'<g fill="{accent}">{dots}</g>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
