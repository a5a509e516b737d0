"""Parity, fuzzed: random models, random inputs, and every checkpoint of the rebuild against the official one.

    python -m tools.parity --out FILE [--batches N] [--examples M]     goes on where FILE ends
    python -m tools.parity --out FILE --show                           what FILE says

An example is a small seeded model of one of the four families, with a config drawn from what the rebuild
supports, one spelling of attention, and several cases: rows of random ids, padded on the right, on the left
or not at all, with or without keys and values kept, and up to three steps that go on from them. A case counts
once, however many steps and checkpoints it has. All is drawn by hypothesis, which makes a failure as small as
it can; FILE gets a line for each batch, and a batch is always the same, since its number is the seed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import RECORDS
from llm_rebuild.verify import ask, capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.run import judge, run_rebuild
from llm_rebuild.verify.steps import likeliest
from tools import full_size
from tools.drawn import LONGEST, STEPS, VOCABULARY

ALIKE = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Case:
    """One input, and how it is asked.

    rows   Ids of each text.
    side   Where shorter rows are padded.
    cache  Whether keys and values are kept.
    steps  How many tokens are decoded from them.
    heard  What a decoder beside an encoder reads behind its start token, of each text; None: the text itself.
    """

    rows: list[list[int]]
    side: str
    cache: bool
    steps: int
    heard: list[list[int]] | None


@dataclass(frozen=True)
class Example:
    """A model and what it is asked.

    optional  Keys that its weight file has and could do without.
    seed      Of its weights.
    """

    config: dict[str, Any]
    optional: tuple[str, ...]
    seed: int
    attention: str
    cases: list[Case] = field(default_factory=list)


# ------------------------------------------------------------------------------------ what is drawn

MODELS = {record.model_type: record for record in RECORDS}


@st.composite
def case(draw: st.DrawFn, model: str) -> Case:
    ids = st.integers(0, VOCABULARY - 1)
    side = draw(st.sampled_from(["right", "left", "none"]))
    several = draw(st.integers(1, 3))
    if side == "none":
        length = draw(st.integers(1, LONGEST))
        lengths = [length] * several
    else:
        lengths = draw(st.lists(st.integers(1, LONGEST), min_size=several, max_size=several))
    heard = None
    if MODELS[model].encoder_decoder:
        heard = draw(st.none() | st.lists(st.lists(ids, max_size=6), min_size=several, max_size=several))
    cache = MODELS[model].generates and draw(st.booleans())
    return Case(
        [draw(st.lists(ids, min_size=length, max_size=length)) for length in lengths],
        side,
        cache,
        draw(st.integers(0, STEPS)) if cache else 0,
        heard,
    )


@st.composite
def example(draw: st.DrawFn, cases: int = 5) -> Example:
    """A model of one of the four families, and so many cases."""
    model = draw(st.sampled_from(sorted(MODELS)))
    config, optional = draw(importlib.import_module(f"tools.drawn.{model}").config())
    config = {"vocab_size": VOCABULARY, **config}
    attention = draw(st.sampled_from(["eager", "sdpa"]))
    weights = draw(st.integers(0, 10_000))
    asked = draw(st.lists(case(model), min_size=cases, max_size=cases))
    return Example(config, optional, weights, attention, asked)


# -------------------------------------------------------------------------------- what is compared


def mismatches(example: Example, counts: Counter[str]) -> list[str]:
    """Where the rebuild's numbers are not the official ones, to the bit: the first place of each case."""
    with tempfile.TemporaryDirectory(prefix="parity-") as temporary:
        folder = full_size.make(Path(temporary) / "model", example.config, example.seed, example.optional)
        copy = LocalCopy("parity", folder, "folder")
        official = Official(folder, example.attention)
        counts["models"] += 1
        return [
            f"{asked}: {where}"
            for asked in example.cases
            if (where := first_difference(question(copy, asked, example.attention), asked, official, counts))
        ]


def question(copy: LocalCopy, asked: Case, attention: str) -> Question:
    """A case as a question."""
    start = copy.rebuild.config.start_token
    decoder = None if asked.heard is None else [[start, *row] for row in asked.heard]
    made = ask(copy, token_ids=asked.rows, decoder_ids=decoder, attention=attention, use_cache=asked.cache)
    return replace(made, inputs=made.inputs.with_padding("left")) if asked.side == "left" else made


def first_difference(asked: Question, case: Case, official: Official, counts: Counter[str]) -> str:
    """The first checkpoint, of the pass or of its steps, that is not bit-identical; empty where all are."""
    cache = None
    counts["cases"] += 1
    for step in range(case.steps + 1):
        truth, recorder = capture(asked, official=official), Recorder()
        cache = run_rebuild(asked, recorder.tap(), cache).cache if asked.cache else _once(asked, recorder)
        report = judge(recorder.tensors, truth)
        counts["checkpoints"] += len(report.verdicts)
        counts["passes"] += 1
        if not report.exact:
            first = report.first_divergence
            return f"step {step}: {first.name if first else 'nothing was compared'}"
        if step < case.steps:
            asked = asked.step(likeliest(truth))
    return ""


def _once(asked: Question, recorder: Recorder) -> Tensor | None:
    run_rebuild(asked, recorder.tap())
    return None


# ------------------------------------------------------------------------------------------ batches


def batch(number: int, examples: int, smallest: bool = True) -> dict[str, Any]:
    """So many examples, always the same: what was compared, and a failure if there is one, made as small as
    it can be where the `smallest` is asked for."""
    counts: Counter[str] = Counter()
    threads = torch.get_num_threads()
    phases = (Phase.generate, Phase.shrink) if smallest else (Phase.generate,)

    @seed(number)
    @settings(ALIKE, max_examples=examples, phases=phases)
    @given(example())
    def every_checkpoint_is_bit_identical(drawn: Example) -> None:
        counts[drawn.config["model_type"]] += len(drawn.cases)
        wrong = mismatches(drawn, counts)
        assert not wrong, f"{drawn}\n" + "\n".join(wrong)

    failure = ""
    try:
        torch.set_num_threads(1)  # the models are so small that a second one only waits
        every_checkpoint_is_bit_identical()
    except Exception as error:  # whatever a run ends with is the finding
        failure = f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    return {"batch": number, "examples": examples, **counts, "failure": failure}


def shown(lines: Iterable[dict[str, Any]]) -> str:
    """Sums over batches."""
    total: Counter[str] = Counter()
    failures = 0
    for line in lines:
        failures += bool(line["failure"])
        total.update({name: n for name, n in line.items() if name not in ("batch", "failure", "examples")})
    parts = ", ".join(f"{name} {n:,}" for name, n in total.items())
    return f"{parts}; batches with a mismatch: {failures}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--examples", type=int, default=100, help="in a batch; each has five cases")
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    text = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else ""
    done = [json.loads(line) for line in text.splitlines()]
    for number in range(len(done), 0 if arguments.show else arguments.batches):
        done.append(batch(number, arguments.examples))
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(f"batch {number}: {done[-1]['failure'] or 'every checkpoint bit-identical'}", flush=True)
    print(shown(done))
    return 1 if any(line["failure"] for line in done) else 0


if __name__ == "__main__":
    sys.exit(main())
