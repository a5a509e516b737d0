// The files of byte-level BPE, checked: vocab.json and merges.txt, or what tokenizer.json has of both. The twin of that part of
// tokenizers/checks.py.

import { InputError } from "../weights.js";
import { LIBRARY, isObject, readJson, readLines, shown } from "./checks.js";

/** vocab.json: one object {token: id}, as `checkVocabulary` wants it. */
export const readVocabulary = (files, name, needed) => checkVocabulary(name, readJson(files, name), needed);

/** {token: id}, whose ids are 0, 1, 2, ... each once -> Map of token to id. */
export function checkVocabulary(name, table, needed) {
  const vocabulary = new Map(Object.entries(table));
  const tokenOf = [];
  for (const [token, id] of vocabulary) {
    if (!Number.isInteger(id)) throw new InputError(`${name}: the id of ${shown(token)} is ${shown(id)}, not an integer: download it again`);
    if (id in tokenOf) throw new InputError(`${name}: ${shown(tokenOf[id])} and ${shown(token)} share id ${id}: download it again`);
    if (id < 0 || id >= vocabulary.size)
      throw new InputError(`${name}: ${shown(token)} has id ${id}, but ${vocabulary.size} tokens need the ids 0 to ${vocabulary.size - 1}: download it again`);
    tokenOf[id] = token;
  }
  for (const token of needed)
    if (!vocabulary.has(token)) throw new InputError(`${name} lacks ${shown(token)}, which this tokenizer needs: download it again`);
  return vocabulary;
}

/** merges.txt: after a "#version" line, one "left right" a line, the best first. -> Map of the line to its number. */
export function readMerges(files, name, vocabulary) {
  const ranks = new Map();
  readLines(files, name).forEach((line, index) => {
    if (line.startsWith("#version")) return;
    const [left, right, ...others] = line.split(" ");
    if (!left || !right || others.length)
      throw new InputError(`${name} line ${index + 1} is broken: ${shown(line.slice(0, 40))} is not two tokens and a space; download it again`);
    for (const token of [left, right, left + right])
      if (!vocabulary.has(token))
        throw new InputError(`${name} line ${index + 1}: ${shown(token)} is not in vocab.json; take both files from the same model`);
    ranks.set(line, index + 1); // a repeated pair counts where it stands last
  });
  return ranks;
}

/** InputError where tokenizer.json, which the library reads if it is there, has another vocabulary or other merges than `own`. */
export function checkSame(whole, vocabulary, merges, own) {
  const { vocab, merges: pairs } = isObject(whole.model) ? whole.model : {};
  const listed = vocab == null ? null : Object.entries(vocab);
  const other = listed && (listed.length !== vocabulary.size || listed.some(([token, id]) => vocabulary.get(token) !== id));
  const asLines = pairs == null ? null : [pairs].flat().map((pair) => (Array.isArray(pair) ? pair.join(" ") : pair));
  if (other || (asLines && JSON.stringify(asLines) !== JSON.stringify(merges)))
    throw new InputError(`${LIBRARY} and ${own} hold different tokens or merges: download both again`);
}
