// The files that describe a BERT tokenizer, read with every field checked. The twin of tokenizers/bert_files.py; the
// lesson is wordpiece.js.

import { InputError } from "../weights.js";
import { CONFIG, LIBRARY, readConfig, readLines, require, shown } from "./checks.js";

export const SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

// What wordpiece.js does and no other: any other value would silently give other tokens.
const SUPPORTED_TOKENIZER_JSON = {
  "normalizer.type": "BertNormalizer",
  "normalizer.clean_text": true,
  "pre_tokenizer.type": "BertPreTokenizer",
  "model.type": "WordPiece",
  "model.unk_token": "[UNK]",
  "model.continuing_subword_prefix": "##",
  "model.max_input_chars_per_word": 100,
  "decoder.type": "WordPiece",
  "decoder.prefix": "##",
  "decoder.cleanup": true,
  "post_processor.type": "TemplateProcessing",
  "post_processor.single": [
    { SpecialToken: { id: "[CLS]", type_id: 0 } },
    { Sequence: { id: "A", type_id: 0 } },
    { SpecialToken: { id: "[SEP]", type_id: 0 } },
  ],
};
const SUPPORTED_CONFIG = {
  do_basic_tokenize: true, never_split: null, pad_token: "[PAD]", unk_token: "[UNK]", cls_token: "[CLS]",
  sep_token: "[SEP]", mask_token: "[MASK]", padding_side: "right", truncation_side: "right",
};
const ADDED_TOKEN_FLAGS = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

/** vocab.txt: a token a line; the line's number, from 0, is its id. -> Map of token to id. */
export function readVocabulary(files, name = "vocab.txt") {
  const vocabulary = new Map();
  readLines(files, name).forEach((token, number) => {
    if (vocabulary.has(token))
      throw new InputError(`${name} lines ${vocabulary.get(token) + 1} and ${number + 1} are the same, ${shown(token)}: its ids are ambiguous; download it again`);
    vocabulary.set(token, number);
  });
  if (vocabulary.size === 1 && vocabulary.has("")) throw new InputError(`${name} is empty: download it again`);
  for (const token of SPECIAL_TOKENS)
    if (!vocabulary.has(token)) throw new InputError(`${name} lacks ${token}: it is not a BERT vocabulary`);
  return vocabulary;
}

/**
 * The three choices that BERT models differ in, {lowerCase, stripAccents, spaceChinese}: from tokenizer.json where there
 * is one (the library reads nothing else), and tokenizer_config.json; without either, those of the uncased BERT.
 */
export function readSettings(files, vocabulary) {
  const [config, whole] = readConfig(files, SUPPORTED_CONFIG, "BertTokenizer", SPECIAL_TOKENS);
  const configured = settingsOf(config, ["do_lower_case", "strip_accents", "tokenize_chinese_chars"], CONFIG);
  if (!files.has(LIBRARY)) return configured;

  const at = (field) => field.split(".").reduce((values, key) => values?.[key] ?? null, whole);
  for (const [field, value] of Object.entries(SUPPORTED_TOKENIZER_JSON)) require(LIBRARY, field, at(field), value);
  const listed = Object.entries(at("model.vocab") ?? {});
  if (listed.length !== vocabulary.size || listed.some(([token, id]) => vocabulary.get(token) !== id))
    throw new InputError(`${LIBRARY} and vocab.txt hold different vocabularies: download both again`);
  checkAddedTokens(whole.added_tokens, vocabulary);
  const settings = settingsOf(whole.normalizer, ["lowercase", "strip_accents", "handle_chinese_chars"], LIBRARY);
  if (Object.keys(config).length && JSON.stringify(settings) !== JSON.stringify(configured))
    throw new InputError(`${LIBRARY} says ${JSON.stringify(settings)}, ${CONFIG} says ${JSON.stringify(configured)}: correct the wrong one`);
  return settings;
}

/** Three fields that are true or false; the accents may be null: stripped where the text is lower-cased. */
function settingsOf(values, [lower, accents, chinese], name) {
  const flag = (field, usual) => {
    const asked = values[field] === undefined ? usual : values[field];
    if (typeof asked !== "boolean" && !(usual === null && asked === null))
      throw new InputError(`${name}: ${field} is ${shown(asked)}, expected true or false${usual === null ? " or null" : ""}`);
    return asked;
  };
  return { lowerCase: flag(lower, true), stripAccents: flag(accents, null), spaceChinese: flag(chinese, true) };
}

/** Exactly the five special tokens, all of them found literally, wherever they stand. */
function checkAddedTokens(added, vocabulary) {
  if (!Array.isArray(added)) throw new InputError(`${LIBRARY}: added_tokens is ${shown(added)}, expected a list of objects`);
  for (const token of added) {
    if (!SPECIAL_TOKENS.includes(token?.content) || token.id !== vocabulary.get(token.content))
      throw new InputError(`${LIBRARY}: added_tokens has ${shown(token?.content ?? null)}, which is not supported`);
    for (const [name, value] of Object.entries(ADDED_TOKEN_FLAGS)) require(LIBRARY, `added_tokens ${token.content} ${name}`, token[name], value);
  }
  const missing = SPECIAL_TOKENS.find((special) => !added.some(({ content }) => content === special));
  if (missing) throw new InputError(`${LIBRARY}: added_tokens lacks ${missing}, which is not supported`);
}
