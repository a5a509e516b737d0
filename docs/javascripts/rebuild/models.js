// The rebuilds, and what their config.json may say. The twin of the _config.py files; Llama has its own.
//
// A field that changes what is computed is read, or it must have the value that the rebuild is written for. A config
// cannot ask for something and silently not get it. What is read has the sizes that the shapes of weights speak of,
// too, and `positions`: the longest input, in tokens; null where none is too long.

import { divides, oneOf, read, shown } from "./config.js";
import { ACTIVATIONS } from "./ops.js";
import { InputError, Part, Weights } from "./weights.js";

function readBert(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 30522, hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072,
      max_position_embeddings: 512, type_vocab_size: 2, layer_norm_eps: 1e-12, hidden_act: "gelu",
    },
    fixed: { is_causal: false, is_decoder: false, add_cross_attention: false, position_embedding_type: "absolute", is_encoder_decoder: false },
    activation: "hidden_act",
  });
  divides("hidden_size", fields.hidden_size, "num_attention_heads", fields.num_attention_heads);
  return { ...fields, positions: fields.max_position_embeddings };
}

function readGpt2(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 50257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12, n_inner: null, activation_function: "gelu_new",
      layer_norm_epsilon: 1e-5, scale_attn_weights: true, scale_attn_by_inverse_layer_idx: false, tie_word_embeddings: true,
    },
    fixed: { add_cross_attention: false, is_causal: true, is_encoder_decoder: false, reorder_and_upcast_attn: false },
    activation: "activation_function",
    aliases: { n_embd: "hidden_size", n_positions: "max_position_embeddings", n_head: "num_attention_heads", n_layer: "num_hidden_layers" },
  });
  divides("n_embd", fields.n_embd, "n_head", fields.n_head);
  return { ...fields, wide: fields.n_inner || 4 * fields.n_embd, positions: fields.n_positions, needed: fields.tie_word_embeddings ? [] : ["lm_head.weight"] };
}

function readT5(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 32128, d_model: 512, d_kv: 64, d_ff: 2048, num_layers: 6, num_decoder_layers: null, num_heads: 8,
      relative_attention_num_buckets: 32, relative_attention_max_distance: 128, layer_norm_epsilon: 1e-6,
      feed_forward_proj: "relu", scale_decoder_outputs: config.tie_word_embeddings !== false, pad_token_id: 0, decoder_start_token_id: config.pad_token_id ?? 0,
    },
    fixed: { is_causal: true, is_decoder: false, is_encoder_decoder: true },
    aliases: { d_model: "hidden_size", num_heads: "num_attention_heads", num_layers: "num_hidden_layers", d_kv: "head_dim" },
  });
  const { feed_forward_proj: proj, relative_attention_num_buckets: buckets, relative_attention_max_distance: farthest } = fields;
  oneOf("feed_forward_proj", proj, Object.keys(ACTIVATIONS).flatMap((name) => [name, `gated-${name}`]));
  if (buckets < 4) throw new InputError(`config.json: relative_attention_num_buckets is ${buckets}, expected 4 or more`);
  if (farthest <= Math.floor(buckets / 2))
    throw new InputError(`config.json: relative_attention_max_distance is ${farthest}, expected more than half of relative_attention_num_buckets, ${buckets}`);
  const gated = proj.startsWith("gated-"), name = proj.replace("gated-", "");
  const activation = gated && name === "gelu" ? "gelu_new" : name; // what config.json calls "gated-gelu" is the tanh formula
  for (const [field, value] of [["dense_act_fn", activation], ["is_gated_act", gated]])
    if (field in config && config[field] !== value) throw new InputError(`config.json: ${field} is ${shown(config[field])}, but feed_forward_proj ${shown(proj)} means ${shown(value)}`);
  const decoderLayers = fields.num_decoder_layers ?? fields.num_layers;
  return { ...fields, gated, activation, decoder_layers: decoderLayers, num_decoder_layers: decoderLayers, positions: null };
}

const LLAMA = {
  name: "llama", load: () => import("./llama.js"), read: async (config) => (await import("./llama_config.js")).readLlama(config), prefix: "",
};

/** model_type -> how its rebuild is loaded, how its config is read (at once, or later), and the prefix that its keys have in some files. */
export const ARCHITECTURES = {
  bert: { name: "minilm", load: () => import("./minilm.js"), read: readBert, prefix: "bert." },
  gpt2: { name: "gpt2", load: () => import("./gpt2.js"), read: readGpt2, prefix: "transformer." },
  t5: { name: "t5-small", load: () => import("./t5.js"), read: readT5, prefix: "" },
  llama: LLAMA,
  mistral: LLAMA,
  qwen2: LLAMA,
  qwen3: LLAMA,
};

/** What a key of a weight file is called here: without the prefix of a model that was saved with a head, and by its name of today. */
export function nameOf(key, { prefix }) {
  const name = key.startsWith(prefix) ? key.slice(prefix.length) : key;
  return name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");
}

/** A model that is ready to run, from the two files that make it: the text of config.json, and the weights. */
export async function open(config, tensors, tap) {
  const architecture = ARCHITECTURES[config.model_type];
  if (!architecture)
    throw new InputError(`config.json: model_type is ${shown(config.model_type)}; there is a rebuild for ${Object.keys(ARCHITECTURES).join(", ")} only`);
  const weights = new Weights(new Map([...tensors].map(([key, tensor]) => [nameOf(key, architecture), tensor])));
  const module = await architecture.load();
  return { ...architecture, module, forward: module.forward, model: new Part(weights, await architecture.read(config), tap) };
}
