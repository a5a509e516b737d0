"""Five models that the course does not rebuild, each as a person rebuilt it, and mistakes in these files.

`llama.py` and its neighbours define `forward` as `llm-rebuild check` wants it, are right to the bit, and tap
checkpoints by the names that the official trace gives them. `others.diff`, one folder up, has the mistakes,
in the format of the other sets. The models are tiny and seeded, so nothing has to be fetched.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm_rebuild.checkpoints import Recorder, Tap
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.mutants import Mutant, Mutated, changed
from llm_rebuild.verify import Capture, ask, capture, compare

FILE = "<mine.py, changed>"
IDS = [[5, 17, 3, 44, 9, 60, 2, 31, 12], [11, 5, 8, 23, 50]]  # the second row is padded
DECODER_IDS = [[2, 7, 40, 21, 4, 33], [2, 8, 61]]
_SIZES: dict[str, Any] = {
    "vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40,
}  # fmt: skip
_SHARED = _SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": False}
_BART: dict[str, Any] = {
    "vocab_size": 67, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40,
    "scale_embedding": True,
}  # fmt: skip
_LLAMA = {"no_rope_layers": [1, 1, 1], "rope_theta": 500.0, "rms_norm_eps": 1e-5}
_LLAMA |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
_QWEN3 = {"head_dim": 12, "mlp_only_layers": [0, 1, 2], "num_experts": 4}
# Of the first three there is a rebuild; so the official code is of a twin that computes the same.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("SmolLM3ForCausalLM", "SmolLM3Config", _SHARED | _LLAMA),
    "qwen2": ("SeedOssForCausalLM", "SeedOssConfig", _SHARED | {"head_dim": 8}),
    "qwen3": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _SHARED | _QWEN3),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", _SIZES | {"pad_token_id": 1}),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART),
}


@dataclass(frozen=True)
class Other:
    """A model that the course does not rebuild, and what its official code makes of `IDS`."""

    copy: LocalCopy
    truth: Capture

    def run(self, source: str) -> Mutated:
        """What a person's file taps. What is raised is kept."""
        recorder = Recorder()
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                self.play(source, recorder.tap())
        except Exception as error:  # what a person's mistake raises can be anything
            return Mutated(recorder.tensors, error)
        return Mutated(recorder.tensors)

    def play(self, source: str, tap: Tap) -> None:
        """Run a person's file, which is called `FILE`. Raises what it raises."""
        module = types.ModuleType("mine")
        linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
        exec(compile(source, FILE, "exec"), module.__dict__)
        batch, config = self.truth.inputs.batch, types.SimpleNamespace(**self.copy.config)
        named = {**batch._asdict(), "weights": self.copy.weights(), "config": config, "tap": tap}
        wanted = inspect.signature(module.forward).parameters
        module.forward(**{name: named[name] for name in wanted})

    def first_divergence(self, outcome: Mutated) -> str:
        """The first checkpoint that is missing or not bit-identical; empty where none is. What the right file
        does not tap is not asked for."""
        for name, official in self.truth.items():
            if name in self.tapped:
                rebuilt = outcome.tensors.get(name)
                if rebuilt is None or not compare(rebuilt, official).identical:
                    return name
        return ""

    @functools.cached_property
    def tapped(self) -> frozenset[str]:
        """What the right file shows."""
        return frozenset(self.run(source_of(self.copy.name)).tensors)


def source_of(model: str, mutant: Mutant | None = None) -> str:
    """The right file of a model, or the same with a mistake in it."""
    source = Path(__file__).with_name(f"{model}.py").read_text(encoding="utf-8")
    return source if mutant is None else changed(source, mutant)


@functools.cache
def other(model: str) -> Other:
    """One of `MODELS`, made once in a folder that goes with the process."""
    folder = Path(_root().name) / model
    _make(model, folder)
    copy = LocalCopy(model, folder, "folder")
    decoder_ids = DECODER_IDS if "decoder_layers" in copy.config else None
    return Other(copy, capture(ask(copy, token_ids=IDS, decoder_ids=decoder_ids)))


@functools.cache
def _root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="others-")


def _make(model: str, folder: Path) -> None:
    """A seeded model. Norms and biases are random, too, so that none of them is idle."""
    import transformers

    model_class, config_class, fields = MODELS[model]
    torch.manual_seed(0)
    made = getattr(transformers, model_class)(getattr(transformers, config_class)(**fields))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    made.save_pretrained(folder)
