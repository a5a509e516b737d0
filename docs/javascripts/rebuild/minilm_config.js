// What the config.json of a MiniLM may say. The twin of models/minilm_config.py.

import { divides, read } from "./config.js";

export function readBert(config) {
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
