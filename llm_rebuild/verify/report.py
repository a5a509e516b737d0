"""What a verification found, and what programs read of it; `show/report.py` has what people see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.printing import Printable
from llm_rebuild.verify.compare import Verdict
from llm_rebuild.verify.coverage import Coverage
from llm_rebuild.verify.divergence import Divergence
from llm_rebuild.verify.rounding import Rounding
from llm_rebuild.verify.tokens import TokenVerdict


@dataclass(frozen=True)
class Report(Printable):
    """The verdicts of one run in the order in which the model computes, and what they rest on.

    isolated    Whether the rebuild ran in a process of its own, from files alone.
    leaks       What official tensors were seen to go into the rebuild; None where nobody looked.
    first_divergence  Where the two sides part: the first checkpoint, in the order of computation, that is
                not bit-identical, and what went into that step.
    rounding    Which differences are rounding, by each step in float64; None where nobody looked.
    diagnosis   Which mistake the first divergence may be, the best guess first; `diagnosis/diagnose.py` makes
                them.
    mistakes    Each mistake that was found, the first included, by its best explanation.
    tokenizer   Whether the token ids are the official tokenizer's; None where nobody looked.
    untried     What this run leaves open: padding, the other spelling of attention, a cached step.
    device      Where the rebuild ran. The official model always runs on the CPU.
    """

    model: Mapping[str, Any]
    environment: Mapping[str, Any]
    attention: str
    texts: int
    tokens: int
    verdicts: tuple[Verdict, ...]
    coverage: Coverage | None = None
    coupled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    isolated: bool = False
    leaks: tuple[str, ...] | None = None
    first_divergence: Divergence | None = None
    rounding: Rounding | None = None
    diagnosis: tuple[Any, ...] = ()
    mistakes: tuple[Any, ...] = ()
    tokenizer: TokenVerdict | None = None
    untried: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def dtype(self) -> str:
        """The type that both sides computed in."""
        return str(self.environment.get("dtype", "float32"))

    @property
    def which(self) -> str:
        """Of which model, and how it was run, as the last line of what is shown says it."""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        which = f"{self.model['name']}, {self.attention} attention{dtype}"
        return f"the miniature of {which}" if self.model["source"] == "miniature" else which

    @property
    def same_tokens(self) -> bool:
        """Whether no token id was seen to differ."""
        return self.tokenizer is None or self.tokenizer.passes

    @property
    def bit_identical(self) -> int:
        """How many checkpoints have the official bits."""
        return sum(v.identical for v in self.verdicts)

    @property
    def passed(self) -> bool:
        """Five decimals at every checkpoint, or else what was shown to be rounding; the official token ids;
        and no leak."""
        return all(v.passes for v in self.verdicts) and not self.leaks and self.same_tokens

    @property
    def exact(self) -> bool:
        """Bit-identical at every checkpoint, the official token ids, and no leak."""
        return all(v.identical for v in self.verdicts) and not self.leaks and self.same_tokens

    def to_json(self) -> dict[str, Any]:
        """The contract of `verify --json`, docs/reference/json.md."""
        first = self.first_divergence
        summary: dict[str, Any] = {
            "checkpoints": len(self.verdicts),
            "bit_identical": self.bit_identical,
            "five_decimals": sum(v.five_decimals for v in self.verdicts),
            "rounding": sum(v.rounding for v in self.verdicts),
            "failed": sum(not v.passes for v in self.verdicts),
            "coverage": self.coverage.share if self.coverage else None,
        }
        return {
            "model": dict(self.model),
            "environment": dict(self.environment),
            "attention": self.attention,
            "inputs": {"texts": self.texts, "tokens": self.tokens},
            "checkpoints": [v.to_json() for v in self.verdicts],
            "summary": summary,
            "first_divergence": first.to_json(self.rounding) if first else None,
            "diagnosis": [diagnosis.to_json() for diagnosis in self.diagnosis],
            "mistakes": [mistake.to_json() for mistake in self.mistakes],
            "coverage": self.coverage.to_json() if self.coverage else None,
            "coupled": list(self.coupled),
            "isolated": self.isolated,
            "leaks": None if self.leaks is None else list(self.leaks),
            "tokenizer": None if self.tokenizer is None else vars(self.tokenizer),
            "untried": list(self.untried),
            "dtype": self.dtype,
            "device": self.device,
        }
