// The rebuilds, and what their config.json may say. The twin of models/config.py and of the _config.py files.
//
// A field that changes what is computed is read, or it must have the value that the rebuild is written for. A config
// cannot ask for something and silently not get it. What is read has the sizes that the shapes of weights speak of,
// too, and `positions`: the longest input, in tokens; null where none is too long.

import { ACTIVATIONS } from "./ops.js";
import { readRope } from "./rotary.js";
import { InputError, Part, Weights } from "./weights.js";

const shown = (value) => String(JSON.stringify(value)).slice(0, 60);

/** The fields of `defaults` as config.json has them; `fixed` ones must have their value; `activations` be known. */
function read(config, { defaults, fixed, activation }) {
  for (const [field, value] of Object.entries(fixed))
    if (field in config && config[field] !== value)
      throw new InputError(`config.json: ${field} is ${shown(config[field])}; this rebuild supports only ${shown(value)}`);
  const fields = {};
  for (const [field, usual] of Object.entries(defaults)) {
    const value = config[field] ?? usual;
    const size = typeof usual === "number" && Number.isInteger(usual) && !field.endsWith("_id");
    if (usual !== null && typeof value !== typeof usual) throw new InputError(`config.json: ${field} is ${shown(value)}, expected a ${typeof usual}`);
    if (size && (!Number.isSafeInteger(value) || value < 1)) throw new InputError(`config.json: ${field} is ${shown(value)}, expected a whole number from 1`);
    fields[field] = value;
  }
  if (activation && !(fields[activation] in ACTIVATIONS))
    throw new InputError(`config.json: ${activation} is ${shown(fields[activation])}; this rebuild supports ${Object.keys(ACTIVATIONS).join(", ")}`);
  return fields;
}

function readBert(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 30522, hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, intermediate_size: 3072,
      max_position_embeddings: 512, type_vocab_size: 2, layer_norm_eps: 1e-12, hidden_act: "gelu",
    },
    fixed: { position_embedding_type: "absolute", is_decoder: false, add_cross_attention: false, chunk_size_feed_forward: 0 },
    activation: "hidden_act",
  });
  return { ...fields, positions: fields.max_position_embeddings };
}

function readGpt2(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 50257, n_positions: 1024, n_embd: 768, n_layer: 12, n_head: 12, n_inner: null, activation_function: "gelu_new",
      layer_norm_epsilon: 1e-5, scale_attn_weights: true, scale_attn_by_inverse_layer_idx: false, tie_word_embeddings: true,
    },
    fixed: { reorder_and_upcast_attn: false, add_cross_attention: false },
    activation: "activation_function",
  });
  return { ...fields, wide: fields.n_inner || 4 * fields.n_embd, positions: fields.n_positions, needed: fields.tie_word_embeddings ? [] : ["lm_head.weight"] };
}

const FEED_FORWARDS = { relu: ["relu", false], "gated-gelu": ["gelu_new", true], "gated-silu": ["silu", true], gelu: ["gelu", false] };

function readT5(config) {
  const fields = read(config, {
    defaults: {
      vocab_size: 32128, d_model: 512, d_kv: 64, d_ff: 2048, num_layers: 6, num_decoder_layers: null, num_heads: 8,
      relative_attention_num_buckets: 32, relative_attention_max_distance: 128, layer_norm_epsilon: 1e-6,
      feed_forward_proj: "relu", scale_decoder_outputs: config.tie_word_embeddings !== false, decoder_start_token_id: config.pad_token_id ?? 0,
    },
    fixed: {},
  });
  if (!(fields.feed_forward_proj in FEED_FORWARDS))
    throw new InputError(`config.json: feed_forward_proj is ${shown(fields.feed_forward_proj)}; this rebuild supports ${Object.keys(FEED_FORWARDS).join(", ")}`);
  [fields.activation, fields.gated] = FEED_FORWARDS[fields.feed_forward_proj];
  const decoderLayers = fields.num_decoder_layers ?? fields.num_layers;
  return { ...fields, decoder_layers: decoderLayers, num_decoder_layers: decoderLayers, positions: null };
}

// config.json's model_type -> what silence means, where it is not what it means for Llama.
const QWEN = { vocab_size: 151936, intermediate_size: 22016, num_key_value_heads: 32, max_position_embeddings: 32768 };
const RELATIVES = {
  llama: {},
  mistral: { intermediate_size: 14336, num_key_value_heads: 8, max_position_embeddings: 4096 * 32 },
  qwen2: QWEN,
  qwen3: { ...QWEN, head_dim: 128 },
};

function readLlama(config) {
  const kind = config.model_type;
  const asked = { ...RELATIVES[kind], ...config };
  const fields = read(asked, {
    defaults: {
      vocab_size: 32000, hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: null,
      head_dim: null, hidden_act: "silu", max_position_embeddings: 2048, rms_norm_eps: 1e-6, tie_word_embeddings: false, attention_bias: false, mlp_bias: false,
    },
    fixed: { quantization_config: null, attention_chunk_size: null, is_causal: true, is_encoder_decoder: false, ...(kind === "llama" ? { sliding_window: null } : {}) },
    activation: "hidden_act",
  });
  const { hidden_size: width, num_attention_heads: heads } = fields;
  const whole = (field, usual) => {
    const value = fields[field] ?? usual;
    if (!Number.isSafeInteger(value) || value < 1) throw new InputError(`config.json: ${field} is ${shown(value)}, expected a whole number from 1`);
    return value;
  };
  const divides = (field, value, other, whole) => {
    if (whole % value) throw new InputError(`config.json: ${field} is ${value}, which does not divide ${other} ${whole}`);
  };
  if (kind === "llama") divides("num_attention_heads", heads, "hidden_size", width);
  const kvHeads = whole("num_key_value_heads", heads), headWidth = whole("head_dim", Math.floor(width / heads));
  divides("num_key_value_heads", kvHeads, "num_attention_heads", heads);
  if (headWidth % 2 || headWidth < 4) throw new InputError(`config.json: head_dim is ${headWidth}, expected an even number from 4`);
  const window = windowOf(asked, kind, fields.num_hidden_layers);
  const attention = fields.attention_bias && ["llama", "qwen3"].includes(kind);
  const biases = [
    ...(attention || kind === "qwen2" ? ["q_proj", "k_proj", "v_proj"] : []), ...(attention ? ["o_proj"] : []),
    ...(fields.mlp_bias && kind === "llama" ? ["gate_proj", "up_proj", "down_proj"] : []),
  ];
  const norms = kind === "qwen3"; // each head's query and key are normalised before they are turned
  return {
    ...fields, num_key_value_heads: kvHeads, kv_heads: kvHeads, group: heads / kvHeads, head_dim: headWidth, head_width: headWidth, biases,
    norms_query_and_key: norms, rope: readRope(config, fields.max_position_embeddings), positions: window === null ? null : window - 1,
    needed: [...biases.map((layer) => `${layer}.bias`), ...(norms ? ["q_norm.weight", "k_norm.weight"] : []), ...(fields.tie_word_embeddings ? [] : ["lm_head.weight"])],
  };
}

/** How many tokens one looks back over, itself included, in the blocks that look over a window, if there are any; null: over all. */
function windowOf(config, kind, blocks) {
  if (kind === "llama") return null;
  const { sliding_window: window = 4096, use_sliding_window: used = false, max_window_layers: most = 28, layer_types: types } = config;
  if (window !== null && !(Number.isSafeInteger(window) && window >= 2)) throw new InputError(`config.json: sliding_window is ${shown(window)}, expected a whole number from 2`);
  if (typeof used !== "boolean") throw new InputError(`config.json: use_sliding_window is ${shown(used)}, expected true or false`);
  const slides = Array.isArray(types) ? types.includes("sliding_attention") : most < blocks;
  return kind === "mistral" || (used && slides) ? window : null;
}

const LLAMA = { name: "llama", load: () => import("./llama.js"), read: readLlama, prefix: "" };

/** model_type -> how its rebuild is loaded, how its config is read, and the prefix that its keys have in some files. */
export const ARCHITECTURES = {
  bert: { name: "minilm", load: () => import("./minilm.js"), read: readBert, prefix: "bert." },
  gpt2: { name: "gpt2", load: () => import("./gpt2.js"), read: readGpt2, prefix: "transformer." },
  t5: { name: "t5-small", load: () => import("./t5.js"), read: readT5, prefix: "" },
  ...Object.fromEntries(Object.keys(RELATIVES).map((kind) => [kind, LLAMA])),
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
  return { ...architecture, module, forward: module.forward, model: new Part(weights, architecture.read(config), tap) };
}
