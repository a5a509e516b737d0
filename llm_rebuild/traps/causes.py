"""The catalogue of mistakes: what can go wrong when a transformer is rebuilt, each with one name.

The name is the cause that a diagnosis gives, the anchor of its section on the page of mistakes, and the label
of the mutants that make the mistake on purpose. `traps/diagnose.py` tests which of them happened.
"""

from __future__ import annotations

PAGE = "part-4/mistakes"

# cause -> what happened, in a clause that can stand behind "block 3: "
CAUSES = {
    # which numbers of the weight file
    "weight-transposed": "a weight was used transposed, or not transposed where it should be",
    "wrong-weight": "the weight, norm or table of another part was used",
    "wrong-block-weights": "the weights of another block were used",
    "bias-missing": "a bias was left out",
    "bias-wrong": "a bias was subtracted, added twice, or taken from another part",
    "untied-head": "the head is not the token table that this model has for its head",
    # embeddings
    "token-ids-wrong": "other token ids were looked up than those that were given",
    "embedding-scaled": "the embeddings were multiplied by a number, as the original transformer does",
    "positions-missing": "the positions were not added",
    "positions-shifted": "positions start at the wrong number",
    "positions-sinusoidal": "positions are sines and cosines instead of the learned table",
    "positions-wrong": "positions are numbered in another way: reversed, all alike, or by the mask",
    "positions-not-advanced": "with a cache, the new token's position does not follow those before it",
    "token-types-missing": "the token type embedding was not added",
    "token-types-wrong": "the second token type was used, or the tokens were given mixed types",
    # queries, keys, values, heads
    "qkv-order": "query, key and value were cut from the fused product in the wrong order",
    "qkv-interleaved": "the fused product was cut head by head instead of query, key, value",
    "query-key-swapped": "query and key changed places",
    "heads-split": "the width was split into heads by a reshape that mixes tokens and heads",
    "heads-merged": "the heads were merged in the wrong way, without moving the tokens back in front",
    "heads-count": "another number of heads was used",
    "wrong-operand": "another tensor took part in a product than the one that belongs there",
    # scores
    "scale-missing": "the scores were not scaled",
    "scale-extra": "the scores were scaled where this model does not, or twice",
    "scale-wrong": "the scores were scaled by the wrong number",
    "scale-order": "the scaling and the addition of mask or bias changed places",
    "mask-missing": "no mask was added",
    "mask-causal-missing": "tokens can see later tokens; only padding is masked",
    "mask-padding-missing": "tokens can see padding",
    "mask-inverted": "the mask hides what it should show and shows what it should hide",
    "mask-off-by-one": "the causal mask is off by one token",
    "mask-direction": "the mask is transposed: tokens see later ones, or queries are masked instead of keys",
    "mask-extra": "a mask hides tokens that this model may look at",
    "mask-fill": "the mask adds the wrong number",
    "mask-after-softmax": "the mask was applied after the softmax",
    "softmax-axis": "the softmax ran over the wrong axis",
    "softmax-missing": "there was no softmax",
    "softmax-changed": "something else than a plain softmax was computed",
    # feed-forward
    "gelu-exact": "GELU was computed by the error function; this model has the tanh approximation",
    "gelu-tanh": "GELU was approximated by tanh; this model has the exact one",
    "gelu-sigmoid": "GELU was approximated by a sigmoid",
    "gelu-constant": "a constant in the GELU formula is wrong",
    "activation-relu": "ReLU was used instead of this model's activation",
    "activation-other": "another activation function was used",
    "activation-missing": "there was no activation function",
    # norms
    "norm-eps": "the norm has the wrong epsilon",
    "norm-eps-place": "the norm's epsilon was added outside the root, or not at all",
    "norm-affine-missing": "the norm's learned stretch or shift was left out",
    "norm-affine-wrong": "the norm's learned stretch or shift was applied in another way",
    "norm-mean-kept": "the mean was not subtracted: an RMS norm where this model has a LayerNorm",
    "norm-mean-subtracted": "the mean was subtracted: a LayerNorm where this model has an RMS norm",
    "norm-variance": "the variance was divided by n - 1, or the norm divides by something else than its root",
    "norm-axis": "the norm ran over the wrong axis",
    "norm-missing": "a norm was left out",
    "norm-twice": "a norm was applied twice",
    "norm-position": "the norm stands on the wrong side: before instead of after the half-block, or after",
    # residuals and blocks
    "residual-missing": "the residual was not added",
    "residual-wrong": "the residual was taken from the wrong place",
    "residual-scaled": "the residual sum was scaled, subtracted, or has a part twice",
    "wrong-input": "a step was given another tensor than the one that belongs there",
    "block-order": "the blocks run in another order",
    "block-skipped": "a block was left out",
    "block-repeated": "a block ran twice, or one ran in another's place",
    # T5
    "buckets-direction": "distances fall into the wrong kind of buckets: one-way for two-way, or the reverse",
    "buckets-sign": "distances were counted with the opposite sign",
    "buckets-count": "the buckets were computed with the wrong number, limit or formula",
    "position-bias-missing": "the position bias was not added, in every block or in those after the first",
    "position-bias-wrong": "the position bias comes from another table, or its axes are mixed up",
    "position-bias-extra": "a position bias was added where this model has none",
    "cross-attention-source": "cross-attention reads the wrong tokens",
    "output-scale-missing": "the decoder's output was not scaled before the head",
    "output-scale-wrong": "the decoder's output was scaled by the wrong number",
    # sentence embedding
    "pool-padding": "padding was averaged in",
    "pool-cls": "the first token was taken instead of the mean",
    "pool-other": "tokens were pooled in another way: largest, last, sum, or divided by the wrong count",
    "not-normalised": "the embedding was not brought to length 1",
    "normalised-wrong": "the embedding was normalised in another way",
    "pooler-token": "the pooler did not read the first token",
    # decoding
    "cache-not-appended": "new keys and values replaced those in the cache instead of following them",
    "cache-order": "keys and values stand in the cache in the wrong order or place",
    "cache-mixed": "keys and values changed places in the cache, or one of them was kept wrongly",
    # numbers
    "dropout": "dropout is on",
    "wrong-dtype": "numbers were computed or kept in a narrower type",
    "rounding": "the same formula in another order of operations: only the rounding differs",
    # what can be said where no mistake of the catalogue fits
    "scaled": "the tensor is the official one times a number",
    "shifted": "the tensor is the official one plus a constant or a vector",
    "permuted": "the tensor holds the official numbers in another order",
    "another-checkpoint": "the tensor is the official one of another checkpoint",
    "not-computed": "the tensor is empty, constant or not finite",
    "wrong-shape": "the tensor has another shape",
    "missing": "the checkpoint was never shown",
    "unknown": "none of the known mistakes reproduces this tensor",
}


def chapter(cause: str) -> str:
    """Where the course explains it: a page's path and an anchor."""
    return f"{PAGE}/#{cause}"
