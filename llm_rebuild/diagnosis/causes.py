"""The catalogue of mistakes: what can go wrong when a transformer is rebuilt, each with one name.

The name is the cause that a diagnosis gives, the anchor of its section on the page of mistakes, and the label
of the mutants that make the mistake on purpose. `diagnosis/diagnose.py` tests which of them happened.
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
    "wrong-dtype": "numbers were computed or kept in another type",
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


# cause -> what to do about it, or what to look at: the second sentence of a diagnosis
REMEDIES = {
    "weight-transposed": (
        "Look at the weight's shape in the file: torch's Linear stores [out, in], GPT-2's Conv1D [in, out]."
    ),
    "wrong-weight": "Compare the key in your code with the checkpoint's name: they are the same string.",
    "wrong-block-weights": "The number of the block belongs into the key; count from 0.",
    "bias-missing": "Add what the file has under the same path as `bias`.",
    "bias-wrong": "The bias under the weight's own path is added, once.",
    "untied-head": (
        "See in config.json whether the head is tied to the token table, and in the file whether "
        "it has its own."
    ),
    "token-ids-wrong": "Look up the ids just as the tokenizer gave them.",
    "embedding-scaled": "This model adds its embeddings as they are.",
    "positions-missing": "Add the learned position of each token to its embedding.",
    "positions-shifted": "This model's first position is 0.",
    "positions-sinusoidal": (
        "Look the positions up in the file's table; the sines and cosines are the original transformer's."
    ),
    "positions-wrong": "The official forward pass numbers the places 0, 1, 2, …, padding counted.",
    "positions-not-advanced": "Start at the number of tokens that are in the cache.",
    "token-types-missing": "Add row 0 of the token type table to every token.",
    "token-types-wrong": "A single text is of type 0 throughout.",
    "qkv-order": "In the fused product lie query, key and value side by side, in this order.",
    "qkv-interleaved": "Cut the width into three first, then each third into heads.",
    "query-key-swapped": "Rows of the scores belong to queries, columns to keys.",
    "heads-split": "First view the width as [heads, head width], then transpose heads and tokens.",
    "heads-merged": "First transpose heads and tokens back, then flatten the last two axes.",
    "heads-count": "config.json says how many heads there are.",
    "wrong-operand": "Check which two tensors meet at this step.",
    "scale-missing": "Multiply the products by 1/√(head width) before the mask.",
    "scale-extra": "T5 never scales its scores; the others do it once.",
    "scale-wrong": "The scale is 1/√(head width): of one head, not of the whole width.",
    "scale-order": "Product, then scale, then bias or mask: the order of the checkpoints.",
    "mask-missing": "Add the mask to the scores before the softmax.",
    "mask-causal-missing": "A decoder's token may look at itself and at what came before.",
    "mask-padding-missing": "Hide the keys where the attention mask is 0.",
    "mask-inverted": (
        "1 means a token and 0 padding; what is hidden gets the lowest float, what is shown gets 0."
    ),
    "mask-off-by-one": "A token looks at itself, too, and at nothing later.",
    "mask-direction": "Axes are [query, key], and it is keys that are hidden.",
    "mask-extra": "An encoder's tokens, and cross-attention, look in both directions.",
    "mask-fill": "Add the lowest finite float, torch.finfo(dtype).min, where a key is hidden.",
    "mask-after-softmax": "Mask first, so that the shares of what is left sum to 1.",
    "softmax-axis": "Each query's shares sum to 1 over the keys: the last axis.",
    "softmax-missing": "The values are mixed by shares, not by scores.",
    "softmax-changed": "It is softmax over the last axis, of the scores as they are.",
    "gelu-exact": "config.json says gelu_new: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).",
    "gelu-tanh": "config.json says gelu: the exact one, by the error function.",
    "gelu-sigmoid": "x · sigmoid(1.702 x) is a rougher approximation that this model does not use.",
    "gelu-constant": "The constants are 1/2, √(2/π), 0.044715 and 1.",
    "activation-relu": "config.json names the activation.",
    "activation-other": "config.json names the activation.",
    "activation-missing": "Between the two linear layers of a feed-forward stands an activation.",
    "norm-eps": "config.json has the epsilon; it is not the same in all models.",
    "norm-eps-place": "The epsilon is added to the mean square, inside the root.",
    "norm-affine-missing": (
        "After normalising, multiply by the weight and add the bias, where the file has one."
    ),
    "norm-affine-wrong": "Normalise, then multiply by the weight, then add the bias, where the file has one.",
    "norm-mean-kept": "A LayerNorm subtracts each token's mean before it divides.",
    "norm-mean-subtracted": "T5's norm divides by the root mean square and subtracts nothing.",
    "norm-variance": "Divide by the root of the mean square, over n numbers and not n - 1.",
    "norm-axis": "Each token is normalised by itself, over its width.",
    "norm-missing": "See in which places the file has a norm: each is used once.",
    "norm-twice": "Each norm of the file is used once.",
    "norm-position": "BERT normalises after the residual was added, GPT-2 and T5 before the half-block.",
    "residual-missing": "Add what the half-block was given to what came out of it.",
    "residual-wrong": (
        "The residual is what came in before anything was done to it, the norm included where "
        "the model is pre-LN."
    ),
    "residual-scaled": "Both are added as they are.",
    "wrong-input": "Check which variable this step is given.",
    "block-order": "Blocks run from 0 up.",
    "block-skipped": "Every block of config.json's count runs, the first and the last included.",
    "block-repeated": "Every block runs once, each on the output of the one before.",
    "buckets-direction": (
        "The encoder has buckets for both directions, the decoder only for what came before."
    ),
    "buckets-sign": "The distance is the key's place minus the query's.",
    "buckets-count": (
        "Half of the buckets are exact, the others grow with the logarithm up to the largest distance."
    ),
    "position-bias-missing": "Only block 0 has the table, but every block's self-attention adds its numbers.",
    "position-bias-wrong": (
        "Encoder and decoder have a table each, in block 0; its numbers belong to [head, query, key]."
    ),
    "position-bias-extra": "Cross-attention has no position bias.",
    "cross-attention-source": (
        "In cross-attention the query comes from the decoder, key and value from the encoder's last output."
    ),
    "output-scale-missing": "With a tied head T5 multiplies its output by 1/√(width).",
    "output-scale-wrong": (
        "With a tied head T5 multiplies its output by 1/√(width), once, and the scores by nothing."
    ),
    "pool-padding": "Set padding to 0 and divide by the number of tokens.",
    "pool-cls": "This model's sentence is the mean of its tokens.",
    "pool-other": "This model's sentence is the mean of its tokens.",
    "not-normalised": "Divide by the length.",
    "normalised-wrong": "Divide each sentence's vector by its length, the root of the sum of squares.",
    "pooler-token": "BERT's pooler reads the first token.",
    "cache-not-appended": "Keep the old keys and values and put the new ones after them.",
    "cache-order": "Old ones first, the new ones after them, along the token axis.",
    "cache-mixed": "Keys stay with keys and values with values, each block its own.",
    "dropout": "Evaluation has no dropout; leave it out.",
    "wrong-dtype": "Compute in float32 throughout, as the weight file has it.",
    "rounding": "Take the operations in the official order; float addition does not associate.",
    "scaled": "Look for a factor at this step that the model does not have.",
    "shifted": "Look for something added at this step that the model does not add.",
    "permuted": "Look at the reshapes and transposes of this step.",
    "another-checkpoint": "Check the name in your tap and the variable beside it.",
    "not-computed": "Check whether this tensor is ever filled, and whether something is divided by zero.",
    "wrong-shape": "Follow the shapes in the checkpoint list up to here.",
    "missing": "Show it with `tap(name, tensor)`, or build it if you have not yet.",
    "unknown": "Compare this step with the checkpoint list: its inputs are right, its result is not.",
}
