"""The programs of the page on ports, in C++ and Rust: what they write is the official tensor."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.dumps.files import read_dump, write_dump

ROOT = Path(__file__).parents[2]
COMPILERS = {"cpp": ["g++", "-std=c++17"], "rust": ["rustc", "--edition", "2021"]}


@pytest.mark.parametrize("language", COMPILERS)
def test_the_page_s_program_reads_a_dump_and_writes_one(language: str, tmp_path: Path) -> None:
    if shutil.which(COMPILERS[language][0]) is None:
        pytest.skip(f"no {COMPILERS[language][0]} here")
    page = (ROOT / "docs" / "reference" / "port.md").read_text(encoding="utf-8")
    (program,) = re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.S | re.M)
    (tmp_path / f"port.{language}").write_text(program, encoding="utf-8")
    subprocess.run([*COMPILERS[language], f"port.{language}", "-o", "port"], cwd=tmp_path, check=True)
    truth = verify.capture(ROOT / "llm_rebuild" / "miniatures" / "gpt2", "The dog")
    write_dump(truth.tensors, tmp_path / "official.safetensors")
    subprocess.run(["./port"], cwd=tmp_path, check=True, timeout=60)
    written = read_dump(tmp_path / f"{language}.safetensors")
    assert list(written) == ["sum"]
    assert torch.equal(written["sum"], truth.tensors["embeddings"])
