"""The official model's files, read by transformers: its config, its class, the model itself."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_rebuild.errors import InputError, listed, one_line
from llm_rebuild.models.architecture import Architecture
from llm_rebuild.weights import DTYPES, Pages


def load(folder: Path, architecture: Architecture | None, attention: str, dtype: str) -> Any:
    """The official model in evaluation mode, from files alone: of the class that the architecture's record
    names, else of the one that its config does. `dtype` is one of `weights.DTYPES`.

    Its weights must all be there: transformers would invent what is missing. Raises InputError for whatever
    the library does not take.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    config = official_config(folder)
    official = getattr(transformers, architecture.official_class) if architecture else text_class(config)
    try:
        with _quiet():
            model, loaded = official.from_pretrained(
                folder,
                config=config,
                attn_implementation=attention,
                dtype=DTYPES[dtype],
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # each model class refuses in its own way
        raise InputError(f"transformers cannot load {folder} ({one_line(error)})") from error
    pooler = {key for key in model.state_dict() if key.startswith("pooler.")}
    if pooler and pooler <= set(loaded["missing_keys"]):  # transformers would invent other numbers each time
        model.pooler = None  # which the encoders that have one can do without
    if missing := sorted(key for key in loaded["missing_keys"] if key in model.state_dict()):
        raise InputError(
            f"the weight file lacks {listed(missing, 1)}, which {type(model).__name__} needs; "
            "it does not fit its config.json"
        )
    model.config.return_dict = True  # the form of the answer, and none of its numbers
    pages = Pages(model.parameters())
    for path, part in model.named_modules() if pages.large else ():
        if not path or path.rpartition(".")[2].isdigit():  # the model, and each of its blocks
            part.register_forward_hook(lambda *_: pages.give_back())
    return model.eval()


def official_config(folder: Path) -> Any:
    """A folder's config as transformers' own class. InputError where that knows no such model."""
    import transformers

    try:
        with _quiet():
            return transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # each config class refuses in its own way
        raise InputError(f"config.json: transformers does not take it ({one_line(error)})") from error


def text_class(config: Any) -> Any:
    """The class that the config names, else the one with an answer on top that its kind has. InputError
    where there is none, or it reads no token ids."""
    import transformers

    named = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    classes = [c for c in named if isinstance(c, type) and issubclass(c, transformers.PreTrainedModel)]
    for auto in ("AutoModelForSeq2SeqLM", "AutoModel") if config.is_encoder_decoder else ("AutoModel",):
        mapping = getattr(transformers, auto)._model_mapping
        classes += [mapping[type(config)]] if type(config) in mapping else []
    if not classes:
        raise InputError(f"config.json: transformers has no text model for model_type {config.model_type!r}")
    official: Any = classes[0]
    if "input_ids" not in inspect.signature(official.forward).parameters:
        raise InputError(f"config.json: {official.__name__} does not read token ids; it is no text model")
    return official


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of the library's own while it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
