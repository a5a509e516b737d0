"""Train the MiniLM miniature: sentence embeddings in which paraphrases are neighbours.

python -m tools.miniatures.train_minilm --out llm_rebuild/miniatures/minilm
"""

from __future__ import annotations

import random
import string
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizer

from tools.miniatures import paraphrases
from tools.miniatures.training import (
    Curve,
    arguments,
    finish,
    fresh_folder,
    save_tokenizer,
    save_weights,
    spread_initial_values,
    start,
    train,
    write_json,
)

NAME = "minilm"
STEPS = 3200
SCENES = 40  # a batch: so many scenes, their twins, and two tellings of each
PAIRS = 24  # and so many pairs of tellings for the pooler
TEMPERATURE = 0.05
VOCABULARY = 640
POSITIONS = 128
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 96,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
    "model_type": "bert",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def train_tokenizer(folder: Path, seed: int) -> BertTokenizer:
    """vocab.txt and tokenizer.json of a lower-casing WordPiece."""
    library = BertWordPieceTokenizer(lowercase=True)
    lines = list(paraphrases.tokenizer_lines(random.Random(seed), 20_000))
    # Every letter and digit, at the start of a word and within one, so that any English word can be spelled.
    # The trainer numbers the pieces within a word in the order of a hash table, another one in each run, and
    # settles ties by number: naming them among the special tokens gives them their numbers beforehand.
    letters = string.ascii_lowercase + string.digits
    lines += [letter * 2 for letter in letters]
    library.train_from_iterator(
        lines,
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=[*SPECIAL, *letters, *(f"##{letter}" for letter in letters)],
        initial_alphabet=list(string.punctuation),
        limit_alphabet=200,
        show_progress=False,
    )
    if library.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the text gives {library.get_vocab_size()} pieces, not {VOCABULARY}")
    library.save_model(str(folder))
    tokenizer = BertTokenizer.from_pretrained(folder, model_max_length=POSITIONS)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def sentence_transformers_files(folder: Path) -> None:
    """What tells that the sentence's vector is the mean of the token vectors, scaled to length 1."""
    package = "sentence_transformers.models"
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{package}.Normalize"},
        ],
    )
    (folder / "1_Pooling").mkdir()
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": CONFIG["hidden_size"],
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": POSITIONS, "do_lower_case": False})


def embed(model: BertModel, tokenizer: BertTokenizer, sentences: list[str]) -> Tensor:
    """Mean over the tokens that are no padding, scaled to length 1: [sentence, width]."""
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def main() -> None:
    options = arguments(NAME, STEPS)
    text = start(options.seed, options.threads)
    folder = fresh_folder(options.out)
    write_json(folder / "config.json", CONFIG)
    tokenizer = train_tokenizer(folder, options.seed)
    sentence_transformers_files(folder)

    # No dropout in training, since each batch is new text; the saved config keeps the family's 0.1.
    model = BertModel(
        BertConfig.from_pretrained(folder, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
    )
    spread_initial_values(model)
    # What the pooler learns from: do two sentences tell the same scene? The head is dropped after training,
    # as BERT's own next-sentence head was, and the pooler stays in the file.
    same_scene = nn.Linear(CONFIG["hidden_size"], 2)

    def draw_loss(step: int) -> Tensor:
        scenes: dict[paraphrases.Scene, None] = {}
        while len(scenes) < SCENES:
            scene = paraphrases.draw_scene(text, held_out=False)
            scenes[scene] = None
            if scene.twin:
                scenes[scene.twin] = None
        tellings = [scene.two_tellings(text) for scene in scenes]
        both = embed(model, tokenizer, [one for one, _ in tellings] + [other for _, other in tellings])
        first, second = both.chunk(2)
        similarity = first @ second.mT / TEMPERATURE
        wanted = torch.arange(len(tellings))
        contrast = F.cross_entropy(similarity, wanted) + F.cross_entropy(similarity.mT, wanted)

        same = [text.random() < 0.5 for _ in range(PAIRS)]
        # The neighbour in the list is the twin, where there is one: the hardest wrong answer.
        second_sentences = [
            tellings[i if alike else (i + 1) % len(tellings)][1] for i, alike in enumerate(same)
        ]
        first_sentences = [one for one, _ in tellings[:PAIRS]]
        pairs = tokenizer(first_sentences, second_sentences, padding=True, return_tensors="pt")
        judged = same_scene(model(**pairs).pooler_output)
        return contrast + 0.5 * F.cross_entropy(judged, torch.tensor(same, dtype=torch.long))

    scenes = paraphrases.held_out_scenes(options.seed + 1, 500)
    telling = random.Random(options.seed + 2)
    tellings = [scene.two_tellings(telling) for scene in scenes]

    def retrieval() -> float:
        queries = embed(model, tokenizer, [one for one, _ in tellings])
        candidates = embed(model, tokenizer, [other for _, other in tellings])
        return (queries @ candidates.mT).argmax(1).eq(torch.arange(len(tellings))).float().mean().item()

    curve = Curve(NAME, "retrieval@1")
    trained = nn.ModuleList([model, same_scene])
    train(
        trained,
        draw_loss,
        curve=curve,
        steps=options.steps,
        learning_rate=1e-3,
        measure=retrieval,
        measure_every=400,
    )

    tensors = dict(model.state_dict())
    # The published file holds this buffer, too.
    tensors["embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    save_weights(tensors, folder)
    finish(folder, curve, options)


if __name__ == "__main__":
    main()
