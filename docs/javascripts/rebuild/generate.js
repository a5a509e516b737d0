// The rebuilds as steps, for decoding.js: the twin of the steps in using/generate.py.

import { Cache } from "./cache.js";
import { decode } from "./decoding.js";
import { rowsOf } from "./ops.js";
import { InputError } from "./weights.js";

/**
 * Texts that go on from a batch, as lists of token ids; of a decoder beside an encoder they begin with its start token.
 *
 * opened    What `open` of models.js gave.
 * batch     {tokenIds, mask} [batch, token]: prompts with their padding on the left; texts to encode with it on the right.
 * special   {ends, padding, start}: ids with a meaning; start null for a decoder that goes on from the prompt itself.
 * settings, options  Those of `decode`.
 */
export function generate(opened, batch, settings, special, options = {}) {
  const { tokenIds, mask } = batch;
  const [rows, tokens] = mask.shape;
  const step = stepOf(opened, batch, settings.beams ?? 1);
  if (special.start !== null) return decode(step, Array.from({ length: rows }, () => [special.start]), settings, special, options);
  const rowOf = ({ data }, row) => Array.from(data.subarray(row * tokens, (row + 1) * tokens));
  const numbers = Array.from({ length: rows }, (_, row) => row);
  const padding = numbers.map((row) => rowOf(mask, row).filter((real) => !real).length);
  return decode(step, numbers.map((row) => rowOf(tokenIds, row)), settings, special, { padding, ...options });
}

/** A rebuild as a step, for prompts each of which has so many rows, one a beam. */
export function stepOf({ module, model }, batch, beams = 1) {
  const each = Array.from({ length: batch.mask.shape[0] * beams }, (_, row) => Math.floor(row / beams));
  if (!module.decode && !module.body) throw new InputError("MiniLM does not write texts; GPT-2 and T5 do");
  const mask = idsOf(batch.mask, each); // [row, token]
  return module.decode
    ? decoderBesideEncoderStep(module, model, rowsOf(module.encode(batch, model), each), mask)
    : decoderStep(module, model, mask);
}

/** The same rows of ids or of a mask, [row, token]. */
const idsOf = (x, rows) => ({ shape: [rows.length, x.shape[1]], data: Int32Array.from(rowsOf(x, rows).data) });

/** Keys and values of the tokens so far, and which of these are padding: mask [row, token]. */
class DecoderState {
  constructor(cache, mask) {
    Object.assign(this, { cache, mask });
  }

  reorder(rows) {
    return new DecoderState(this.cache.reorder(rows), idsOf(this.mask, rows));
  }
}

/**
 * A decoder as a step. mask [row, token]: 1 for the prompts' tokens and 0 for the padding left of them.
 *
 * Padding takes no position: a row's first real token is at position 0, as in the official `generate`.
 */
function decoderStep(module, model, mask) {
  return (tokenIds, state) => {
    const [rows, fresh] = tokenIds.shape;
    const seen = state ? withOnes(state.mask, fresh) : mask; // [row, token so far]
    const positions = { shape: [rows, fresh], data: new Int32Array(rows * fresh) };
    const tokens = seen.shape[1];
    for (let row = 0; row < rows; row++) {
      let count = -1;
      for (let token = 0; token < tokens; token++) {
        count += seen.data[row * tokens + token];
        if (token >= tokens - fresh) positions.data[row * fresh + token - tokens + fresh] = Math.max(count, 0);
      }
    }
    const { x, cache } = module.body({ tokenIds, mask: seen, positions }, model, state?.cache ?? new Cache());
    return { scores: flat(module.head(last(x), model)), state: new DecoderState(cache, seen) }; // only the last token is scored
  };
}

/** A decoder beside an encoder as a step. What the encoder made of the texts stays the same in every step. */
function decoderBesideEncoderStep(module, model, encoded, mask) {
  const tokenIds = { shape: [mask.shape[0], 0], data: new Int32Array(0) };
  return (decoderIds, state) => {
    const { logits, cache } = module.decode({ tokenIds, mask, decoderIds }, encoded, model, state ?? new Cache());
    return { scores: flat(last(logits)), state: cache };
  };
}

/** A mask with so many ones more in each row. */
function withOnes({ shape: [rows, tokens], data }, count) {
  const longer = { shape: [rows, tokens + count], data: new Int32Array(rows * (tokens + count)).fill(1) };
  for (let row = 0; row < rows; row++) longer.data.set(data.subarray(row * tokens, (row + 1) * tokens), row * (tokens + count));
  return longer;
}

/** The last token of each row. x [row, token, n] -> [row, 1, n]. */
function last({ shape: [rows, tokens, n], data }) {
  const y = { shape: [rows, 1, n], data: new Float32Array(rows * n) };
  for (let row = 0; row < rows; row++) y.data.set(data.subarray(((row + 1) * tokens - 1) * n, (row + 1) * tokens * n), row * n);
  return y;
}

/** [row, 1, n] -> [row, n]. */
const flat = ({ shape: [rows, , n], data }) => ({ shape: [rows, n], data });
