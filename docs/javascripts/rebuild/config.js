// What a config.json may say of any model. The twin of models/config.py.

import { ACTIVATIONS } from "./ops.js";
import { InputError } from "./weights.js";

export const shown = (value) => String(JSON.stringify(value)).slice(0, 60);

/** The fields of `defaults` as config.json has them; `fixed` ones must have their value; `activations` be known. */
export function read(config, { defaults, fixed, activation }) {
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
