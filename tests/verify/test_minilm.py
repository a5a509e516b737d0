"""The figures of MiniLM, real weights: every checkpoint of every run bit-identical, nearly all covered."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.checkpoints import NO_TAP, Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.using import embedding
from llm_rebuild.verify.coverage import measure
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import ask
from llm_rebuild.verify.run import rebuild_run, run_rebuild
from llm_rebuild.verify.trace import trace


def real_sentences(count: int, seed: int) -> list[str]:
    """Sentences from the documentation of Python's own library, the same ones for a seed."""
    found: set[str] = set()
    for file in sorted(Path(random.__file__).parent.glob("[a-t]*.py")):
        text = file.read_text(encoding="utf-8", errors="ignore")
        for documentation in re.findall(r'"""(.+?)"""', text, re.DOTALL):
            for sentence in re.split(r"(?<=[.!?])\s+", documentation):
                words = " ".join(sentence.split())
                if 20 <= len(words) <= 120:
                    found.add(words)
    return random.Random(seed).sample(sorted(found), count)


WORDS = " ".join(real_sentences(60, seed=2))
RUNS = {
    "one sentence": {"texts": ["Open-source LLMs rock."]},
    "padded batch of 16": {"texts": real_sentences(16, seed=1)},
    "empty string": {"texts": [""]},
    "emoji": {"texts": ["🦙🦙 naïve café 東京 \u200d👩🏽‍🚀 ﬁ"]},
    "token ids": {"token_ids": [[101, 2330, 102], [101, 102], [0, 30521]]},
    "256 tokens": {"token_ids": [[101, *(random.Random(3).choices(range(999, 30522), k=254)), 102]]},
    "512 tokens": {"token_ids": [[101, *(random.Random(4).choices(range(999, 30522), k=510)), 102]]},
    "a text that is cut": {"texts": [WORDS * 3, "They do."]},
}


@pytest.fixture(scope="module")
def officials(minilm: LocalCopy) -> dict[str, Official]:
    """Loaded once for each spelling of attention: loading is what takes the time."""
    return {attention: Official(minilm.folder, attention) for attention in ("eager", "sdpa")}


@pytest.fixture
def one_thread_then_back() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("run", list(RUNS))
def test_every_checkpoint_is_bit_identical(minilm: LocalCopy, officials, figure, run: str, attention: str):
    question = verify.ask(minilm, **RUNS[run], attention=attention)
    truth, inputs = verify.capture(question, official=officials[attention]), question.inputs
    report = verify.judge(rebuild_run(question), truth)
    assert report.exact, report.first_divergence
    assert all(v.max_abs_diff == 0 for v in report.verdicts)
    blocks = 6 * (17 if attention == "eager" else 13)
    around = 6 + 2 + 5 + (attention == "eager" and inputs.padded)  # embeddings, pooler, sentence, mask
    assert len(report.verdicts) == blocks + around

    line = f"{run}, {attention}, {'×'.join(map(str, inputs.token_ids.shape))}"
    line += f": {report.bit_identical} of {len(report.verdicts)} bit-identical"
    if inputs.token_ids.shape[1] > 100:  # the trace hashes every tensor: the short runs show what there is
        figure(line)
        return
    covered = verify.prove(question).report.coverage
    assert covered.share >= 0.95
    assert all(reason != "no checkpoint" for reason in covered.reasons().values()), covered.reasons()
    reasons = "; ".join(f"not: {n} × {o}, {covered.reasons()[o]}" for o, n in covered.uncovered.items())
    figure(f"{line}, coverage {covered.share:.1%} ({reasons})")


def test_inputs_are_what_they_are_called(minilm: LocalCopy):
    inputs = {run: ask(minilm, **given).inputs for run, given in RUNS.items()}
    assert inputs["padded batch of 16"].padded
    assert inputs["padded batch of 16"].token_ids.shape[0] == 16
    assert inputs["256 tokens"].token_ids.shape == (1, 256)
    assert inputs["512 tokens"].token_ids.shape == (1, 512)
    assert inputs["a text that is cut"].token_ids.shape == (2, 256)  # where sentence-transformers cuts
    assert inputs["a text that is cut"].truncated[0] > 0
    assert inputs["empty string"].token_ids.tolist() == [[101, 102]]


def test_a_fault_in_the_rebuild_is_seen(minilm: LocalCopy, officials, monkeypatch: pytest.MonkeyPatch):
    """Divided where the official model multiplies: mathematically the same, and other bits."""
    from llm_rebuild.models import minilm as model

    def divided(query, key, value, mask, part):
        product = query @ key.transpose(-1, -2)
        part.tap("product", product)
        scaled = product / query.shape[-1] ** 0.5
        part.tap("scaled", scaled)
        scores = scaled if mask is None else scaled + mask
        part.tap("scores", scores)
        probs = torch.softmax(scores, dim=-1)
        part.tap("probs", probs)
        return probs @ value

    question = verify.ask(minilm, **RUNS["one sentence"])
    truth = verify.capture(question, official=officials["eager"])
    monkeypatch.setattr(model, "eager_attention", divided)
    report = verify.judge(rebuild_run(question), truth)
    assert not report.exact
    assert report.first_divergence is not None
    assert report.first_divergence.name == "encoder.layer.0.attention.self.scaled"


def test_coverage_falls_when_a_checkpoint_is_left_out(minilm: LocalCopy, officials):
    question = verify.ask(minilm, **RUNS["one sentence"])
    truth = verify.capture(question, official=officials["eager"])
    without = {name: t for name, t in truth.tensors.items() if not name.endswith("attention.self.product")}
    found = measure(trace(question, official=officials["eager"]), without)
    assert found.uncovered["matmul"] == 6
    assert found.reasons()["matmul"] == "no checkpoint"
    assert found.share < 0.95


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_tap_changes_nothing(minilm: LocalCopy, attention: str):
    question = verify.ask(minilm, **RUNS["padded batch of 16"], attention=attention)
    untapped, tapped = run_rebuild(question, NO_TAP), run_rebuild(question, Recorder().tap())
    for one, other in zip(untapped, tapped, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("one_thread_then_back")
def test_the_number_of_threads_does_not_matter(minilm: LocalCopy, officials, threads: int):
    """Both sides run with the same number: the bits of each may depend on it, that they agree may not."""
    torch.set_num_threads(threads)
    question = verify.ask(minilm, **RUNS["padded batch of 16"])
    truth = verify.capture(question, official=officials["eager"])
    report = verify.judge(rebuild_run(question), truth)
    assert report.exact, report.first_divergence
    assert report.environment["threads"] == threads


def test_keys_read_and_keys_declared_unused_are_all_keys(minilm: LocalCopy):
    rebuild, weights = rebuild_for(minilm.config), minilm.weights()
    inputs = ask(minilm, **RUNS["one sentence"]).inputs
    with torch.no_grad():
        rebuild.run(inputs.batch, rebuild.part(weights))
    unused = set(weights.unread())
    assert unused == {key for key in weights if key in rebuild.architecture.unused}
    assert weights.read | unused == set(weights)
    assert weights.written() == []
    assert all(rebuild.architecture.unused.values())


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.weekly)])
def test_embeddings_equal_sentence_transformers(minilm: LocalCopy, count: int, figure):
    """As that library encodes them: its own tokenizer, batches, pooling and order."""
    sentence_transformers = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    # From the files alone: modules.json says mean pooling and normalisation, sentence_bert_config.json 256.
    library = sentence_transformers.SentenceTransformer(
        str(minilm.folder), device="cpu", local_files_only=True
    )
    assert library.max_seq_length == 256
    assert [type(module).__name__ for module in library] == ["Transformer", "Pooling", "Normalize"]
    sentences = real_sentences(count, seed=5)
    theirs = library.encode(sentences, convert_to_tensor=True, show_progress_bar=False)
    ours = embedding.embed(minilm, sentences).embeddings
    difference = (ours - theirs).abs()
    worst = int(difference.max(dim=1).values.argmax())
    figure(
        f"embeddings against sentence-transformers, {len(set(sentences)):,} sentences: "
        f"worst difference {difference.max():.1e}, at {sentences[worst][:40]!r}"
    )
    assert len(set(sentences)) == count
    assert difference.max() <= 5e-7


def test_long_texts_alone_are_those_of_sentence_transformers_to_the_bit(minilm: LocalCopy, figure):
    """Cut where that library cuts. `python -m benchmarks.embeddings` does a thousand."""
    sentence_transformers = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    library = sentence_transformers.SentenceTransformer(
        str(minilm.folder), device="cpu", local_files_only=True
    )
    texts = [" ".join(WORDS.split()[:count]) * 3 for count in (1, 60, 84, 86, 150, 600)]
    for text in texts:
        theirs = library.encode([text], convert_to_tensor=True)
        assert torch.equal(embedding.embed(minilm, text).embeddings, theirs)
    cut = sum(lost > 0 for lost in embedding.embed(minilm, texts).truncated)
    assert 0 < cut < len(texts)
    figure(f"embeddings alone against sentence-transformers: {len(texts)} bit-identical, {cut} of them cut")
