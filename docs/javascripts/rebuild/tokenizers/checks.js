// What comes from outside, checked: texts, ids, limits, and the files that vocabularies come in. The twin of
// tokenizers/checks.py. `files` is a Map of a folder's file names to their bytes (an ArrayBuffer or a Uint8Array).

import { InputError } from "../weights.js";

export const CONFIG = "tokenizer_config.json", LIBRARY = "tokenizer.json";
// What other files of a folder say of special tokens; the library reads them all.
const SPECIAL_FILES = ["special_tokens_map.json", "added_tokens.json"];
const ADDING = ["additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "added_tokens"];
const ANY_LIBRARY_CLASS = ["PreTrainedTokenizer", "TokenizersBackend"]; // those that do what tokenizer.json says
export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const DEEPEST = 100; // levels of JSON; the deepest file of a published model has about 10

/** A value as a message shows it: in JSON, and not more than 60 characters of it. */
export const shown = (value) => String(JSON.stringify(value)).slice(0, 60);

/** Half of a UTF-16 pair (from a broken JSON file, say) is no character and has no bytes. */
export function refuseLoneSurrogates(text) {
  let position = 0;
  for (const character of text) {
    const point = character.codePointAt(0);
    if (point >= 0xd800 && point < 0xe000)
      throw new InputError(`the text has a lone surrogate (U+${point.toString(16).toUpperCase()}) at character ${position}: it is not valid Unicode; remove it or read the text again`);
    position++;
  }
}

/** Refuse ids that stand for no token. */
export function checkIds(ids, vocabularySize) {
  for (const id of ids)
    if (!Number.isInteger(id) || id < 0 || id >= vocabularySize)
      throw new InputError(`token id ${id} is out of range: the tokens of this vocabulary are 0 to ${vocabularySize - 1}`);
}

/** The id of a token. */
export function lookUp(token, vocabulary) {
  if (!vocabulary.has(token)) throw new InputError(`${shown(token)} is no token of this vocabulary`);
  return vocabulary.get(token);
}

/** Keep maxTokens tokens, the last `closing` of them the closing ones, and count the others. */
export function truncate({ ids, tokens, offsets }, maxTokens, closing = 0) {
  const cut = maxTokens === null ? 0 : Math.max(0, ids.length - maxTokens);
  if (cut && maxTokens <= closing) throw new InputError(`maxTokens is ${maxTokens}; it must be at least ${closing + 1}`);
  if (!cut) return { ids, tokens, offsets, truncated: 0 };
  const keep = maxTokens - closing;
  const shorter = (values) => values.slice(0, keep).concat(values.slice(keep + cut));
  return { ids: shorter(ids), tokens: shorter(tokens), offsets: shorter(offsets), truncated: cut };
}

/** A file of the folder as text. A byte order mark is a character of it. */
export function readText(files, name) {
  if (!files.has(name)) throw new InputError(`${name} is missing; download it again`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(files.get(name));
  } catch {
    throw new InputError(`${name} is not UTF-8; save it as UTF-8; download it again`);
  }
}

/** The lines of a file, with either kind of line end. */
export const readLines = (files, name) =>
  readText(files, name).replace(/\n$/, "").split("\n").map((line) => line.replace(/\r$/, ""));

/** A file of the folder that holds one JSON object. */
export function readJson(files, name) {
  let content;
  try {
    content = JSON.parse(readText(files, name));
  } catch (error) {
    throw error instanceof InputError ? error : new InputError(`${name} is not JSON; download it again`);
  }
  if (content === null || typeof content !== "object" || Array.isArray(content))
    throw new InputError(`${name} holds no JSON object; download it again`);
  let level = [content];
  for (let depth = 0; level.length; depth++) {
    if (depth === DEEPEST) throw new InputError(`${name} is nested more than ${DEEPEST} levels deep; download it again`);
    level = level.flatMap(Object.values).filter((value) => value !== null && typeof value === "object");
  }
  return content;
}

/**
 * tokenizer_config.json and tokenizer.json, as far as they are there -> [config, whole]. InputError where a field of the first asks
 * for something else than what is `supported`, for another class than the library's, or where a file of the folder has a special
 * token that is not one of `special`: it would be cut out of every text.
 */
export function readConfig(files, supported, libraryClass, special) {
  const names = [CONFIG, LIBRARY, ...SPECIAL_FILES].filter((name) => files.has(name));
  const read = new Map(names.map((name) => [name, readJson(files, name)]));
  const config = read.get(CONFIG) ?? {};
  for (const [field, value] of Object.entries({ ...supported, split_special_tokens: false })) {
    let asked = field in config ? config[field] : value;
    if (asked !== null && typeof asked === "object") asked = asked.content; // {"content": "[CLS]", "lstrip": false, ...}
    require(CONFIG, field, asked, value);
  }
  const asked = config.tokenizer_class ?? null;
  if (asked !== null && ![libraryClass, ...ANY_LIBRARY_CLASS].includes(String(asked).replace(/Fast$/, ""))) require(CONFIG, "tokenizer_class", asked, libraryClass);
  for (const [name, fields] of read)
    for (const [field, token] of specialTokens(name, fields))
      if (!special.includes(token)) throw new InputError(`${name}: ${field} has ${shown(token)}, which is not supported`);
  return [config, read.get(LIBRARY) ?? {}];
}

/** Each special token that a file names, and the field that does: [field, token]. */
function specialTokens(file, fields) {
  const tokensOf = ([field, value]) => {
    if (file === "added_tokens.json") return [field]; // the file is one table of tokens and their ids
    if (ADDING.includes(field)) return isObject(value) ? Object.values(value) : [value].flat();
    return field.endsWith("_token") && typeof value !== "boolean" ? [value] : [];
  };
  const content = (token) => (isObject(token) ? token.content : token) ?? null;
  return Object.entries(fields).flatMap((entry) => tokensOf(entry).map((token) => [entry[0], content(token)])).filter(([, token]) => token !== null);
}

/** InputError that names the field, unless it asks for what is supported. */
export function require(name, field, asked, supported) {
  if (!same(asked, supported)) throw new InputError(`${name}: ${field} is ${shown(asked)}; only ${shown(supported)} is supported`);
}

/** Whether two values of JSON are the same; the order of an object's keys is nothing. */
function same(a, b) {
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  const keys = Object.keys(a);
  return Array.isArray(a) === Array.isArray(b) && keys.length === Object.keys(b).length && keys.every((key) => key in b && same(a[key], b[key]));
}
