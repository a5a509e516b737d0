"""Embeddings of many texts: the rebuild, sentence-transformers, and the same network in onnxruntime."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import BUILD, NOT_INSTALLED, ROOT, TITLES, Harness, Row, Run, release
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.using.embedding import embed
from llm_rebuild.verify.official import Official

COUNTS = (1_000, 20_000)
LONGEST = 64  # words; how many a text has is drawn evenly on a logarithmic scale
BATCH = 32


def mixed_texts(copy: LocalCopy, count: int) -> list[str]:
    """Texts of one word to `LONGEST`, of the vocabulary's whole words, drawn from a seed."""
    chance, tokenizer = random.Random(0), copy.tokenizer()
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocabulary_size)]
    whole = [word for word in words if word.isalpha() and word.isascii()]
    lengths = (round(math.exp(chance.uniform(0, math.log(LONGEST)))) for _ in range(count))
    return [" ".join(chance.choices(whole, k=length)) for length in lengths]


def sentence_transformers(copy: LocalCopy) -> Callable[[Sequence[str]], Tensor]:
    """The library that such models are published for, as it comes."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(copy.folder), device="cpu", local_files_only=True)

    def encode(texts: Sequence[str]) -> Tensor:
        embeddings: Tensor = model.encode(
            list(texts), batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False
        )
        return embeddings

    return encode


def onnxruntime(copy: LocalCopy) -> Callable[[Sequence[str]], Tensor]:
    """The official network and its pooling, exported, and the tokenizers library before them; batches of
    neighbours by length, as the two others make them."""
    import onnxruntime as library
    from tokenizers import Tokenizer

    file = BUILD / f"{copy.name}.onnx"
    if not file.is_file():  # TorchLens, where it was measured before, has changed functions of this process
        command = [sys.executable, "-m", "benchmarks.encode", str(copy.folder), str(file)]
        subprocess.run(command, cwd=ROOT, check=True)
    settings = library.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = library.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(copy.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(copy.rebuild.config.text_limit)

    def encode(texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        embeddings = torch.empty(len(rows), copy.rebuild.config.hidden_size)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = torch.nn.utils.rnn.pad_sequence([rows[number] for number in chosen], batch_first=True)
            lengths = torch.tensor([[len(rows[number])] for number in chosen])
            mask = (torch.arange(batch.shape[1]) < lengths).long()
            feeds = {"ids": batch.numpy(), "mask": mask.numpy()}
            embeddings[chosen] = torch.from_numpy(session.run(None, feeds)[0])
        return embeddings

    return encode


def export(folder: Path, file: Path) -> None:
    """Write the official network and its pooling as one ONNX graph, for any number and length of texts."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            official = Official(folder, "sdpa")
            self.model, self.sentence = official.model, official.sentence

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            embedding: Tensor = self.sentence(hidden, mask)
            return embedding

    free = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=2, max=512)}
    example = (torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    program = torch.onnx.export(
        Whole().eval(), example, dynamo=True, verbose=False, input_names=["ids", "mask"],
        dynamic_shapes={"ids": free, "mask": free},
    )  # fmt: skip
    assert program is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(file))


OTHERS = {"sentence-transformers": sentence_transformers, "onnxruntime": onnxruntime}


def measure(harness: Harness) -> Iterator[Row]:
    """A thousand texts, then twenty thousand, which have one round because it takes minutes. Everything
    stands beside sentence-transformers."""
    copy = harness.copy("minilm")
    encoders: dict[str, Callable[[Sequence[str]], Tensor]] = {
        "rebuild": lambda texts: embed(copy, texts).embeddings
    }
    missing = {}
    for name, make in OTHERS.items():
        if release(name) is None:
            missing[name] = NOT_INSTALLED
            continue
        try:
            encoders[name] = make(copy)
        except Exception as error:  # another library, in any release: it is listed with its reason
            missing[name] = f"does not run here ({type(error).__name__})"
    baseline = "sentence-transformers" if "sentence-transformers" in encoders else "rebuild"
    for count in (200,) if harness.quick else COUNTS:
        texts = mixed_texts(copy, count)
        many = count > COUNTS[0]
        few = replace(harness, rounds=1, least=1) if many else harness
        runs: dict[str, Run] = {
            name: lambda encoder=encoder, texts=texts: encoder(texts) for name, encoder in encoders.items()
        }
        case = {"model": TITLES["minilm"], "texts": count}
        first = texts[:200]
        reference = encoders[baseline](first)
        measured = few.compare(case, runs, baseline, cold=not many)
        for one in measured:
            difference = (encoders[one["what"]](first) - reference).abs().max()
            speed = round(count / one["seconds"])
            yield one | {"texts_a_second": speed, "difference": float(f"{difference:.1e}")}
        yield from ({"case": case, "what": name, "missing": why} for name, why in missing.items())


if __name__ == "__main__":
    export(*map(Path, sys.argv[1:]))
