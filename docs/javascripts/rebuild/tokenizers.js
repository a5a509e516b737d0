// Text into token ids and back, from the vocabulary files alone. The twin of tokenizers/__init__.py.
//
// One module an algorithm: wordpiece.js (MiniLM and its relatives), byte_bpe.js (GPT-2), unigram.js (T5), byte_bpe_json.js
// (models of today).

import { InputError } from "./weights.js";

export { pad } from "./tokenizers/encoding.js";

// The file that only each algorithm has, and how its class is loaded. A page loads the one that it needs.
export const ALGORITHMS = {
  wordpiece: { file: "vocab.txt", load: async () => (await import("./tokenizers/wordpiece.js")).WordPiece },
  byte_bpe: { file: "merges.txt", load: async () => (await import("./tokenizers/byte_bpe.js")).ByteBPE },
  unigram: { file: "spiece.model", load: async () => (await import("./tokenizers/unigram.js")).Unigram },
  byte_bpe_json: { file: "tokenizer.json", load: async () => (await import("./tokenizers/byte_bpe_json.js")).ByteBPEJson }, // last, for every folder may have it
};

/**
 * The tokenizer of a model's folder, or rather a promise of it.
 *
 * files      A Map of file names to their bytes (ArrayBuffer or Uint8Array).
 * algorithm  One of `ALGORITHMS`, as the model's architecture tells. Otherwise the first whose file is there.
 *
 * encode(text, maxTokens) gives {ids, tokens, offsets, truncated}; decode(ids) the text. InputError where there is none.
 */
export async function load(files, algorithm = null) {
  const able = algorithm ? [ALGORITHMS[algorithm]] : Object.values(ALGORITHMS);
  const fitting = able.find(({ file }) => files.has(file));
  if (!fitting) throw new InputError(`the folder has no tokenizer that can be rebuilt: it needs ${able.map(({ file }) => file).join(" or ")}`);
  return (await fitting.load()).fromFiles(files);
}
