// T5 from token ids to the scores of the answer's next token, rebuilt from its weight file: the twin of models/t5.py,
// with the same steps, the same names and the same taps. What the axes mean stands there.

import { Cache, KeysAndValues } from "./cache.js";
import { ACTIVATIONS, add, dotProducts, embedding, map, maskOf, mean, mergeHeads, multiply, product, scale, softmax, splitHeads, unpadded, weighted, zeros } from "./ops.js";
import { InputError } from "./weights.js";

const BIAS = "block.0.layer.0.SelfAttention";

// -------------------------------------------------------------------- from ids to scores

/**
 * Scores of the token that follows each token of the answer -> {logits, encoded, cache}.
 *
 * batch  {tokenIds, mask, decoderIds, decoderMask}: the text, and what the decoder reads, the start token first.
 * cache  What an earlier call returned, or `new Cache()` to begin with: then keys and values are kept, and the
 *        encoder runs in the first call only. The batch has the answer's new tokens.
 */
export function forward(batch, model, cache = null) {
  const encoded = cache?.tokens ? null : encode(batch, model);
  return decode(batch, encoded, model, cache);
}

/** The text, each token with all others in view. [batch, token] -> [batch, token, width]. */
export function encode(batch, model) {
  let x = embed(batch.tokenIds, model, "encoder");
  const [part, tokens] = [model.at("encoder"), x.shape[1]];
  const bias = positionBias(tokens, tokens, true, part.at(BIAS)); // [1, head, query, key]
  const looks = { bias, mask: maskOfText(batch.mask, tokens, part, "mask") };
  for (let i = 0; i < model.config.num_layers; i++) x = encoderBlock(x, looks, part.at(`block.${i}.layer`));
  x = rmsNorm(x, part.at("final_layer_norm")); // [batch, token, width]
  part.tap("final_layer_norm", x);
  return x;
}

/** `encoded` is what `encode` made of the texts, [batch, token, width]. null only where the cache has it. */
export function decode(batch, encoded, model, cache = null) {
  const rows = batch.tokenIds.shape[0];
  const start = { shape: [rows, 1], data: new Int32Array(rows).fill(model.config.decoder_start_token_id ?? 0) };
  const ids = batch.decoderIds ?? start; // [batch, decoder token]
  let x = embed(ids, model, "decoder");
  const [part, tokens] = [model.at("decoder"), x.shape[1]];
  const keys = tokens + (cache?.tokens ?? 0);
  const bias = positionBias(tokens, keys, false, part.at(BIAS)); // [1, head, query, key]
  const looks = { bias, mask: maskOfAnswer(batch.decoderMask, rows, tokens, keys, part) };
  const nearness = zeros([1, model.config.num_heads, tokens, batch.mask.shape[1]]); // it knows no distances
  const across = { bias: nearness, mask: maskOfText(batch.mask, tokens, part, "cross_mask") };
  const blocks = [];
  for (let i = 0; i < (model.config.num_decoder_layers ?? model.config.num_layers); i++) {
    let past = cache ? (cache.block(i) ?? [new KeysAndValues(), new KeysAndValues()]) : [null, null];
    [x, past] = decoderBlock(x, encoded, [looks, across], part.at(`block.${i}.layer`), past);
    blocks.push(past);
  }
  x = rmsNorm(x, part.at("final_layer_norm")); // [batch, token, width]
  part.tap("final_layer_norm", x);
  return { logits: head(x, model), encoded, cache: cache && new Cache(blocks) };
}

/** [batch, token] -> [batch, token, width]: a looked-up row for each token, and no position. */
function embed(tokenIds, model, side) {
  if (tokenIds.shape[1] < 1) throw new InputError(`the ${side} has no tokens to read; it needs at least one`);
  const own = `${side}.embed_tokens.weight`; // not in the hub's file: one table serves both sides
  const x = embedding(tokenIds, model.weights.get(model.weights.has(own) ? own : "shared.weight"));
  model.tap(`${side}.embed_tokens`, x);
  return x;
}

/** [batch, token, width] -> [batch, token, vocabulary]. Tied: the table that turned ids into vectors turns vectors into scores. */
function head(x, model) {
  let scaled = x;
  if (model.config.scale_decoder_outputs) {
    scaled = scale(x, model.config.d_model ** -0.5); // [batch, token, width]
    model.tap("decoder.scaled", scaled);
  }
  const logits = product(scaled, model.weights.get(model.weights.has("lm_head.weight") ? "lm_head.weight" : "shared.weight"));
  model.tap("lm_head", logits);
  return logits;
}

// --------------------------------------------------- who may look at whom, and from how far: the looks

/** A learned number a head for each distance -> [1, head, query, key]. The queries are the last keys. */
function positionBias(queries, keys, bothWays, part) {
  const distances = { shape: [queries, keys], data: new Int32Array(queries * keys) }; // below 0 for what came before
  for (let query = 0; query < queries; query++)
    for (let key = 0; key < keys; key++) distances.data[query * keys + key] = key - (keys - queries + query);
  const bucket = { shape: distances.shape, data: distances.data.map((distance) => bucketOf(distance, bothWays, part.config)) };
  const table = embedding(bucket, part.weights.get("relative_attention_bias.weight")); // [query, key, head]
  part.tap("relative_attention_bias", table);
  const heads = table.shape[2];
  const y = zeros([1, heads, queries, keys]);
  for (let at = 0; at < queries * keys; at++)
    for (let head = 0; head < heads; head++) y.data[head * queries * keys + at] = table.data[at * heads + head];
  return y;
}

/** A distance as the number of a bucket: near ones have their own, far ones share, the more the farther. */
export function bucketOf(distance, bothWays, config) {
  let buckets = config.relative_attention_num_buckets, first = 0;
  if (bothWays) {
    buckets = Math.floor(buckets / 2); // one half for what comes after
    first = distance > 0 ? buckets : 0;
    distance = Math.abs(distance);
  } else distance = -Math.min(distance, 0); // what comes after is masked
  const exact = Math.floor(buckets / 2);
  if (distance < exact) return first + distance;
  // In float32, step by step: where a distance stands exactly between two buckets, the last bit decides.
  const { fround } = Math;
  const share = fround(fround(Math.log(fround(distance / exact))) / fround(Math.log(config.relative_attention_max_distance / exact)));
  return first + Math.min(exact + Math.trunc(fround(share * (buckets - exact))), buckets - 1);
}

/** Every token of the text may be looked at, padding not. -> [batch, 1, query, key], or null where there is no padding. */
function maskOfText(mask, queries, part, name) {
  if (unpadded(mask)) return null;
  const [batch, keys] = mask.shape;
  const added = maskOf(batch, queries, keys, (row, query, key) => mask.data[row * keys + key]);
  part.tap(name, added);
  return added;
}

/** No token of the answer may look at a later one, nor at padding. -> [batch, 1, query, key]. */
function maskOfAnswer(mask, batch, queries, keys, part) {
  const real = (row, key) => !mask || mask.data[row * keys + key];
  const added = maskOf(batch, queries, keys, (row, query, key) => key <= query + keys - queries && real(row, key));
  part.tap("mask", added);
  return added;
}

// -------------------------------------------------------------------------------- one block

//   x ---+---> layer_norm ---> self_attention --->(+)---> x
//        |                                         ^
//        +-----------------------------------------+
//
//   then, in the decoder, the same with cross_attention, which looks at the encoder's tokens; and last
//
//   x ---+---> layer_norm ---> feed_forward ----->(+)---> x
//        |                                         ^
//        +-----------------------------------------+

/** [batch, token, width] -> the same. T5 normalises *before* each part and adds the untouched input afterwards. */
function encoderBlock(x, looks, part) {
  [x] = selfAttention(x, looks, part.at("0"), null);
  return feedForward(x, part.at("1"));
}

/** [batch, token, width] -> the same. `looks` and `past` are of the answer's tokens and of the text's. */
function decoderBlock(x, encoded, looks, part, past) {
  let own, far;
  [x, own] = selfAttention(x, looks[0], part.at("0"), past[0]);
  [x, far] = crossAttention(x, encoded, looks[1], part.at("1"), past[1]);
  return [feedForward(x, part.at("2")), [own, far]];
}

/** Tokens look at each other. [batch, token, width] -> [batch, token, width]. */
function selfAttention(x, looks, part, past) {
  const normed = rmsNorm(x, part.at("layer_norm")); // [batch, token, width]
  part.tap("layer_norm", normed);
  const inside = part.at("SelfAttention");
  const query = linear(normed, inside.at("q")); // [batch, token, heads × head width]
  inside.tap("q", query);
  let [key, value] = keysAndValues(normed, inside); // [batch, head, key, head width]
  if (past) {
    past = past.then(key, value);
    ({ key, value } = past); // those in the cache first
    inside.tap("key", key);
    inside.tap("value", value);
  }
  x = add(x, mix(splitHeads(query, part.config.num_heads), key, value, looks, inside)); // [batch, token, width]
  part.tap("residual", x);
  return [x, past];
}

/** The answer's tokens look at the text's. [batch, token, width] -> [batch, token, width]. */
function crossAttention(x, encoded, looks, part, past) {
  const normed = rmsNorm(x, part.at("layer_norm")); // [batch, token, width]
  part.tap("layer_norm", normed);
  const inside = part.at("EncDecAttention");
  const query = linear(normed, inside.at("q")); // [batch, token, heads × head width]
  inside.tap("q", query);
  let key, value;
  if (past?.tokens) ({ key, value } = past); // [batch, head, key, head width]
  else if (!encoded) throw new InputError("cross-attention has nothing to look at: give what encode() made, or a filled cache");
  else {
    [key, value] = keysAndValues(encoded, inside); // [batch, head, key, head width]
    if (past) {
      past = past.then(key, value);
      inside.tap("key", past.key);
      inside.tap("value", past.value);
    }
  }
  x = add(x, mix(splitHeads(query, part.config.num_heads), key, value, looks, inside)); // [batch, token, width]
  part.tap("residual", x);
  return [x, past];
}

/** What the source's tokens offer, and what they pass on. -> twice [batch, head, key, head width]. */
function keysAndValues(source, part) {
  const [key, value] = [linear(source, part.at("k")), linear(source, part.at("v"))];
  part.tap("k", key);
  part.tap("v", value);
  return [splitHeads(key, part.config.num_heads), splitHeads(value, part.config.num_heads)];
}

/** What both attentions do with queries, keys and values, heads apart. -> [batch, token, width]. */
function mix(query, key, value, looks, part) {
  const headContext = eagerAttention(query, key, value, looks, part); // [batch, head, query, head width]
  part.tap("head_context", headContext);
  const context = mergeHeads(headContext); // [batch, token, heads × head width]
  part.tap("context", context);
  const output = linear(context, part.at("o")); // [batch, token, width]
  part.tap("o", output);
  return output;
}

/** query, key, value [batch, head, token, head width] -> [batch, head, query, head width]. Scores are never scaled. */
function eagerAttention(query, key, value, looks, part) {
  const products = dotProducts(query, key); // [batch, head, query, key]
  part.tap("product", products);
  const biased = add(products, looks.bias); // [batch, head, query, key]
  part.tap("biased", biased);
  const scores = looks.mask ? add(biased, looks.mask) : biased; // [batch, head, query, key]
  part.tap("scores", scores);
  const probs = softmax(scores); // [batch, head, query, key]
  part.tap("probs", probs);
  return weighted(probs, value);
}

/** Normalise, widen, bend, narrow, and add what was untouched back. [batch, token, width] -> the same. */
function feedForward(x, part) {
  const normed = rmsNorm(x, part.at("layer_norm")); // [batch, token, width]
  part.tap("layer_norm", normed);
  const [inside, { gated, activation }] = [part.at("DenseReluDense"), part.config];
  const first = gated ? "wi_0" : "wi";
  const wide = linear(normed, inside.at(first)); // [batch, token, wide]
  inside.tap(first, wide);
  let bent = ACTIVATIONS[activation](wide, inside.taps.at("act")); // [batch, token, wide]
  inside.tap("act", bent);
  if (gated) {
    const gate = linear(normed, inside.at("wi_1")); // [batch, token, wide]
    inside.tap("wi_1", gate);
    bent = multiply(bent, gate); // [batch, token, wide]
    inside.tap("gated", bent);
  }
  const output = linear(bent, inside.at("wo")); // [batch, token, width]
  inside.tap("wo", output);
  x = add(x, output); // [batch, token, width]
  part.tap("residual", x);
  return x;
}

/** x [..., in] -> [..., out]. T5's linear layers have no bias. */
const linear = (x, part) => product(x, part.weights.get("weight"));

/** Each token's numbers scaled to mean square 1, then stretched; never shifted. Shape as before. */
function rmsNorm(x, part) {
  const square = map(x, (value) => value * value); // [batch, token, width]
  part.tap("square", square);
  const meanSquare = mean(square); // [batch, token, 1]
  part.tap("mean_square", meanSquare);
  const aboveZero = map(meanSquare, (value) => value + part.config.layer_norm_epsilon); // [batch, token, 1]
  part.tap("above_zero", aboveZero);
  const inverseRoot = map(aboveZero, (value) => 1 / Math.sqrt(value)); // [batch, token, 1]
  part.tap("inverse_root", inverseRoot);
  const normed = multiply(x, inverseRoot); // [batch, token, width]
  part.tap("normed", normed);
  return multiply(part.weights.get("weight"), normed); // [batch, token, width]
}
