// How far each pair of numbers turns from one position to the next: rotary positions, and what is done to them where a
// model reads more than it was trained on. The twin of models/rotary.py; whose idea each is stands there.

import { isWhole, shown } from "./config.js";
import { InputError } from "./weights.js";

const number = (value) => typeof value === "number" && Number.isFinite(value);
const ABOVE_1 = ["a number above 1", (value) => number(value) && value > 1];
const FROM_1 = ["a number from 1", (value) => number(value) && value >= 1];
const ABOVE_0 = ["a number above 0", (value) => number(value) && value > 0];
const NUMBER = ["a finite number from 0", (value) => number(value) && value >= 0];
const FLAG = ["true or false", (value) => typeof value === "boolean"];
const WHOLE = ["a whole number from 1", (value) => isWhole(value)];
const WHOLE_HEADS = ["1, for this rebuild turns whole heads", (value) => value === 1];

// What each kind of scaling has to be told, and what else it may be told.
const LENGTH = { original_max_position_embeddings: WHOLE };
const BANDS = { low_freq_factor: ABOVE_0, high_freq_factor: ABOVE_0 };
const SLOPE = { attention_factor: ABOVE_0, beta_fast: ABOVE_0, beta_slow: ABOVE_0, truncate: FLAG, mscale: NUMBER, mscale_all_dim: NUMBER };
const KINDS = {
  default: [{}, {}],
  linear: [{ factor: FROM_1 }, {}],
  dynamic: [{ factor: FROM_1 }, {}],
  llama3: [{ factor: FROM_1, ...BANDS }, LENGTH],
  yarn: [{ factor: FROM_1 }, { ...LENGTH, ...SLOPE }],
};
const PLACES = ["rope_scaling", "rope_parameters"]; // of two names for the same, the older one
const ABOVE = ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"]; // or it stands beside them
const SILENT = {
  rope_theta: 10000, factor: 1, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: null, attention_factor: null,
  beta_fast: 32, beta_slow: 1, mscale: 0, mscale_all_dim: 0, truncate: true,
};

/**
 * What config.json says of rotary positions. trained: the longest text in training, in tokens. InputError, by the field's name,
 * for what is not supported, for what means nothing for its kind, and for two settings that contradict each other.
 */
export function readRope(config, trained) {
  const kind = kindOf(config), [needed, optional] = KINDS[kind];
  const fits = { rope_theta: ABOVE_1, ...needed, ...optional, partial_rotary_factor: WHOLE_HEADS };
  const section = PLACES.find((field) => Object.keys(config[field] ?? {}).length) ?? PLACES.at(-1);
  const above = ABOVE.filter((name) => name !== ABOVE[2] || name in optional); // read for these kinds only
  const asked = above.filter((name) => Object.hasOwn(config, name)).map((name) => [name, name, config[name]]);
  for (const field of PLACES)
    for (const [name, value] of Object.entries(config[field] ?? {})) asked.push([`${field}.${name.slice(0, 40)}`, name, value]);
  const values = {};
  const checked = (path, name, value) => {
    const [words, accepts] = fits[name];
    if (!accepts(value)) throw new InputError(`config.json: ${path} is ${shown(value ?? null)}, expected ${words}`);
    if (Object.hasOwn(values, name) && values[name] !== value) throw new InputError(`config.json: ${path} is ${shown(value)}, but elsewhere ${shown(values[name])}`);
    values[name] = value;
  };
  for (const [path, name, value] of asked) {
    if (name === "rope_type" || name === "type" || (value === null && name !== "rope_theta")) continue;
    if (!Object.hasOwn(fits, name)) throw new InputError(`config.json: ${path} means nothing for rope_type "${kind}"`);
    checked(path, name, value);
  }
  for (const name of Object.keys(needed)) checked(`${section}.${name}`, name, values[name]);
  const rope = { ...SILENT, ...values, trained, rope_type: kind };
  if (rope.high_freq_factor <= rope.low_freq_factor)
    throw new InputError(`config.json: ${section}.high_freq_factor is ${rope.high_freq_factor}, which is not above low_freq_factor, ${rope.low_freq_factor}`);
  rope.original = rope.original_max_position_embeddings || trained; // the longest text before the model was made to read more
  rope.lengthened = lengthened(rope);
  return rope;
}

/** The kind of scaling. `type` is an older name of `rope_type`. */
function kindOf(config) {
  const kinds = new Set();
  for (const field of PLACES) {
    const asked = config[field] ?? {};
    if (typeof asked !== "object" || Array.isArray(asked)) throw new InputError(`config.json: ${field} is ${shown(asked)}, expected an object or null`);
    for (const name of ["rope_type", "type"])
      if (Object.hasOwn(asked, name)) {
        if (typeof asked[name] !== "string" || !Object.hasOwn(KINDS, asked[name])) throw new InputError(`config.json: ${field}.${name} is ${shown(asked[name])}; this rebuild supports ${Object.keys(KINDS).join(", ")}`);
        kinds.add(asked[name]);
      }
  }
  if (kinds.size > 1) throw new InputError(`config.json: the rope_type is ${[...kinds].map(shown).join(" and ")}; it is one of them`);
  return [...kinds][0] ?? "default";
}

/** By what YaRN multiplies cosines and sines: queries and keys get longer, and the softmax sharper. */
function lengthened({ factor, attention_factor: asked, mscale, mscale_all_dim: all }) {
  const scale = (by) => (factor <= 1 ? 1 : 0.1 * by * Math.log(factor) + 1);
  if (asked !== null) return asked;
  return mscale && all ? scale(mscale) / scale(all) : scale(1);
}

/**
 * How far each pair turns from one position to the next, in radians: 1 for the first, then ever less -> [pair].
 *
 * positions  Of which the last is of interest. `width`: of a head.
 */
export function frequencies(positions, width, rope) {
  const base = rope.rope_type === "dynamic" ? stretched(positions, width, rope) : rope.rope_theta;
  const powers = Float32Array.from({ length: width / 2 }, (_, pair) => base ** Math.fround((2 * pair) / width)); // [pair]
  let perPosition = powers.map((power) => 1 / power);
  if (rope.rope_type === "linear") perPosition = perPosition.map((inverse) => inverse / rope.factor); // as if positions stood nearer to each other
  if (rope.rope_type === "llama3") perPosition = perPosition.map((inverse) => slowOnesSlower(inverse, rope));
  if (rope.rope_type === "yarn") perPosition = byParts(powers, width, rope);
  return { shape: [width / 2], data: perPosition };
}

/** The base for as many tokens as there are: the larger it is, the slower pairs turn ("dynamic NTK"). */
function stretched(positions, width, rope) {
  const tokens = Math.max(rope.trained, positions.reduce((most, position) => Math.max(most, position), 0) + 1);
  const longer = (rope.factor * tokens) / rope.trained - (rope.factor - 1);
  return rope.rope_theta * longer ** (width / (width - 2));
}

/** Llama 3: what turns often within the trained length stays, what turns seldom is divided by `factor`, with a slope between. */
function slowOnesSlower(inverse, rope) {
  const wavelength = (2 * Math.PI) / inverse; // in tokens
  if (wavelength < rope.original / rope.high_freq_factor) return inverse;
  if (wavelength > rope.original / rope.low_freq_factor) return inverse / rope.factor;
  const share = (rope.original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return ((1 - share) * inverse) / rope.factor + share * inverse;
}

/** YaRN: a slope between turning as before and turning `factor` times slower. powers [pair] -> [pair]. */
function byParts(powers, width, rope) {
  const pairThatTurns = (times) => (width * Math.log(rope.original / (times * 2 * Math.PI))) / (2 * Math.log(rope.rope_theta)); // as a fraction
  let [first, last] = [pairThatTurns(rope.beta_fast), pairThatTurns(rope.beta_slow)];
  if (rope.truncate) [first, last] = [Math.floor(first), Math.ceil(last)];
  [first, last] = [Math.max(first, 0), Math.min(last, width - 1)];
  if (first === last) last += 0.001; // or nothing would lie between them
  return powers.map((power, pair) => {
    const slope = Math.min(1, Math.max(0, (pair - first) / (last - first)));
    return slope / (rope.factor * power) + (1 - slope) / power;
  });
}
