// Keys and values of earlier tokens: a value that a step is given and gives back. The twin of models/cache.py.

import { concatenate, rowsOf } from "./ops.js";

/** What one attention of one block has seen so far. key, value [batch, head, token, head width]; null: nothing yet. */
export class KeysAndValues {
  constructor(key = null, value = null) {
    Object.assign(this, { key, value });
  }

  get tokens() {
    return this.key ? this.key.shape[2] : 0;
  }

  /** These tokens and new ones after them. */
  then(key, value) {
    return this.key ? new KeysAndValues(concatenate([this.key, key], 2), concatenate([this.value, value], 2)) : new KeysAndValues(key, value);
  }

  /** Other rows of the batch, or the same in another order. */
  reorder(rows) {
    return new KeysAndValues(rowsOf(this.key, rows), rowsOf(this.value, rows));
  }
}

/**
 * What a decoder has seen so far, one entry a block. `new Cache()` has seen nothing. Of a decoder beside an encoder an
 * entry is two: the answer's own tokens, which grow, and the encoder's, which stay what they are.
 */
export class Cache {
  constructor(blocks = []) {
    this.blocks = blocks;
  }

  get tokens() {
    return this.blocks.length ? [this.blocks[0]].flat()[0].tokens : 0;
  }

  block(layer) {
    return this.blocks[layer] ?? null;
  }

  /** The cache of other rows of the batch, as beam search needs it. */
  reorder(rows) {
    return new Cache(this.blocks.map((seen) => (Array.isArray(seen) ? seen.map((one) => one.reorder(rows)) : seen.reorder(rows))));
  }
}
