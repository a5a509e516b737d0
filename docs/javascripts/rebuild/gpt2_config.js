// What the config.json of a GPT-2 may say. The twin of models/gpt2_config.py.

import { divides, read } from "./config.js";

export function readGpt2(config) {
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
