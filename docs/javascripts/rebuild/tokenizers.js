// Text into token ids and back, from the vocabulary files alone. The twin of tokenizers/__init__.py.
//
// One module an algorithm: wordpiece.js (MiniLM and its relatives), byte_bpe.js (GPT-2), unigram.js (T5).

import { InputError } from "./weights.js";

export { pad } from "./tokenizers/encoding.js";

// Each algorithm's module and class, by the file that only it has. A page loads the one that it needs.
const ALGORITHMS = {
  "vocab.txt": async () => (await import("./tokenizers/wordpiece.js")).WordPiece,
  "merges.txt": async () => (await import("./tokenizers/byte_bpe.js")).ByteBPE,
  "spiece.model": async () => (await import("./tokenizers/unigram.js")).Unigram,
};

/**
 * The tokenizer of a model's folder, or rather a promise of it. `files`: a Map of file names to their bytes (ArrayBuffer or
 * Uint8Array).
 *
 * encode(text, maxTokens) gives {ids, tokens, offsets, truncated}; decode(ids) the text. InputError where there is none.
 */
export async function load(files) {
  const file = Object.keys(ALGORITHMS).find((name) => files.has(name));
  if (!file) throw new InputError(`the folder has no tokenizer that can be rebuilt: it needs ${Object.keys(ALGORITHMS).join(" or ")}`);
  return (await ALGORITHMS[file]()).fromFiles(files);
}
