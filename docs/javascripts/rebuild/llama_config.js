// What the config.json of a Llama, or of a relative, may say. The twin of models/llama_config.py.

import { read, shown } from "./config.js";
import { readRope } from "./rotary.js";
import { InputError } from "./weights.js";

// config.json's model_type -> what silence means, where it is not what it means for Llama.
const QWEN = { vocab_size: 151936, intermediate_size: 22016, num_key_value_heads: 32, max_position_embeddings: 32768 };
const RELATIVES = {
  llama: {},
  mistral: { intermediate_size: 14336, num_key_value_heads: 8, max_position_embeddings: 4096 * 32 },
  qwen2: QWEN,
  qwen3: { ...QWEN, head_dim: 128 },
};

export function readLlama(config) {
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
