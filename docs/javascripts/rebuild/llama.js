// Llama and its relatives from token ids to the scores of the next token, rebuilt from the weight file: the twin of
// models/llama.py, with the same steps, the same names and the same taps. What the axes mean stands there.

import { Cache, KeysAndValues } from "./cache.js";
import { ACTIVATIONS, add, concatenate, dotProducts, embedding, map, maskOf, mean, mergeHeads, multiply, product, rowsOf, scale, softmax, splitHeads, weighted, zeros } from "./ops.js";
import { frequencies } from "./rotary.js";
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
  const mask = makeMask(batch.mask, x, model.at("model"));
  const turn = makeTurn(batch, model.at("model.rotary_emb"));
  const blocks = [];
  for (let i = 0; i < model.config.num_hidden_layers; i++) {
    let seen = cache && (cache.block(i) ?? new KeysAndValues());
    [x, seen] = block(x, mask, turn, model.at(`model.layers.${i}`), seen);
    if (seen) blocks.push(seen);
  }
  x = rmsNorm(x, model.at("model.norm")); // [batch, token, width]
  model.tap("model.norm", x);
  return { x, cache: cache && new Cache(blocks) };
}

/**
 * [batch, token, width] -> [batch, token, vocabulary]. In small models tied: the table that turned ids into vectors turns vectors
 * into scores. Large ones have a table of their own.
 */
export function head(x, model) {
  const logits = product(x, model.weights.get(model.weights.has("lm_head.weight") ? "lm_head.weight" : "model.embed_tokens.weight"));
  model.tap("lm_head", logits);
  return logits;
}

/** [batch, token] -> [batch, token, width]: a looked-up row for each token, and no position. */
function embed({ tokenIds, mask }, model) {
  const [tokens, keys, limit] = [tokenIds.shape[1], mask.shape[1], model.config.positions];
  if (tokens < 1) throw new InputError("the prompt is empty; the model needs at least one token to continue");
  if (limit !== null && keys > limit)
    throw new InputError(`${keys} tokens reach as far as sliding_window, ${limit + 1}; give at most ${limit}`);
  const x = embedding(tokenIds, model.weights.get("model.embed_tokens.weight")); // [batch, token, width]
  model.tap("model.embed_tokens", x);
  return x;
}

/** [batch, key] -> [batch, 1, query, key]: 0, or the lowest float: no token may look at a later one, nor at padding. */
function makeMask(mask, x, part) {
  const [batch, keys] = mask.shape;
  const earlier = keys - x.shape[1];
  const added = maskOf(batch, x.shape[1], keys, (row, query, key) => key <= query + earlier && mask.data[row * keys + key]);
  part.tap("mask", added);
  return added;
}

// ------------------------------------------- where a token stands: an angle for each pair of numbers

/**
 * Cosines and sines of the angles by which the numbers of a query or a key are turned -> {cos, sin} [batch or 1, token, head width].
 *
 * Positions are 0, 1, 2, … from the row's start, padding counted, where the batch has none of its own.
 */
function makeTurn({ tokenIds, mask, positions }, part) {
  const [tokens, keys] = [tokenIds.shape[1], mask.shape[1]];
  const counted = { shape: [1, tokens], data: Int32Array.from({ length: tokens }, (_, i) => keys - tokens + i) };
  const { shape, data } = positions ?? counted; // [batch or 1, token]
  const perPosition = frequencies(data, part.config.head_width, part.config.rope); // [pair]
  const turns = multiply({ shape: [...shape, 1], data }, perPosition); // [batch or 1, token, pair]
  part.tap("turns", turns);
  const angles = concatenate([turns, turns], 2); // [batch or 1, token, head width]: number i pairs with i + pairs
  part.tap("angles", angles);
  let [cos, sin] = [map(angles, Math.cos), map(angles, Math.sin)];
  part.tap("cos", cos);
  part.tap("sin", sin);
  if (part.config.rope.rope_type === "yarn") {
    [cos, sin] = [scale(cos, part.config.rope.lengthened), scale(sin, part.config.rope.lengthened)];
    part.tap("longer_cos", cos);
    part.tap("longer_sin", sin);
  }
  return { cos, sin };
}

// -------------------------------------------------------------------------------- one block

//   x ---+---> input_layernorm ---------> self_attn --->(+)---> x
//        |                                               ^
//        +-----------------------------------------------+
//
//   x ---+---> post_attention_layernorm ---> mlp ------>(+)---> x
//        |                                               ^
//        +-----------------------------------------------+

/** [batch, token, width] -> the same. Normalised *before* each half; the untouched input is added afterwards. */
function block(x, mask, turn, part, past) {
  let normed = rmsNorm(x, part.at("input_layernorm")); // [batch, token, width]
  part.tap("input_layernorm", normed);
  const [attended, seen] = selfAttention(normed, mask, turn, part.at("self_attn"), past);
  x = add(x, attended); // [batch, token, width]
  part.tap("self_attn.residual", x);
  normed = rmsNorm(x, part.at("post_attention_layernorm")); // [batch, token, width]
  part.tap("post_attention_layernorm", normed);
  x = add(x, feedForward(normed, part.at("mlp"))); // [batch, token, width]
  part.tap("mlp.residual", x);
  return [x, seen];
}

/** Every token looks at itself and at those before. [batch, token, width] -> [batch, token, width]. */
function selfAttention(x, mask, turn, part, past) {
  let [query, key, value] = ["q", "k", "v"].map((letter) => projected(x, letter, part));
  query = rotate(query, turn, part.at("query"));
  key = rotate(key, turn, part.at("key"));

  const seen = past && past.then(key, value);
  if (seen) {
    ({ key, value } = seen); // [batch, kv head, key, head width], those in the cache first
    part.tap("keys", key);
    part.tap("values", value);
  }

  const headContext = eagerAttention(query, key, value, mask, part); // [batch, head, query, head width]
  const context = mergeHeads(headContext); // [batch, token, heads × head width]
  part.tap("context", context);
  const output = linear(context, part.at("o_proj")); // [batch, token, width]
  part.tap("o_proj", output);
  return [output, seen];
}

/** Query, key or value. [batch, token, width] -> [batch, head or kv head, token, head width]. */
function projected(x, letter, part) {
  const flat = linear(x, part.at(`${letter}_proj`)); // [batch, token, heads × head width]
  part.tap(`${letter}_proj`, flat);
  const [batch, tokens, wide] = flat.shape, heads = wide / part.config.head_width;
  if (!part.config.norms_query_and_key || letter === "v") return splitHeads(flat, heads);
  const normed = rmsNorm({ shape: [batch, tokens, heads, part.config.head_width], data: flat.data }, part.at(`${letter}_norm`));
  part.tap(`${letter}_norm`, normed); // Qwen 3: each head's numbers by themselves
  return splitHeads({ shape: flat.shape, data: normed.data }, heads);
}

/**
 * Turn each pair of numbers by its angle. x [batch, head, token, head width] -> the same.
 *
 * Number i pairs with number i + head width / 2, and (a, b) becomes (a cos - b sin, b cos + a sin). The paper, and the original
 * Llama files, pair neighbours instead; files in this layout have their rows moved.
 */
function rotate(x, turn, part) {
  const byCos = multiply(x, forAllHeads(turn.cos));
  part.tap("by_cos", byCos);
  const [first, second] = halves(x); // twice [batch, head, token, pair]
  const minus = scale(second, -1);
  part.tap("minus", minus);
  const swapped = concatenate([minus, first], 3);
  part.tap("swapped", swapped);
  const bySin = multiply(swapped, forAllHeads(turn.sin));
  part.tap("by_sin", bySin);
  const turned = add(byCos, bySin);
  part.tap("", turned);
  return turned;
}

/** [batch or 1, token, head width] -> [batch or 1, 1, token, head width]. */
const forAllHeads = ({ shape: [rows, ...rest], data }) => ({ shape: [rows, 1, ...rest], data });

/** The first and the second half of the last axis. */
const halves = (x) => [0, 1].map((half) => taken(x, (pair, pairs) => half * pairs + pair));

/** Half as many numbers of the last axis: for each pair that whose place `placeOf` says. */
function taken(x, placeOf) {
  const width = x.shape.at(-1), pairs = width / 2;
  const y = zeros([...x.shape.slice(0, -1), pairs]);
  for (let at = 0; at < y.data.length; at++) {
    const pair = at % pairs;
    y.data[at] = x.data[((at - pair) / pairs) * width + placeOf(pair, pairs)];
  }
  return y;
}

/** Each kv head as often as it is needed, side by side. [batch, kv head, key, head width] -> [batch, head, key, head width]. */
function repeat(x, part) {
  const [batch, heads, ...rest] = x.shape, { group } = part.config;
  const rows = Array.from({ length: batch * heads * group }, (_, head) => Math.floor(head / group));
  return { shape: [batch, heads * group, ...rest], data: rowsOf({ shape: [batch * heads, ...rest], data: x.data }, rows).data };
}

/** query [batch, head, query, head width], key and value [batch, kv head, key, head width] -> as query. */
function eagerAttention(query, key, value, mask, part) {
  const products = dotProducts(query, repeat(key, part)); // [batch, head, query, key]
  part.tap("product", products);
  const scaled = scale(products, query.shape.at(-1) ** -0.5);
  part.tap("scaled", scaled);
  const scores = add(scaled, mask); // [batch, head, query, key]
  part.tap("scores", scores);
  const probs = softmax(scores); // [batch, head, query, key]
  part.tap("probs", probs);
  const headContext = weighted(probs, repeat(value, part)); // [batch, head, query, head width]
  part.tap("head_context", headContext);
  return headContext;
}

/** Widen twice, one side bent and then the gate of the other, and narrow again ("SwiGLU"). [batch, token, width] -> the same. */
function feedForward(x, part) {
  const gate = linear(x, part.at("gate_proj")); // [batch, token, wide]
  part.tap("gate_proj", gate);
  const bent = ACTIVATIONS[part.config.hidden_act](gate, part.taps.at("act_fn")); // [batch, token, wide]
  part.tap("act_fn", bent);
  const up = linear(x, part.at("up_proj")); // [batch, token, wide]
  part.tap("up_proj", up);
  const gated = multiply(bent, up); // [batch, token, wide]
  part.tap("gated", gated);
  const output = linear(gated, part.at("down_proj")); // [batch, token, width]
  part.tap("down_proj", output);
  return output;
}

/** x [..., in] -> [..., out]. Few of these models have biases; Qwen 2 has them for query, key, value. */
function linear(x, part) {
  const biased = part.config.biases.includes(part.path.split(".").at(-1));
  return product(x, part.weights.get("weight"), biased ? part.weights.get("bias") : null);
}

/** Each token's numbers scaled to mean square 1, then stretched; never shifted. Shape as before. */
function rmsNorm(x, part) {
  const square = map(x, (value) => value * value); // [..., width]
  part.tap("square", square);
  const meanSquare = mean(square); // [..., 1]
  part.tap("mean_square", meanSquare);
  const aboveZero = map(meanSquare, (value) => value + part.config.rms_norm_eps); // [..., 1]: epsilon is inside the root
  part.tap("above_zero", aboveZero);
  const inverseRoot = map(aboveZero, (value) => 1 / Math.sqrt(value)); // [..., 1]
  part.tap("inverse_root", inverseRoot);
  const normed = multiply(x, inverseRoot); // [..., width]
  part.tap("normed", normed);
  return multiply(part.weights.get("weight"), normed); // [..., width]: stretched
}
