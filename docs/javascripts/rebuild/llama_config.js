// What the config.json of a Llama, or of a relative, may say. The twin of models/llama_config.py.

import { divides, isWhole, read, shown } from "./config.js";
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

// What each may say of a window over which blocks look back.
const SLIDING = "sliding_attention";
const FROM_2 = ["a whole number from 2", (value) => isWhole(value, 2)];
const SLIDES = {
  sliding_window: FROM_2,
  use_sliding_window: ["true or false", (value) => typeof value === "boolean"],
  max_window_layers: ["a whole number from 0", (value) => isWhole(value, 0)],
  layer_types: [`a list of full_attention and ${SLIDING}`, (value) => Array.isArray(value) && value.every((kind) => ["full_attention", SLIDING].includes(kind))],
};
const WINDOWS = { llama: {}, mistral: { sliding_window: FROM_2 }, qwen2: SLIDES, qwen3: SLIDES };

export function readLlama(config) {
  const kind = config.model_type;
  const asked = { ...RELATIVES[kind], ...config };
  const plain = Object.fromEntries(Object.entries(asked).filter(([field]) => !(field in WINDOWS[kind])));
  const fields = read(plain, {
    defaults: {
      vocab_size: 32000, hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: null,
      head_dim: null, hidden_act: "silu", max_position_embeddings: 2048, rms_norm_eps: 1e-6, tie_word_embeddings: false, attention_bias: false, mlp_bias: false,
    },
    fixed: { is_causal: true, is_encoder_decoder: false },
    activation: "hidden_act",
  });
  const { hidden_size: width, num_attention_heads: heads } = fields;
  if (kind === "llama") divides("hidden_size", width, "num_attention_heads", heads);
  const kvHeads = fields.num_key_value_heads ?? heads, headWidth = fields.head_dim ?? Math.floor(width / heads);
  divides("num_attention_heads", heads, "num_key_value_heads", kvHeads);
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
  for (const [field, [words, accepts]] of Object.entries(WINDOWS[kind]))
    if (config[field] != null && !accepts(config[field])) throw new InputError(`config.json: ${field} is ${shown(config[field])}, expected ${words}`);
  const types = config.layer_types ?? ((config.max_window_layers ?? 28) < blocks ? [SLIDING] : []);
  const slides = kind === "mistral" || (["qwen2", "qwen3"].includes(kind) && config.use_sliding_window && types.includes(SLIDING));
  return slides ? ("sliding_window" in config ? config.sliding_window : 4096) : null;
}
