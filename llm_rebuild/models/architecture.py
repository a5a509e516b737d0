"""One record an architecture: whatever is peculiar to a model and is needed by those who do not know it.

Each model's record stands beside it, in `<model>_config.py`. Nothing above `models/` names a model, a field
of its config.json or one of its checkpoints; it asks the record. Official classes are named here and never
imported: a rebuild has to do without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from llm_rebuild.checkpoints import Checkpoint


@dataclass(frozen=True)
class Stack:
    """Blocks that follow each other.

    path    Where they stand: block 3 of `encoder.layer` is `encoder.layer.3`.
    blocks  What the config calls the number of them.
    enters  The checkpoint that goes into block 0.
    leaves  The checkpoint below a block's path that goes on to the next block: `output.LayerNorm`.
    inside  What stands between a block's number and its parts, where something does: `layer`.
    side    What to call it where a model has several: `encoder`.
    """

    path: str
    blocks: str
    enters: str
    leaves: str
    inside: str = ""
    side: str = ""

    def output(self, layer: int | str = "{layer}") -> str:
        """The checkpoint that one block hands on."""
        return f"{self.path}.{layer}.{self.leaves}"


@dataclass(frozen=True)
class Architecture:
    """What one architecture is called, what its files hold, how it is run, and what it answers."""

    model_type: str  # as config.json has it
    file: str  # the rebuild's source in this folder, without `.py`
    published: str  # the published model that the course rebuilds, by the name of its local copy
    title: str  # what people call it
    tokenizer: str  # the module of `llm_rebuild.tokenizers` that reads its vocabulary
    config: type[Any]  # the dataclass of its config; `config.read` takes config.json's fields
    official_class: str  # transformers' class with the answer on top

    # How its config.json is read, besides what `models/config.py` says of every one.
    fixed: Mapping[str, Any]  # fields that must have this value, or be absent

    # What its files hold. Of a key `{layer}` is any number.
    weights: Mapping[str, str]  # keys that the weight file must have, and their shapes in words
    optional: Mapping[str, str]  # keys that are read where the file has them or config.json asks for them
    unused: Mapping[str, str]  # keys that a file may hold and the rebuild does not read, with the reason
    parts: Mapping[str, str]  # the parts of the model in the order of the data, and what each is for
    departures: tuple[tuple[str, str], ...]  # from the textbook's transformer: a title, an explanation
    aliases: Mapping[str, str] = field(default_factory=dict)  # a used field -> its general name, read, too
    relatives: tuple[str, ...] = ()  # other model_types that the same rebuild reads
    prefix: str = ""  # stands before the keys of a file that was saved together with a head: `bert.`
    body: str = ""  # stands before the keys, but of a file that was saved without a head: `model.`
    older_names: Mapping[str, str] = field(default_factory=dict)  # pieces of older keys, and today's

    # How it is built.
    stacks: tuple[Stack, ...] = ()  # its blocks
    width: str = ""  # the config's field that says how wide a token is
    crossing: tuple[str, ...] = ()  # pieces of names where the decoder looks at the encoder's tokens
    whole: frozenset[str] = frozenset()  # conditions of a run that leaves no checkpoint out
    wide: tuple[str, ...] = ()  # words of keys that stay float32 where the rest is float16
    official_body: str = ""  # where the official class holds what checkpoints are named in
    uncovered: Mapping[str, str] = field(default_factory=dict)  # official operations without a checkpoint

    # What it answers, and what it is shown where nothing else is given: two texts of different length.
    embeds: bool = False  # one vector a text
    generates: bool = False  # a text, token by token, for which it keeps keys and values
    texts: tuple[str, str] = ("", "")
    miniature_texts: tuple[str, str] = ("", "")  # the same for the model that stands in for the published one

    @property
    def module(self) -> ModuleType:
        """The rebuild: `forward` and `CHECKPOINTS`, and a `Cache` where it generates."""
        return importlib.import_module(f"llm_rebuild.models.{self.file}")

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint of any run, in the order in which they come to be; see `checkpoints.expand`."""
        listed: tuple[Checkpoint, ...] = self.module.CHECKPOINTS
        return listed

    @property
    def encoder_decoder(self) -> bool:
        """Whether a decoder, which has a start token and inputs of its own, stands beside the encoder."""
        return bool(self.crossing)

    def default_texts(self, source: str) -> tuple[str, str]:
        """What to show a local copy from this `source` where nothing else is given."""
        return self.miniature_texts if source == "miniature" else self.texts

    def stack_of(self, name: str) -> Stack | None:
        """The blocks that a checkpoint lives in. None for what stands before, between or after blocks."""
        return next((s for s in self.stacks if name.startswith(f"{s.path}.")), None)

    def block_output(self, name: str) -> int | None:
        """The number of the block whose output a checkpoint is; -1 for what goes into the first block."""
        for stack in self.stacks:
            if name == stack.enters:
                return -1
            number = name.removeprefix(f"{stack.path}.").removesuffix(f".{stack.leaves}")
            if number.isdigit() and name == stack.output(number):
                return int(number)
        return None

    def crosses(self, name: str) -> bool:
        """Whether the decoder looks at the encoder's tokens in this checkpoint."""
        return any(piece in name for piece in self.crossing)

    def counts_decoder(self, name: str, axis: str) -> bool:
        """Whether an axis of a checkpoint, `token`, `query` or `key`, counts the decoder's own tokens."""
        if not self.encoder_decoder or name.startswith(f"{self.stacks[0].side}."):
            return False
        if self.crosses(name) and axis == "token":  # keys and values are made of the encoder's
            return not name.endswith((".k", ".v"))
        return not (self.crosses(name) and axis == "key")
