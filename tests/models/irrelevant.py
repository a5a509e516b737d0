"""Fields of config.json that change no forward pass in evaluation, each with the reason: the tests of configs
leave them aside, and try them out. Nothing in the package reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_rebuild.models.architecture import Architecture
from llm_rebuild.models.rotary import ABOVE, PLACES

# Fields that every official config class has and no forward pass in evaluation depends on.
EVERYWHERE = {
    "_name_or_path": "says where the file came from",
    "architectures": "names official classes, not operations",
    "attn_implementation": "chosen by the caller, by name",
    **dict.fromkeys(
        ("dtype", "torch_dtype"),
        "how the file keeps its numbers: the caller says in which both sides compute",
    ),
    "gradient_checkpointing": "training only",
    "id2label": "names of classes, for a classifier head",
    "label2id": "names of classes, for a classifier head",
    "output_attentions": "asks for more outputs, changes none",
    "output_hidden_states": "asks for more outputs, changes none",
    "problem_type": "loss functions only",
    "return_dict": "the form of the answer",
    "transformers_version": "says who wrote the file",
}
# A rebuild's file -> those of its own.
OF_THE_MODEL = {
    "minilm": {
        "attention_probs_dropout_prob": "no dropout in evaluation",
        "hidden_dropout_prob": "no dropout in evaluation",
        "classifier_dropout": "no classifier here, and no dropout in evaluation",
        "initializer_range": "the weights come from the file",
        "pad_token_id": "padding is known from the mask; the row for padding is in the file",
        "bos_token_id": "the tokenizer adds special tokens",
        "eos_token_id": "the tokenizer adds special tokens",
        "use_cache": "an encoder keeps no keys and values",
        "tie_word_embeddings": "no output head here",
    },
    "gpt2": {
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), "no dropout in evaluation"),
        "initializer_range": "the weights come from the file",
        **{
            f"summary_{word}": "for a head of two tasks that the language model does not have"
            for word in ("activation", "first_dropout", "proj_to_labels", "type", "use_proj")
        },
        **dict.fromkeys(("bos_token_id", "eos_token_id"), "for generation, which gets it from its caller"),
        "pad_token_id": "padding is known from the mask",
        "use_cache": "chosen by the caller",
    },
    "t5": {
        "classifier_dropout": "no classifier here, and no dropout in evaluation",
        "dropout_rate": "no dropout in evaluation",
        "initializer_factor": "the weights come from the file",
        "eos_token_id": "for generation, which gets it from its caller",
        "use_cache": "chosen by the caller",
        "dense_act_fn": "follows from feed_forward_proj, and is refused where it does not",
        "is_gated_act": "follows from feed_forward_proj, and is refused where it does not",
        "tie_word_embeddings": "read as scale_decoder_outputs; the head is the one that the file has",
    },
    "llama": {
        "attention_dropout": "no dropout in evaluation",
        "initializer_range": "the weights come from the file",
        "pretraining_tp": "how training was shared among machines",
        **dict.fromkeys(("bos_token_id", "eos_token_id"), "for generation, which gets it from its caller"),
        "pad_token_id": "padding is known from the mask",
        "use_cache": "chosen by the caller",
        **dict.fromkeys((*PLACES, *ABOVE), "read as rope, and refused where they contradict each other"),
        **dict.fromkeys(("use_sliding_window", "max_window_layers"), "read as window"),
    },
}


def of(architecture: Architecture) -> Mapping[str, str]:
    """Those of a model, and of its relatives."""
    return OF_THE_MODEL[architecture.file]
