// MiniLM from token ids to a sentence embedding, rebuilt from its weight file: the twin of models/minilm.py, with the
// same steps, the same names and the same taps. What the axes mean stands there.

import { ACTIVATIONS, add, combine, dotProducts, embedding, layerNorm, linear, map, maskOf, mergeHeads, rowsOf, scale, softmax, splitHeads, unpadded, weighted, zeros } from "./ops.js";
import { InputError } from "./weights.js";

// ---------------------------------------------------------------- from ids to the embedding

/** Each token as a vector, and each text as one -> {lastHiddenState, poolerOutput, sentenceEmbedding}. */
export function forward(batch, model) {
  let x = embed(batch.tokenIds, model.at("embeddings"));
  const mask = makeMask(batch.mask, model);
  for (let i = 0; i < model.config.num_hidden_layers; i++) x = block(x, mask, model.at(`encoder.layer.${i}`));
  const hasPooler = model.weights.has("pooler.dense.weight");
  const pooled = hasPooler ? pooler(x, model.at("pooler")) : null;
  return { lastHiddenState: x, poolerOutput: pooled, sentenceEmbedding: sentence(x, batch.mask, model.at("sentence")) };
}

/** [batch, token] -> [batch, token, width]: three looked-up rows for each token, added. */
function embed(tokenIds, part) {
  const [, tokens] = tokenIds.shape;
  if (tokens > part.config.max_position_embeddings)
    throw new InputError(`${tokens} tokens are more than the ${part.config.max_position_embeddings} positions of this model`);
  const word = embedding(tokenIds, part.weights.get("word_embeddings.weight")); // [batch, token, width]
  part.tap("word_embeddings", word);
  // One sentence at a time, so every token is of type 0; BERT's second type is for sentence pairs.
  const types = { shape: tokenIds.shape, data: new Int32Array(tokenIds.data.length) }; // [batch, token]
  const tokenType = embedding(types, part.weights.get("token_type_embeddings.weight")); // [batch, token, width]
  part.tap("token_type_embeddings", tokenType);
  let x = add(word, tokenType); // the type before the position: in another order a third of the bits differ
  part.tap("word_and_type", x);
  const positions = { shape: [1, tokens], data: Int32Array.from({ length: tokens }, (_, i) => i) }; // [1, token]
  const position = embedding(positions, part.weights.get("position_embeddings.weight")); // [1, token, width]
  part.tap("position_embeddings", position);
  x = add(x, position); // [batch, token, width]
  part.tap("sum", x);
  x = layerNorm(x, part.at("LayerNorm"), part.config.layer_norm_eps);
  part.tap("LayerNorm", x);
  return x;
}

/** [batch, token] -> [batch, 1, query, key]: 0, or the lowest float; null where every token may look at every token. */
function makeMask(mask, model) {
  if (unpadded(mask)) return null;
  const [batch, tokens] = mask.shape;
  const added = maskOf(batch, tokens, tokens, (row, query, key) => mask.data[row * tokens + key]);
  model.tap("mask", added);
  return added;
}

// ------------------------------------------------------------------------------- one block

//   x ---+---> self_attention ---> dense --->(+)---> LayerNorm ---> x
//        |                                    ^
//        +------------------------------------+
//
//   x ---+---> intermediate -----> dense --->(+)---> LayerNorm ---> x
//        |                                    ^
//        +------------------------------------+

/** [batch, token, width] -> the same. BERT normalises *after* adding the input back (post-LN). */
function block(x, mask, part) {
  const attended = selfAttention(x, mask, part.at("attention.self")); // [batch, token, width]
  x = addAndNorm(attended, x, part.at("attention.output")); // [batch, token, width]
  const wide = intermediate(x, part.at("intermediate")); // [batch, token, wide]
  return addAndNorm(wide, x, part.at("output"));
}

/** Every token looks at every token. [batch, token, width] -> [batch, token, width]. */
function selfAttention(x, mask, part) {
  let [query, key, value] = ["query", "key", "value"].map((name) => {
    const projected = linear(x, part.at(name)); // [batch, token, width]
    part.tap(name, projected);
    return projected;
  });
  [query, key, value] = [query, key, value].map((t) => splitHeads(t, part.config.num_attention_heads));
  const headContext = eagerAttention(query, key, value, mask, part); // [batch, head, query, head width]
  part.tap("head_context", headContext);
  const context = mergeHeads(headContext); // [batch, token, width]
  part.tap("context", context);
  return context;
}

/** query, key, value [batch, head, token, head width] -> [batch, head, query, head width]. */
function eagerAttention(query, key, value, mask, part) {
  const products = dotProducts(query, key); // [batch, head, query, key]
  part.tap("product", products);
  const scaled = scale(products, query.shape.at(-1) ** -0.5); // [batch, head, query, key]
  part.tap("scaled", scaled);
  const scores = mask ? add(scaled, mask) : scaled; // [batch, head, query, key]
  part.tap("scores", scores);
  const probs = softmax(scores); // [batch, head, query, key]
  part.tap("probs", probs);
  return weighted(probs, value);
}

/** Widen to four times the width and bend. [batch, token, width] -> [batch, token, wide]. */
function intermediate(x, part) {
  const wide = linear(x, part.at("dense")); // [batch, token, wide]
  part.tap("dense", wide);
  const bent = ACTIVATIONS[part.config.hidden_act](wide, part.taps.at("intermediate_act_fn")); // [batch, token, wide]
  part.tap("intermediate_act_fn", bent);
  return bent;
}

/** A linear layer, plus what the half-block was given, normalised. -> [batch, token, width]. */
function addAndNorm(x, residual, part) {
  x = linear(x, part.at("dense")); // [batch, token, width]
  part.tap("dense", x);
  x = add(x, residual); // [batch, token, width]
  part.tap("residual", x);
  x = layerNorm(x, part.at("LayerNorm"), part.config.layer_norm_eps);
  part.tap("LayerNorm", x);
  return x;
}

// ------------------------------------------------------- from token vectors to one sentence

/** [batch, token, width] -> [batch, width], from the first token. The sentence embedding does not use it. */
function pooler(x, part) {
  const [batch, tokens, width] = x.shape;
  const first = rowsOf({ shape: [batch * tokens, width], data: x.data }, Array.from({ length: batch }, (_, row) => row * tokens));
  const dense = linear(first, part.at("dense")); // [batch, width]
  part.tap("dense", dense);
  const pooled = map(dense, Math.tanh); // [batch, width]
  part.tap("activation", pooled);
  return pooled;
}

/** [batch, token, width] -> [batch, width]: the mean over real tokens, at length 1. */
function sentence(x, mask, part) {
  const [batch, tokens, width] = x.shape;
  const masked = combine(x, { shape: [batch, tokens, 1], data: mask.data }, (value, real) => value * real); // [batch, token, width]
  part.tap("masked", masked);
  const [total, count] = [zeros([batch, width]), zeros([batch, width])];
  for (let row = 0; row < batch; row++)
    for (let k = 0; k < width; k++) {
      let sum = 0, real = 0;
      for (let token = 0; token < tokens; token++) {
        sum += masked.data[(row * tokens + token) * width + k];
        real += mask.data[row * tokens + token];
      }
      total.data[row * width + k] = sum;
      count.data[row * width + k] = Math.max(real, 1e-9);
    }
  part.tap("sum", total);
  part.tap("count", count);
  const mean = combine(total, count, (sum, number) => sum / number); // [batch, width]
  part.tap("mean", mean);
  const embedding = zeros([batch, width]);
  for (let row = 0; row < batch; row++) {
    const vector = mean.data.subarray(row * width, (row + 1) * width);
    const length = Math.max(Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)), 1e-12);
    vector.forEach((value, k) => (embedding.data[row * width + k] = value / length));
  }
  part.tap("embedding", embedding);
  return embedding;
}
