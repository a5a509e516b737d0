// What the config.json of a T5 may say. The twin of models/t5_config.py.

import { oneOf, read, shown } from "./config.js";
import { ACTIVATIONS } from "./ops.js";
import { InputError } from "./weights.js";

export function readT5(config) {
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
