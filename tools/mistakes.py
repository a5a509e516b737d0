"""The mistakes of the live pages: a line of the rebuild in JavaScript, changed as a mutant changes Python's.

    python -m tools.mistakes            # fills in docs/live/data/mistakes.json
    python -m tools.mistakes --check    # exit 1 if it is not what would be written now

Four fields of each mistake are written by hand: the `name` of its mutant of one of the sets in `SETS`, the
`file` of docs/javascripts/rebuild/, and `before`, a piece of it that stands there exactly once, with `after`
in its place. The rest follows: the cause and its words, the lines of both languages, and the checkpoint that
is the first to differ in a page's run, which is one text, and a cache where the model has one.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.diagnosis.causes import CAUSES, GROUPS, section
from llm_rebuild.diagnosis.mutants import SOURCES, Mutant, mutated
from llm_rebuild.models import RECORDS
from llm_rebuild.verify import Question, ask
from llm_rebuild.verify.run import rebuild_run
from tools.live import FOLDER, PACKAGE, PROJECT, SENTENCES, ids, miniature, official
from tools.mutants import read_set

FILE = FOLDER / "mistakes.json"
REBUILD = PROJECT / "docs" / "javascripts" / "rebuild"
BY_HAND = ("name", "file", "before", "after")
SETS = ("first", "third", "today")  # those that are open: the others measure


@functools.cache
def mutants() -> dict[str, Mutant]:
    return {mutant.name: mutant for name in SETS for mutant in read_set(name).mutants}


@functools.cache
def question(model: str) -> Question:
    """The first sentence of a model's page, as the page runs it."""
    copy, text = miniature(model), SENTENCES[model][0]
    answers = ids(official(model, text).inputs.decoder_ids)
    return ask(copy, [text], decoder_ids=answers, use_cache=copy.rebuild.architecture.generates)


@functools.cache
def right(model: str) -> dict[str, Tensor]:
    return rebuild_run(question(model))


def first_difference(mutant: Mutant) -> str:
    """The first checkpoint of a page's run that the mutant does not have to the bit; empty: it has all."""
    asked, recorder = question(mutant.model), Recorder()
    torch.manual_seed(0)
    with mutated([mutant]) as module, torch.no_grad():
        part = asked.rebuild.part(asked.copy.weights(), recorder.tap(), asked.attention)
        cache = [module.Cache()] if asked.cache else []
        module.forward(asked.inputs.batch, part, *cache)
    for name, tensor in right(mutant.model).items():
        wrong = recorder.tensors.get(name)
        if wrong is None or wrong.shape != tensor.shape or not bits(wrong).equal(bits(tensor)):
            return name
    return ""


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


def lines(source: str, before: str, after: str) -> list[str]:
    """The whole lines around a piece of source, as they are and as they become."""
    start = source.index(before)
    begin = source.rfind("\n", 0, start) + 1
    end = source.find("\n", start + len(before.rstrip("\n")))
    whole = source[begin:end], source[begin:start] + after + source[start + len(before) : end]
    return [textwrap.dedent(text).strip("\n") for text in whole]


def filled(written: dict[str, str]) -> dict[str, Any]:
    """A mistake with all that follows from what was written by hand."""
    mutant = mutants()[written["name"]]
    javascript = (REBUILD / written["file"]).read_text(encoding="utf-8")
    python = PACKAGE / "models" / f"{mutant.source}.py"
    return {
        **{key: written[key] for key in BY_HAND},
        "model": mutant.model,
        "cause": mutant.causes[0],
        "first": first_difference(mutant),
        "javascript": lines(javascript, written["before"], written["after"]),
        "python": [python.name, *lines(python.read_text("utf-8"), mutant.before, mutant.after)],
    }


def catalogue(written: list[dict[str, str]]) -> dict[str, Any]:
    """All mistakes, the words of their causes, and which page takes which model apart."""
    mistakes = [filled(one) for one in written]
    used = {mistake["cause"] for mistake in mistakes}
    words = {
        cause: {"title": section(cause)[0], "kind": kind, **CAUSES[cause]._asdict()}
        for kind, causes in GROUPS.items()
        for cause in causes
        if cause in used
    }
    mistakes.sort(key=lambda mistake: list(SOURCES).index(mistake["model"]))
    return {"pages": {r.published: r.file for r in RECORDS}, "causes": words, "mistakes": mistakes}


def text() -> str:
    written = json.loads(FILE.read_text(encoding="utf-8"))["mistakes"]
    return json.dumps(catalogue(written), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    expected = text()
    if parser.parse_args().check:
        if FILE.read_text(encoding="utf-8") != expected:
            print(
                "mistakes.json is not what would be written now; run `python -m tools.mistakes`",
                file=sys.stderr,
            )
            return 1
        return 0
    Path(FILE).write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
