// What a model's folder asks of generation where its reader says nothing. The twin of using/defaults.py: the fields of
// generation_config.json, and only where there is no such file those of config.json. What is not obeyed is refused.

import { InputError } from "./weights.js";

const TOP_K = 50; // officially the default of whoever asks for do_sample and names no top_k
const OBEYED = {
  max_new_tokens: "maxNewTokens", do_sample: "sample", temperature: "temperature", top_k: "topK", top_p: "topP",
  repetition_penalty: "repetitionPenalty", no_repeat_ngram_size: "noRepeatNgram", num_beams: "beams",
  length_penalty: "lengthPenalty", early_stopping: "earlyStopping",
};
const IDS = ["eos_token_id", "pad_token_id", "decoder_start_token_id", "bos_token_id"];
// Fields that change no token, at these values or at any (null).
const HARMLESS = { min_length: 0, use_cache: true, num_return_sequences: 1, num_beam_groups: 1, transformers_version: null, _from_model_config: null, _commit_hash: null, max_length: null };

const shown = (value) => String(JSON.stringify(value)).slice(0, 60);

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
  for (const [field, setting] of Object.entries(OBEYED)) settings[setting] = fields[field] ?? null;
  settings.sample = Boolean(settings.sample); // a temperature alone asks for no draw in a file
  if (settings.sample) settings.topK ??= TOP_K;
  settings.topK ||= null; // here, none is no 0
  settings.noRepeatNgram ||= null;
  settings.beams ??= 1;
  if (generation)
    for (const [field, value] of Object.entries(fields)) {
      const harmless = field in HARMLESS && (HARMLESS[field] === null || HARMLESS[field] === value);
      if (!(field in OBEYED) && !IDS.includes(field) && !harmless)
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
