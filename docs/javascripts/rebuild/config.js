// What a config.json may say of any model. The twin of models/config.py.

import { ACTIVATIONS } from "./ops.js";
import { InputError } from "./weights.js";

export const shown = (value) => String(JSON.stringify(value)).slice(0, 60);
export const isWhole = (value, least = 1) => Number.isSafeInteger(value) && value >= least;

// Fields that official code reads in any config, whether its class knows them or not. Each could change bits.
const FIXED_EVERYWHERE = {
  attention_chunk_size: null, chunk_size_feed_forward: 0, fusion_config: null, kv_sharing_modes: null, layer_types: null,
  per_layer_config: null, quantization_config: null, sliding_window: null, transformers_weights: null,
};
const TYPES = ["float32", "bfloat16", "float16", "float64"];

/** What a field must be, by what is meant where config.json is silent: [words, test]. */
function kindOf(field, usual) {
  if (field.endsWith("_token_id")) return ["a whole number from 0 or null", (value) => value === null || isWhole(value, 0)];
  if (usual === null) return ["a whole number from 1 or null", (value) => value === null || isWhole(value)];
  if (typeof usual === "boolean") return ["true or false", (value) => typeof value === "boolean"];
  if (typeof usual === "string") return ["a text", (value) => typeof value === "string"];
  if (Number.isInteger(usual)) return ["a whole number from 1", (value) => isWhole(value)];
  return ["a finite number from 0", (value) => Number.isFinite(value) && value >= 0];
}

/** Refuse a value that is not in the list, and say what is. */
export function oneOf(field, value, supported) {
  if (!supported.includes(value)) throw new InputError(`config.json: ${field} is ${shown(value)}; this rebuild supports ${supported.join(", ")}`);
}

/** Refuse heads that do not share the width evenly. */
export function divides(widthName, width, headsName, heads) {
  if (width % heads) throw new InputError(`config.json: ${headsName} is ${heads}, which does not divide ${widthName} ${width}`);
}

/**
 * The fields of `defaults` as config.json has them. `fixed` ones must have their value, the `activation` be known; `aliases`: a
 * field -> its general name, read, too.
 */
export function read(config, { defaults, fixed, activation, aliases = {} }) {
  for (const field of ["dtype", "torch_dtype"]) if (config[field] != null) oneOf(field, config[field], TYPES);
  for (const [field, value] of Object.entries({ ...FIXED_EVERYWHERE, ...fixed }))
    if (field in config && config[field] !== value)
      throw new InputError(`config.json: ${field} is ${shown(config[field])}; this rebuild supports only ${shown(value)}`);
  const fields = {};
  for (const [field, usual] of Object.entries(defaults)) {
    const alias = aliases[field], [words, accepts] = kindOf(field, usual);
    if (field in config && alias in config && config[field] !== config[alias])
      throw new InputError(`config.json: ${field} is ${shown(config[field])} but ${alias} is ${shown(config[alias])}`);
    const value = [field, alias].filter((name) => name in config).map((name) => config[name]).concat([usual])[0];
    if (!accepts(value)) throw new InputError(`config.json: ${field} is ${shown(value)}, expected ${words}`);
    fields[field] = value;
  }
  if (activation) oneOf(activation, fields[activation], Object.keys(ACTIVATIONS));
  return fields;
}
