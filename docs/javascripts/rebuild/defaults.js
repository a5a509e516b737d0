// What a model's folder asks of generation where its reader says nothing. The twin of using/defaults.py: the fields of
// generation_config.json, and only where there is no such file those of config.json. What is not obeyed is refused.

import { isWhole, shown } from "./config.js";
import { InputError } from "./weights.js";

const TOP_K = 50; // officially the default of whoever asks for do_sample and names no top_k
const WHOLE = ["a whole number from 1", (value) => isWhole(value)], COUNT = ["a whole number from 0", (value) => isWhole(value, 0)];
const POSITIVE = ["a number above 0", (value) => Number.isFinite(value) && value > 0], FLAG = ["true or false", (value) => typeof value === "boolean"];
// Fields that are obeyed: the setting that they are here, and what they must be.
const OBEYED = {
  max_new_tokens: ["maxNewTokens", ["a whole number from 1 to 1,000,000", (value) => isWhole(value) && value <= 1e6]],
  do_sample: ["sample", FLAG],
  temperature: ["temperature", POSITIVE],
  top_k: ["topK", COUNT],
  top_p: ["topP", ["a number above 0 and at most 1", (value) => Number.isFinite(value) && value > 0 && value <= 1]],
  repetition_penalty: ["repetitionPenalty", POSITIVE],
  no_repeat_ngram_size: ["noRepeatNgram", COUNT],
  num_beams: ["beams", ["a whole number from 1 to 1,000", (value) => isWhole(value) && value <= 1000]],
  length_penalty: ["lengthPenalty", ["a finite number", (value) => Number.isFinite(value)]],
  early_stopping: ["earlyStopping", ["true, false or never", (value) => [true, false, "never"].includes(value)]],
};
const IDS = ["eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id"];
// Fields that change no token, at these values or at any (null).
const HARMLESS = { min_length: 0, use_cache: true, num_return_sequences: 1, num_beam_groups: 1, transformers_version: null, _from_model_config: null, _commit_hash: null, max_length: null };

/**
 * {settings, special: {ends, padding, start}} of a folder.
 *
 * config, generation  What config.json and generation_config.json say; `generation` null where there is no such file.
 * vocabulary          How many ids the model has.
 * encoderDecoder      Whether a decoder stands beside an encoder, and needs a token to start with.
 */
export function defaults(config, generation, vocabulary, encoderDecoder) {
  const [name, all] = generation ? ["generation_config.json", generation] : ["config.json", config];
  const fields = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
  const settings = {};
  const check = (field, [words, accepts]) => {
    if (Object.hasOwn(fields, field) && !accepts(fields[field])) throw new InputError(`${name}: ${field} is ${shown(fields[field])}, expected ${words} or null`);
  };
  for (const [field, [setting, kind]] of Object.entries(OBEYED)) {
    check(field, kind);
    settings[setting] = fields[field] ?? null;
  }
  check("max_length", WHOLE);
  settings.sample = Boolean(settings.sample); // a temperature alone asks for no draw in a file
  if (settings.sample) settings.topK ??= TOP_K;
  settings.topK ||= null; // here, none is no 0
  settings.noRepeatNgram ||= null;
  settings.beams ??= 1;
  if (generation)
    for (const [field, value] of Object.entries(fields)) {
      const harmless = Object.hasOwn(HARMLESS, field) && (HARMLESS[field] === null || HARMLESS[field] === value);
      if (!Object.hasOwn(OBEYED, field) && !IDS.includes(field) && !harmless)
        throw new InputError(`${name}: ${field} is ${shown(value)}; this field is not supported`);
    }
  const ids = (field) => {
    const listed = [fields[field] ?? []].flat();
    for (const id of listed)
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary)
        throw new InputError(`${name}: ${field} is ${shown(fields[field])}; the model has the ids 0 to ${vocabulary - 1}`);
    return listed;
  };
  const ends = ids("eos_token_id");
  const start = encoderDecoder ? [...ids("decoder_start_token_id"), ...ids("bos_token_id")][0] : null;
  if (start === undefined) throw new InputError(`${name}: decoder_start_token_id is missing; the decoder starts with it`);
  return { settings, special: { ends, padding: [...ids("pad_token_id"), ...ends, null][0], start } };
}
