"""What sentence-transformers does around a network: which tokens go in, and how their vectors become one.

    text → prompt + text → lower case → tokens, cut → the network → pooling → length 1

Which of it a model needs stands in files beside its config.json. They are read as strictly as that is:
what this package does not do is refused by the field's name.

Sources  Reimers and Gurevych (2019), Sentence-BERT, section 3 for the three poolings; the files, their
         defaults and their older spellings: sentence-transformers 6.2, base/model.py and
         base/modules/transformer.py, sentence_transformer/modules/pooling.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.files import check_regular, read_json
from llm_rebuild.json_fields import FLAG, TEXT, Each, Kind, check, one_of, or_null, shown, whole

KEY = "sentence_transformers"  # under which a local copy's config has the pipeline

MODULES, ABOUT = "modules.json", "config_sentence_transformers.json"
NETWORK = "sentence_bert_config.json"
# Its older names. The first of all these that is there and holds something counts.
OLDER = tuple(
    f"sentence_{name}_config.json"
    for name in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

POOLINGS = ("cls", "max", "mean")
SIMILARITIES = ("cosine", "dot")
# The older way to say it: a field for each, of which those that are true count, and `mean` if none is.
OLDER_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

ANYTHING = Kind("anything", lambda value: True)


def only(value: Any) -> Kind:
    """This value, where the field is not absent."""
    return Kind(f"{value!r}, the only one that is supported", lambda asked: asked == value)


# What a file's fields may be. There is no other field.
FIELDS: Mapping[str, Mapping[str, Any]] = {
    NETWORK: {
        "max_seq_length": or_null(whole(2)),
        "do_lower_case": FLAG,
        "transformer_task": only("feature-extraction"),
        "modality_config": only({"text": {"method": "forward", "method_output_name": "last_hidden_state"}}),
        "module_output_name": only("token_embeddings"),
        "query_length": only(None),
        "document_length": only(None),
        "query_expansion": only(None),
        "tokenizer_name_or_path": only(None),
        "processing_kwargs": only({}),
        **{
            f"{what}_{word}": only({})
            for what in ("model", "processor", "tokenizer", "config")
            for word in ("kwargs", "args")
        },
        "unpad_inputs": ANYTHING,  # padding left out of a computation on a GPU
    },
    "pooling": {
        "include_prompt": only(True),
        **dict.fromkeys(("word_embedding_dimension", "embedding_dimension"), ANYTHING),
        **dict.fromkeys(("pooling_mode", *OLDER_POOLINGS), ANYTHING),  # read by `_pooling`
    },
    "normalize": dict.fromkeys(("module_input_name", "module_output_name"), only("sentence_embedding")),
    ABOUT: {
        "prompts": Each(or_null(TEXT)),
        "default_prompt_name": or_null(TEXT),
        "similarity_fn_name": or_null(one_of(*SIMILARITIES)),
        "model_type": only("SentenceTransformer"),
        **dict.fromkeys(("__version__", "requirements"), ANYTHING),  # with what it was made
    },
}


@dataclass(frozen=True)
class Pipeline:
    """What is done around the network. As it stands here: what the library does where no file says more.

    max_tokens   Texts are cut to so many tokens, added ones included. None: to what the tokenizer's own
                 settings and the model's positions allow.
    lower_case   Whether texts are lower-cased before the tokenizer sees them.
    prompt       What is put before every text.
    pooling      Which vector stands for the text: the `mean` of its tokens' vectors, the `max`imum of each
                 number, or the first token's, `cls`.
    normalize    Whether that is brought to length 1.
    similarity   How two of them are compared: by the `cosine` of their angle, or the `dot` product.
    published    Whether the folder's own modules.json says so.
    """

    max_tokens: int | None = None
    lower_case: bool = False
    prompt: str = ""
    pooling: str = "mean"
    normalize: bool = False
    similarity: str = "cosine"
    published: bool = False

    @classmethod
    def read(cls, folder: Path) -> Pipeline:
        """From the files of a folder. Raises InputError, by file and field, for what is not supported."""
        own = _object(folder / "tokenizer_config.json").get("model_max_length")
        longest = int(own) if isinstance(own, int | float) and 2 <= own < 1e9 else None
        path = folder / MODULES
        if not path.exists():
            return cls(max_tokens=longest)
        modules = _modules(path)
        network = next((f for f in (NETWORK, *OLDER) if _object(folder / f)), NETWORK)
        read, about = _checked(folder / network, NETWORK), _checked(folder / ABOUT, ABOUT)
        if normalize := "Normalize" in modules:
            _checked(modules["Normalize"] / "config.json", "normalize")
        return cls(
            max_tokens=read.get("max_seq_length") or longest,
            lower_case=read.get("do_lower_case", False),
            prompt=_prompt(folder / ABOUT, about),
            pooling=_pooling(modules["Pooling"] / "config.json"),
            normalize=normalize,
            similarity=about.get("similarity_fn_name") or "cosine",
            published=True,
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, by name."""
        return asdict(self)


def _modules(path: Path) -> dict[str, Path]:
    """The steps that modules.json lists, by their class, and the folder of each."""
    listed = read_json(path, kind=list)
    kinds = [_kind(path, module) for module in listed]
    if len({str(module["name"]) for module in listed}) < len(listed):
        raise InputError(f"{path}: two modules have the same name")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{path} lists {', '.join(kinds) or 'nothing'}; only Transformer, Pooling and then perhaps "
            "Normalize are supported"
        )
    if Path(str(listed[0]["path"])) != Path():
        raise InputError(f"{path}: the path of Transformer is {listed[0]['path']!r}; only '' is supported")
    return {kind: path.parent / str(module["path"]) for kind, module in zip(kinds, listed, strict=True)}


def _kind(path: Path, module: Any) -> str:
    """The class that an entry of modules.json names."""
    wanted = ("idx", "name", "path", "type")
    if not isinstance(module, dict) or not all(key in module for key in wanted[1:]):
        raise InputError(f"{path}: each module must have a name, a path and a type")
    if unknown := [key for key in module if key not in wanted and module[key]]:
        raise InputError(f"{path}: {unknown[0]} of a module is {module[unknown[0]]!r}; it is not supported")
    package, _, kind = str(module["type"]).rpartition(".")
    if package.partition(".")[0] != "sentence_transformers":
        raise InputError(f"{path}: type is {module['type']!r}; only sentence_transformers' own are supported")
    return kind


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; {} if there is no such file."""
    return read_json(path) if path.exists() else {}


def _checked(path: Path, file: str) -> dict[str, Any]:
    """A file's object, with no field in it that asks for something that is not done."""
    read = _object(path)
    for field, value in read.items():
        if field not in FIELDS[file]:
            raise InputError(f"{path}: {field} is {shown(value)}; this field is not supported")
        check(value, FIELDS[file][field], f"{path}: {field}")
    return read


def _prompt(path: Path, about: Mapping[str, Any]) -> str:
    """The prompt that every text gets where nobody asks for another."""
    name = about.get("default_prompt_name")
    prompts = {"query": None, "document": None, **about.get("prompts", {})}  # these two need no listing
    if name is not None and name not in prompts:
        raise InputError(f"{path}: default_prompt_name is {shown(name)}, which is not one of prompts")
    return prompts.get(name) or ""


def _pooling(path: Path) -> str:
    check_regular(path)
    read = _checked(path, "pooling")
    asked = [field for field in OLDER_POOLINGS if read.get(field)]
    field, modes = " and ".join(asked), [OLDER_POOLINGS[field] for field in asked] or ["mean"]
    if "pooling_mode" in read:
        field, modes = "pooling_mode", read["pooling_mode"]
        modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        words = " and ".join(map(str, modes))
        raise InputError(f"{path}: {field} asks for {words}; only one of {', '.join(POOLINGS)} is supported")
    return str(modes[0])
