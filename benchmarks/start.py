"""From the shell to the answer: every command in a process of its own, on what a learner has at hand."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import NOT_INSTALLED, Harness, Row, Run, release
from llm_rebuild.copies.local_copy import MINIATURES

IMPORTS = ("-c", "import torch, transformers")
# What `verify` cannot do without: the imports, both sides' weights, and one official pass.
LOADED = """
import torch, transformers
from llm_rebuild.copies import local_copy
from llm_rebuild.verify import ask
from llm_rebuild.verify.official import Official
copy = local_copy.get("minilm", strict=True)
Official(copy.folder).run(ask(copy, ["Open-source LLMs rock.", "They do."]))
"""
MODEL, TEXT = str(MINIATURES / "gpt2"), ("--text", "The dog was glad.")

# Every command; in this order each finds the files that those before it wrote.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("download", "minilm"),
    ("map", MODEL),
    ("capture", MODEL, *TEXT, "--out", "capture.safetensors"),
    ("verify", MODEL, *TEXT, "--certificate", "proof.json"),
    ("run", MODEL, TEXT[1]),
    ("find", "tensor.safetensors", "--model", MODEL, *TEXT),
    ("recheck", "proof.json", "--model", MODEL),
    ("new", "gpt2", "NEW.py", "--solved"),
    ("check", "solved.py", "--model", MODEL),
    ("compare", "dump.npz", "--model", MODEL, *TEXT),
    ("dump", MODEL, *TEXT, "--out", "dump.npz"),
    ("mark", "submissions", "--model", MODEL, "--out", "marks.csv"),
    ("sweep", MODEL, "--texts", "texts.txt", "--out", "rows.parquet"),
    ("explain", "scale-missing"),
)
SWEEP = "ray"  # without it `sweep` has nothing to run on


def process(folder: Path, *arguments: str) -> Run:
    """A Python with these arguments, in a folder."""
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True)


def command(folder: Path, words: Sequence[str]) -> Run:
    """A command of ours. What it would refuse to write over is taken away first."""

    def run() -> object:
        for file in ("NEW.py", "rows.parquet"):
            (folder / file).unlink(missing_ok=True)
        return process(folder, "-m", "llm_rebuild", *words)()

    return run


def prepare(folder: Path) -> None:
    """The files that commands are given."""
    from safetensors.torch import save_file

    from llm_rebuild.verify.capture import capture
    from llm_rebuild.workbench.new import source

    (folder / "submissions").mkdir()
    for file in ("solved.py", "submissions/solved.py"):
        (folder / file).write_text(source("gpt2", solved=True), encoding="utf-8")
    (folder / "texts.txt").write_text("The dog was glad.\n", encoding="utf-8")
    probs = capture(MODEL, TEXT[1])["h.1.attn.probs"].tensor
    save_file({"mine": probs.mT.contiguous()}, folder / "tensor.safetensors")
    for words in COMMANDS:
        if words[0] in ("dump", "verify"):
            command(folder, words)()


def measure(harness: Harness) -> Iterator[Row]:
    """Each command beside a Python that only imports torch and transformers; and `verify minilm` beside what
    no verification can do without."""
    seven = replace(harness, rounds=min(harness.rounds, 7), least=min(harness.rounds, 7))
    three = replace(harness, rounds=min(harness.rounds, 3))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        runs = {
            "llm-rebuild verify minilm": process(folder, "-m", "llm_rebuild", "verify", "minilm"),
            "imports, loading, one pass": process(folder, "-c", LOADED),
        }
        yield from seven.compare({"model": "MiniLM"}, runs, "imports, loading, one pass")
        chosen = COMMANDS[:3] if harness.quick else COMMANDS
        runs = {"imports": process(folder, *IMPORTS)}
        for words in chosen:
            if words[0] == "sweep" and release(SWEEP) is None:
                missing = f"{SWEEP}: {NOT_INSTALLED}"
                yield {"case": {"model": "GPT-2, miniature"}, "what": words[0], "missing": missing}
            else:
                runs[f"llm-rebuild {words[0]}"] = command(folder, words)
        yield from three.compare({"model": "GPT-2, miniature"}, runs, "imports", cold=False)
