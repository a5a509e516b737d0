"""What a model's folder asks of generation where its caller says nothing.

As the official `generate` has it: the fields of generation_config.json, and only where there is no such file
those of config.json. A field that is not obeyed here is refused by its name, unless it cannot change a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.files import read_json
from llm_rebuild.json_fields import FLAG, NUMBER, Kind, check, or_null, shown, whole
from llm_rebuild.using.settings import SettingError, Settings, SpecialIds

FILE = "generation_config.json"
NEW_TOKENS = 40  # how many tokens are written where nobody says how many
TOP_K = 50  # officially the default of whoever asks for do_sample and names no top_k

FINITE = Kind("a finite number", lambda v: type(v) in (int, float) and abs(v) < float("inf"))
EARLY = Kind("true, false or never", lambda v: type(v) is bool or v == "never")
# Fields that are obeyed: what they must be, and the setting that they are here.
OBEYED: Mapping[str, tuple[Kind, str]] = {
    "max_new_tokens": (whole(1), "max_new_tokens"),
    "do_sample": (FLAG, "sample"),
    "temperature": (NUMBER, "temperature"),
    "top_k": (whole(), "top_k"),
    "top_p": (NUMBER, "top_p"),
    "repetition_penalty": (NUMBER, "repetition_penalty"),
    "no_repeat_ngram_size": (whole(), "no_repeat_ngram"),
    "num_beams": (whole(1), "beams"),
    "length_penalty": (FINITE, "length_penalty"),
    "early_stopping": (EARLY, "early_stopping"),
}
IDS = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id")

# Fields that must have this value, be null, or be absent; of the second table only where tokens are drawn.
FIXED: Mapping[str, Any] = {
    "min_length": 0, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1, "remove_invalid_values": False, "renormalize_logits": False, "token_healing": False,
    "use_cache": True, "num_return_sequences": 1, "num_beam_groups": 1, "diversity_penalty": 0.0,
    "low_memory": False, "is_assistant": False, "use_mtp": False,
    **dict.fromkeys((
        "min_new_tokens", "max_time", "stop_strings", "bad_words_ids", "sequence_bias", "suppress_tokens",
        "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "force_words_ids",
        "constraints", "exponential_decay_length_penalty", "watermarking_config", "penalty_alpha",
        "dola_layers", "prompt_lookup_num_tokens", "assistant_early_exit", "cache_implementation",
        "cache_config", "prefill_chunk_size", "continuous_batching_config", "compile_config",
    )),
}  # fmt: skip
FIXED_IN_DRAWS: Mapping[str, Any] = {
    "min_p": None, "top_h": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
}  # fmt: skip
# Fields that change no token here: who wrote the file, what else is handed out, how another model would help.
IRRELEVANT = {
    "transformers_version", "_from_model_config", "_commit_hash", "output_attentions", "output_hidden_states",
    "output_scores", "output_logits", "return_dict_in_generate", "disable_compile", "max_cache_len",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "assistant_lookbehind", "target_lookbehind", "max_matching_ngram_size", "assistant_ensemble_weight",
    "speculation_type",
}  # fmt: skip


class Defaults(NamedTuple):
    """What a folder asks for. `longest` is the most tokens that a row may have, its prompt included."""

    settings: Settings
    special: SpecialIds
    longest: int | None


def defaults(copy: LocalCopy, drawing: bool = False) -> Defaults:
    """What the folder of a model asks of generation.

    drawing  Whether tokens are drawn because its caller says so.
    Raises InputError, by file and field, for what is not supported.
    """
    path = copy.folder / FILE
    own = path.exists()
    name, fields = (FILE, read_json(path)) if own else ("config.json", copy.config)
    fields = {field: value for field, value in fields.items() if value is not None}
    vocabulary, encoder_decoder = copy.rebuild.config.vocab_size, copy.rebuild.architecture.encoder_decoder

    values: dict[str, Any] = {}
    for field, (kind, setting) in OBEYED.items():
        check(fields.get(field), or_null(kind), f"{name}: {field}")
        values[setting] = fields.get(field)
    values["no_repeat_ngram"] = values["no_repeat_ngram"] or None  # here, none is no 0
    values["sample"] = bool(values["sample"])  # a temperature alone asks for no draw in a file
    if values["sample"] and values["top_k"] is None:
        values["top_k"] = TOP_K
    values["top_k"] = values["top_k"] or None
    check(fields.get("max_length"), or_null(whole(1)), f"{name}: max_length")

    fixed = {**FIXED, **(FIXED_IN_DRAWS if drawing or values["sample"] else {})}
    for field, value in fields.items():
        if field in fixed and value != fixed[field]:
            raise InputError(f"{name}: {field} is {shown(value)}; only {fixed[field]!r} is supported")
        listed = (*OBEYED, *IDS, *FIXED, *FIXED_IN_DRAWS, *IRRELEVANT, "max_length")
        if own and field not in listed:
            raise InputError(f"{name}: {field} is {shown(value)}; this field is not supported")
    try:
        settings = Settings(**values)
    except SettingError as error:
        raise InputError(f"{name}: {error}") from None

    def ids(field: str) -> tuple[int, ...]:
        """One field's, one or several. Raises InputError for those that are not in the vocabulary."""
        value = fields.get(field, [])
        several = value if isinstance(value, list) else [value]
        for token in several:
            if type(token) is not int or not 0 <= token < vocabulary:
                raise InputError(
                    f"{name}: {field} is {shown(token)}; the vocabulary has 0 to {vocabulary - 1}"
                )
        return tuple(several)

    ends, start = ids("eos_token_id"), None
    if encoder_decoder:
        starts = ids("decoder_start_token_id") or ids("bos_token_id")
        if not starts:
            raise InputError(f"{name}: decoder_start_token_id is missing; the decoder starts with it")
        start = starts[0]
    padding = (*ids("pad_token_id"), *ends, None)[0]
    return Defaults(settings, SpecialIds(ends, padding, start), fields.get("max_length"))
