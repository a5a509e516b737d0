// Byte-level BPE as models of today have it: everything in one tokenizer.json. The twin of tokenizers/byte_bpe_json.py.
//
// It is GPT-2's tokenizer with other rules around the merges: how a text is split into words, which tokens are cut out of
// it first, what is put around it. Here the file is read and each rule is either known or refused by the field's name. A
// pattern for splitting is never run because a file says so: it has to be one of those that models were published with.

import { InputError } from "../weights.js";
import { BYTE_SYMBOLS, ByteBPE, DIGIT, LETTER, SPACE, SPLIT } from "./byte_bpe.js";
import { checkVocabulary } from "./bpe_files.js";
import * as checks from "./checks.js";

const FILE = "tokenizer.json";
const ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const REST = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
// The patterns that models were published with, each as its file has it.
const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const LLAMA3 = String.raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|${REST}`;
const QWEN2 = String.raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|${REST}`;
// Beside the digits of `Split` those of Unicode 17, which the library has in `Digits`.
const DIGITS = String.raw`${DIGIT}\u{11DE0}-\u{11DE9}\u{16FF4}-\u{16FF6}`;
const EACH_DIGIT = new RegExp(`[${DIGITS}]|[^${DIGITS}]+`, "gu");

/** A published pattern with the letters, digits and spaces that Python has. An s may be a long one, ſ. */
function compiled(pattern) {
  const inside = (piece) => piece.replaceAll(String.raw`\p{L}`, LETTER).replaceAll(String.raw`\p{N}`, DIGIT).replaceAll(String.raw`\s`, SPACE);
  const ours = pattern
    .replace(ENDINGS, "'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])")
    .replace(/\[\^?\\[^\]]*\]|\\p\{[LN]\}|\\[sS]/g, (piece) => (piece[0] === "[" ? inside(piece) : piece === "\\S" ? `[^${SPACE}]` : `[${inside(piece)}]`));
  return new RegExp(ours, "gu");
}

const SPLITS = new Map([[GPT2, SPLIT], [LLAMA3, compiled(LLAMA3)], [QWEN2, compiled(QWEN2)]]);
// What the model's part of the file may say besides its vocabulary and its merges.
const MODEL = { type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false };

/** The tokenizer of Llama 3, SmolLM2, Qwen2 and others, from their tokenizer.json. */
export class ByteBPEJson extends ByteBPE {
  /** Read tokenizer.json; InputError says which of its fields asks for what is not supported. */
  static fromFiles(files) {
    const file = checks.readJson(files, FILE), { model } = file;
    if (!checks.isObject(model)) throw new InputError(`${FILE}: model is ${checks.shown(model ?? null)}, expected an object: download it again`);
    for (const [field, value] of Object.entries(MODEL)) checks.require(FILE, `model.${field}`, (model[field] === "" ? null : model[field]) ?? value, value);
    const added = readAdded(file.added_tokens ?? []);
    const contents = Object.fromEntries(added.map(({ content, id }) => [content, id]));
    if (!checks.isObject(model.vocab)) throw new InputError(`${FILE}: model.vocab is ${checks.shown(model.vocab ?? null)}, expected an object: download it again`);
    for (const [content, id] of Object.entries(contents))
      if (Object.hasOwn(model.vocab, content) && model.vocab[content] !== id) throw new InputError(`${FILE}: ${checks.shown(content)} has the ids ${checks.shown(model.vocab[content])} and ${id}`);
    const vocabulary = checkVocabulary(FILE, { ...model.vocab, ...contents }, BYTE_SYMBOLS);
    const ranks = readRanks(model.merges, vocabulary);
    const around = readAround(file.post_processor, vocabulary);
    const rules = {
      splits: readSplits(file.pre_tokenizer),
      cut: added.filter(({ normalized }) => !normalized).map(({ content }) => content),
      cutLater: added.filter(({ normalized }) => normalized).map(({ content }) => content),
      special: new Set(added.filter(({ special }) => special).map(({ id }) => id)),
      composed: readComposed(file.normalizer),
      wholeWords: model.ignore_merges === true,
      before: around[0],
      after: around[1],
    };
    if (file.decoder?.type !== "ByteLevel") throw new InputError(`${FILE}: decoder is ${checks.shown(file.decoder ?? null)}; only ByteLevel is supported`);
    return new ByteBPEJson(vocabulary, ranks, rules);
  }
}

/** Tokens that are cut out of a text before it is split. */
function readAdded(tokens) {
  if (!Array.isArray(tokens)) throw new InputError(`${FILE}: added_tokens is ${checks.shown(tokens)}, expected a list: download it again`);
  tokens.forEach((token, number) => {
    const name = `added_tokens[${number}]`;
    if (!checks.isObject(token) || typeof token.content !== "string" || !token.content) throw new InputError(`${FILE}: ${name} is ${checks.shown(token)}, expected a token: download it again`);
    for (const flag of ["single_word", "lstrip", "rstrip"]) checks.require(FILE, `${name}.${flag}`, token[flag] ?? false, false);
    if (!Number.isInteger(token.id)) throw new InputError(`${FILE}: ${name}.id is ${checks.shown(token.id ?? null)}, expected a whole number`);
  });
  return tokens;
}

/** The merges, the best first: each "left right" in older files, ["left", "right"] in newer ones. */
function readRanks(merges, vocabulary) {
  if (!Array.isArray(merges)) throw new InputError(`${FILE}: model.merges is ${checks.shown(merges ?? null)}, expected a list: download it again`);
  const ranks = new Map();
  merges.forEach((entry, number) => {
    const pair = typeof entry === "string" ? entry.split(" ") : entry;
    if (!(Array.isArray(pair) && pair.length === 2 && pair.every((piece) => typeof piece === "string" && piece)))
      throw new InputError(`${FILE}: model.merges[${number}] is ${checks.shown(entry)}, expected two tokens`);
    for (const token of [...pair, pair.join("")])
      if (!vocabulary.has(token)) throw new InputError(`${FILE}: model.merges[${number}]: ${checks.shown(token)} is not in model.vocab`);
    ranks.set(pair.join(" "), number);
  });
  return ranks;
}

/** The steps of a part of the file: one, or those of a Sequence. */
function stepsOf(field, value, inside) {
  if (value === null || value === undefined) return [];
  const steps = value.type === "Sequence" ? value[inside] : [value];
  if (!Array.isArray(steps) || !steps.every(checks.isObject)) throw new InputError(`${FILE}: ${field} is ${checks.shown(value)}, expected steps: download it again`);
  return steps;
}

/** The patterns that split a text into words, one after the other. */
function readSplits(value) {
  const splits = [], steps = stepsOf("pre_tokenizer", value, "pretokenizers");
  for (const [number, step] of steps.entries()) {
    if (step.type === "ByteLevel" && number === steps.length - 1) {
      checks.require(FILE, "pre_tokenizer: add_prefix_space", step.add_prefix_space, false);
      return [...splits, ...((step.use_regex ?? true) ? [SPLIT] : [])];
    }
    const pattern = step.pattern?.Regex, plain = step.behavior === "Isolated" && step.invert === false;
    if (step.type === "Digits" && step.individual_digits === true) splits.push(EACH_DIGIT);
    else if (step.type === "Split" && plain && SPLITS.has(pattern)) splits.push(SPLITS.get(pattern));
    else throw new InputError(`${FILE}: pre_tokenizer has ${checks.shown(step)}, which no model here was published with`);
  }
  throw new InputError(`${FILE}: pre_tokenizer does not end in ByteLevel; only such is supported`);
}

/** Whether characters are composed first (NFC): an e and an accent become é. */
function readComposed(value) {
  const steps = stepsOf("normalizer", value, "normalizers");
  if (!steps.every((step) => JSON.stringify(step) === '{"type":"NFC"}')) throw new InputError(`${FILE}: normalizer is ${checks.shown(value)}; only NFC and null are supported`);
  return steps.length > 0;
}

/** The tokens that are put before a text and behind it. */
function readAround(value, vocabulary) {
  const around = [[], []];
  for (const step of stepsOf("post_processor", value, "processors")) {
    if (step.type === "ByteLevel") continue; // of offsets only
    if (step.type !== "TemplateProcessing" || !Array.isArray(step.single)) throw new InputError(`${FILE}: post_processor has ${checks.shown(step.type ?? null)}, which is not supported`);
    let seen = 0;
    for (const piece of step.single) {
      const token = piece?.SpecialToken?.id;
      if (typeof token === "string" && vocabulary.has(token)) around[seen].push(token);
      else if (checks.isObject(piece) && "Sequence" in piece && !seen) seen = 1;
      else throw new InputError(`${FILE}: post_processor.single has ${checks.shown(piece)}: download it again`);
    }
  }
  return around;
}
