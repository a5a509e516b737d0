// GPT-2 from token ids to the scores of the next token, rebuilt from its weight file: the twin of models/gpt2.py, with
// the same steps, the same names and the same taps. What the axes mean stands there.

import { Cache, KeysAndValues } from "./cache.js";
import { ACTIVATIONS, add, dotProducts, embedding, layerNorm, maskOf, mergeHeads, product, scale, softmax, splitHeads, transposed, weighted, zeros } from "./ops.js";
import { InputError } from "./weights.js";

// -------------------------------------------------------------------- from ids to scores

/**
 * Scores of the token that follows each token -> {logits, cache}.
 *
 * batch  {tokenIds, mask, positions}: the new tokens, a mask for those in the cache and then the new ones, and
 *        positions where they are not simply counted.
 * cache  What an earlier call returned, or `new Cache()` to begin with: then keys and values are kept.
 */
export function forward(batch, model, cache = null) {
  const after = body(batch, model, cache);
  return { logits: head(after.x, model), cache: after.cache };
}

/** [batch, token] -> {x [batch, token, width], cache}: everything but the scores. */
export function body(batch, model, cache = null) {
  let x = embed(batch, model);
  const mask = makeMask(batch.mask, x, model);
  const blocks = [];
  for (let i = 0; i < model.config.n_layer; i++) {
    let seen = cache && (cache.block(i) ?? new KeysAndValues());
    [x, seen] = block(x, mask, model.at(`h.${i}`), seen);
    if (seen) blocks.push(seen);
  }
  x = layerNorm(x, model.at("ln_f"), model.config.layer_norm_epsilon); // [batch, token, width]
  model.tap("ln_f", x);
  return { x, cache: cache && new Cache(blocks) };
}

/** [batch, token, width] -> [batch, token, vocabulary]. Tied: the table that turned ids into vectors turns vectors into scores. */
export function head(x, model) {
  const logits = product(x, model.weights.get(model.weights.has("lm_head.weight") ? "lm_head.weight" : "wte.weight"));
  model.tap("lm_head", logits);
  return logits;
}

/** [batch, token] -> [batch, token, width]: two looked-up rows for each token, added. */
function embed({ tokenIds, mask, positions }, model) {
  const [tokens, keys] = [tokenIds.shape[1], mask.shape[1]];
  if (tokens < 1) throw new InputError("the prompt is empty; GPT-2 needs at least one token to continue");
  if (keys > model.config.n_positions)
    throw new InputError(`${keys} tokens are more than the ${model.config.n_positions} positions of this model`);
  const which = embedding(tokenIds, model.weights.get("wte.weight")); // [batch, token, width]
  model.tap("wte", which);
  const counted = { shape: [1, tokens], data: Int32Array.from({ length: tokens }, (_, i) => keys - tokens + i) };
  const where = embedding(positions ?? counted, model.weights.get("wpe.weight")); // [1, token, width]
  model.tap("wpe", where);
  const x = add(which, where); // [batch, token, width]
  model.tap("embeddings", x);
  return x;
}

/** [batch, key] -> [batch, 1, query, key]: 0, or the lowest float: no token may look at a later one, nor at padding. */
function makeMask(mask, x, model) {
  const [batch, keys] = mask.shape;
  const earlier = keys - x.shape[1];
  const added = maskOf(batch, x.shape[1], keys, (row, query, key) => key <= query + earlier && mask.data[row * keys + key]);
  model.tap("mask", added);
  return added;
}

// -------------------------------------------------------------------------------- one block

//   x ---+---> ln_1 ---> attn --->(+)---> x
//        |                         ^
//        +-------------------------+
//
//   x ---+---> ln_2 ---> mlp ---->(+)---> x
//        |                         ^
//        +-------------------------+

/** [batch, token, width] -> the same. GPT-2 normalises *before* each half and adds the untouched input afterwards. */
function block(x, mask, part, past) {
  let normed = layerNorm(x, part.at("ln_1"), part.config.layer_norm_epsilon); // [batch, token, width]
  part.tap("ln_1", normed);
  const [attended, seen] = selfAttention(normed, mask, part.at("attn"), past);
  x = add(attended, x); // [batch, token, width]
  part.tap("attn.residual", x);
  normed = layerNorm(x, part.at("ln_2"), part.config.layer_norm_epsilon); // [batch, token, width]
  part.tap("ln_2", normed);
  x = add(x, feedForward(normed, part.at("mlp"))); // [batch, token, width]
  part.tap("mlp.residual", x);
  return [x, seen];
}

/** Every token looks at itself and at those before. [batch, token, width] -> [batch, token, width]. */
function selfAttention(x, mask, part, past) {
  const qkv = conv1d(x, part.at("c_attn")); // [batch, token, 3 × width]: one product makes all three
  part.tap("c_attn", qkv);
  let [query, key, value] = thirds(qkv).map((third) => splitHeads(third, part.config.n_head));

  const seen = past && past.then(key, value);
  if (seen) {
    ({ key, value } = seen); // [batch, head, key, head width], those in the cache first
    part.tap("key", key);
    part.tap("value", value);
  }

  const headContext = eagerAttention(query, key, value, mask, part); // [batch, head, query, head width]
  part.tap("head_context", headContext);
  const context = mergeHeads(headContext); // [batch, token, width]
  part.tap("context", context);
  const output = conv1d(context, part.at("c_proj")); // [batch, token, width]
  part.tap("c_proj", output);
  return [output, seen];
}

/** 1/√(head width), and where config.json asks for it, divided by the block's number from 1. */
function scaleOf(query, part) {
  const scale = part.config.scale_attn_weights ? query.shape.at(-1) ** -0.5 : 1;
  return part.config.scale_attn_by_inverse_layer_idx ? scale / (part.layer + 1) : scale;
}

/** query, key, value [batch, head, token, head width] -> [batch, head, query, head width]. */
function eagerAttention(query, key, value, mask, part) {
  const products = dotProducts(query, key); // [batch, head, query, key]
  part.tap("product", products);
  const scaled = scale(products, scaleOf(query, part));
  part.tap("scaled", scaled);
  const scores = add(scaled, mask); // [batch, head, query, key]
  part.tap("scores", scores);
  const probs = softmax(scores); // [batch, head, query, key]
  part.tap("probs", probs);
  return weighted(probs, value);
}

/** Widen to four times the width, bend, narrow again. [batch, token, width] -> the same. */
function feedForward(x, part) {
  const wide = conv1d(x, part.at("c_fc")); // [batch, token, wide]
  part.tap("c_fc", wide);
  const bent = ACTIVATIONS[part.config.activation_function](wide, part.taps.at("act")); // [batch, token, wide]
  part.tap("act", bent);
  const output = conv1d(bent, part.at("c_proj")); // [batch, token, width]
  part.tap("c_proj", output);
  return output;
}

const turned = new WeakMap(); // a weight -> its transpose, made once

/** x [..., in] -> [..., out]. A linear layer whose weight lies in the file as [in, out]: a trap of GPT-2. */
function conv1d(x, part) {
  const weight = part.weights.get("weight"); // [in, out]
  if (!turned.has(weight)) turned.set(weight, transposed(weight));
  return product(x, turned.get(weight), part.weights.get("bias"));
}

/** [batch, token, 3 × width] -> three times [batch, token, width]. */
function thirds(x) {
  const width = x.shape[2] / 3;
  return [0, 1, 2].map((number) => {
    const y = zeros([...x.shape.slice(0, 2), width]);
    for (let at = 0, from = number * width; at < y.data.length; at += width, from += 3 * width)
      y.data.set(x.data.subarray(from, from + width), at);
    return y;
  });
}
