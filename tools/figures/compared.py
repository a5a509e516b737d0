"""The pictures of the three models side by side, beyond the plan of their blocks (course.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.verify import capture
from tools.figures.drawing import Drawing
from tools.figures.kinds import Plot
from tools.figures.runs import copy_of, run_of

SENTENCE = "Open-source LLMs rock."
PROMPT = "The baker of Oru lives by the"
QUESTION = "translate English to German: four hundred twenty-seven"


def _size(x: Tensor) -> float:
    """The root mean square of a tensor's numbers."""
    return float(x.pow(2).mean().sqrt())


def compared_growth() -> str:
    """How large a token's numbers are after each block, in the three models."""
    minilm, gpt2 = run_of(copy_of("minilm"), SENTENCE), run_of(copy_of("gpt2"), PROMPT)
    t5 = capture(copy_of("t5-small"), QUESTION)
    lines = {
        "MiniLM": ("accent", minilm, ("embeddings.LayerNorm", "output.LayerNorm"), "encoder.layer."),
        "GPT-2": ("warm", gpt2, ("embeddings", "mlp.residual"), "h."),
        "T5, encoder": ("good", t5, ("encoder.embed_tokens", "layer.1.residual"), "encoder.block."),
    }
    sizes = {}
    for model, (_, truth, (first, last), path) in lines.items():
        names = [name for name in truth if name.startswith(path) and name.endswith(last)]
        names = [name for name in names if "attention" not in name]
        sizes[model] = [_size(truth[name].tensor) for name in (first, *names)]
    longest = max(len(line) for line in sizes.values()) - 1
    d = Drawing(
        720, 330, "How large a token's numbers are after each block: level in MiniLM, growing in the others."
    )
    plot = Plot(d, (60, 20, 590, 270), (0, longest), (0.2, 20), log="y")
    plot.rows((0.2, 0.5, 1, 2, 5, 10, 20))
    for model, line in sizes.items():
        kind = lines[model][0]
        plot.curve(enumerate(line), kind, model)
        for x, size in enumerate(line):
            plot.dot(x, size, kind, 4)
    for x in range(longest + 1):
        d.text(plot.x(x), 296, f"block {x - 1}" if x else "embeddings", size=13, kind="muted")
    d.text(
        60, 320, "root mean square of the numbers, on a logarithmic scale", at="start", size=13, kind="muted"
    )
    return d.svg()


def compared_norms() -> str:
    """The same four numbers, and the same shifted by ten, through both norms."""
    d = Drawing(720, 300, "LayerNorm puts 10 to 13 where it puts 0 to 3; RMSNorm does not.")
    near, far = torch.arange(4.0), torch.arange(10.0, 14.0)
    rows = []
    for name, x in (("0 … 3", near), ("10 … 13", far)):
        rows += [
            (f"LayerNorm of {name}", F.layer_norm(x, (4,)), "accent"),
            (f"RMSNorm of {name}", x * torch.rsqrt(x.pow(2).mean() + 1e-6), "warm"),
        ]
    rows.sort(key=lambda row: row[0].split()[0])
    for number, (words, x, kind) in enumerate(rows):
        y = 40.0 + 56 * number + (20 if number > 1 else 0)
        plot = Plot(d, (190, y - 10, 690, y), (-1.5, 2.0), (0, 1))
        d.line(f"M190 {y:g}H690", "line", arrow=False)
        d.text(176, y + 5, words, at="end", size=13)
        for value in x.tolist():
            plot.dot(value, 0, kind, 6)
    plot = Plot(d, (190, 0, 690, 262), (-1.5, 2.0), (0, 1))
    plot.columns((-1, 0, 1, 2))
    return d.svg()


def compared_bends() -> str:
    """The three activations, and how far apart the two GELUs are."""
    d = Drawing(
        720,
        320,
        "The three activations over the same numbers, and the difference of the two GELUs, enlarged.",
    )
    x = torch.linspace(-4, 4, 161)
    exact, tanh = F.gelu(x), F.gelu(x, approximate="tanh")
    d.text(40, 20, "three bends", at="start", bold=True)
    plot = Plot(d, (40, 40, 330, 270), (-3, 3), (-0.5, 3))
    plot.rows((0, 1, 2, 3))
    plot.columns((-3, -2, -1, 0, 1, 2, 3))
    for y, kind, dashed in ((F.relu(x), "good", False), (exact, "accent", False), (tanh, "warm", True)):
        points = [(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True) if abs(a) <= 3]
        plot.curve(points, kind, dashed=dashed)
    d.text(60, 90, "ReLU", at="start", size=13, kind="good")
    d.text(60, 110, "GELU, exact", at="start", size=13, kind="accent")
    d.text(60, 130, "GELU, by tanh (dashed)", at="start", size=13, kind="warm")
    d.text(420, 20, "tanh GELU minus exact GELU", at="start", bold=True)
    plot = Plot(d, (420, 40, 700, 270), (-4, 4), (-5e-4, 5e-4))
    plot.rows((-4e-4, -2e-4, 0, 2e-4, 4e-4), lambda number: f"{number:.0e}" if number else "0")
    plot.columns((-4, -2, 0, 2, 4))
    plot.curve(zip(x.tolist(), (tanh - exact).tolist(), strict=True), "warm")
    return d.svg()


FIGURES = (compared_growth, compared_norms, compared_bends)
OF = {None: FIGURES}
