// Reads a SentencePiece model file (spiece.model), which is one protobuf message, without protobuf. The twin of
// tokenizers/spiece_file.py, which says what the numbers mean.
//
// Protobuf's wire format is a list of fields. Each begins with a varint, `number << 3 | wire type`:
//
//     wire type 0   a varint: 7 bits per byte, the lowest first; the top bit says that more follow
//               1   8 bytes          5   4 bytes (a float, say)
//               2   a varint length, then that many bytes: a string, or again a message

import { InputError } from "../weights.js";

const MODEL_TYPES = { 1: "unigram", 2: "BPE", 3: "word", 4: "character" };
export const [NORMAL, UNKNOWN, CONTROL] = [1, 2, 3]; // kinds of pieces; 4 to 6 are user-defined, unused, byte
const ADVICE = "download it again";

/** The bytes are no protobuf message, or not the one expected. */
class BrokenMessageError extends Error {}

/** The number that starts at `position`, and the position after it. */
function varint(data, position) {
  let number = 0;
  for (let shift = 0; shift < 70; shift += 7) {
    if (position >= data.length) throw new BrokenMessageError("it ends inside a number");
    const byte = data[position++];
    number += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return [number, position];
  }
  throw new BrokenMessageError("a number is longer than 64 bits");
}

/** Every field of one message: its number and its value; a length beyond the end is an error. */
export function* fields(data) {
  for (let position = 0; position < data.length; ) {
    let key, length;
    [key, position] = varint(data, position);
    const [number, wireType] = [Math.floor(key / 8), key % 8];
    if (wireType === 0) {
      let value;
      [value, position] = varint(data, position);
      yield [number, value];
      continue;
    }
    if (wireType === 2) [length, position] = varint(data, position);
    else if (wireType === 1 || wireType === 5) length = wireType === 1 ? 8 : 4;
    else throw new BrokenMessageError(`wire type ${wireType} is not one of 0, 1, 2, 5`);
    if (length > data.length - position) throw new BrokenMessageError(`a field claims ${length} bytes where ${data.length - position} are left`);
    yield [number, data.subarray(position, position + length)];
    position += length;
  }
}

const isBytes = (value) => value instanceof Uint8Array;

/** One entry of the vocabulary, {text, score, kind}: its id is its place in the file. */
function readPiece(data) {
  let text = new Uint8Array(), score = 0, kind = NORMAL; // "▁the": ▁ (U+2581) stands for the space before
  for (const [number, value] of fields(data)) {
    if (number === 1 && isBytes(value)) text = value;
    else if (number === 2 && isBytes(value) && value.length === 4) score = new DataView(value.buffer, value.byteOffset, 4).getFloat32(0, true);
    else if (number === 3 && !isBytes(value)) kind = value;
    else if (number <= 3) throw new BrokenMessageError(`field ${number} of a piece has the wrong type`);
  }
  if (!text.length || !Number.isFinite(score)) throw new BrokenMessageError(`a piece of ${text.length} bytes has score ${score}`);
  return { text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text), score, kind };
}

/** The outermost message: its pieces, and the fields of trainer_spec and normalizer_spec. */
function readModel(data) {
  const pieces = [], trainer = [], normalizer = []; // a message that comes in parts is the parts in a row
  for (const [number, value] of fields(data)) {
    if (number > 3) continue;
    if (!isBytes(value)) throw new BrokenMessageError(`field ${number} has the wrong type`);
    if (number === 1) pieces.push(readPiece(value));
    else for (const field of fields(value)) (number === 2 ? trainer : normalizer).push(field);
  }
  if (!pieces.length) throw new BrokenMessageError("it has no pieces");
  if (!trainer.length) throw new BrokenMessageError("it has no trainer_spec");
  return { pieces, trainer, normalizer };
}

/** The pieces in order, and the precompiled character map (empty if the file has none): {pieces, charsmap}. */
export function readSpieceModel(files, name = "spiece.model") {
  if (!files.has(name)) throw new InputError(`${name} is missing; ${ADVICE}`);
  let model;
  try {
    model = readModel(new Uint8Array(files.get(name)));
  } catch (error) {
    if (!(error instanceof BrokenMessageError || error instanceof TypeError)) throw error; // TypeError: not UTF-8
    throw new InputError(`${name} is no SentencePiece model, or only a part of one (${error.message}): ${ADVICE}`);
  }
  const { pieces, trainer, normalizer } = model;
  const last = (list, wanted, usual) => list.findLast(([number]) => number === wanted)?.[1] ?? usual;
  const modelType = last(trainer, 3, 1);
  if (modelType !== 1) throw new InputError(`${name} has a model of type ${MODEL_TYPES[modelType] ?? "unknown"}; T5's are unigram`);
  pieces.forEach(({ text, kind }, number) => {
    if (![NORMAL, UNKNOWN, CONTROL].includes(kind))
      throw new InputError(`${name}: piece ${number} (${JSON.stringify(text)}) is of kind ${kind}: user-defined, unused and byte pieces are not supported; T5 has none`);
  });
  const charsmap = last(normalizer, 2, new Uint8Array());
  if (!isBytes(charsmap)) throw new InputError(`${name}: its character map is a number: ${ADVICE}`);
  return { pieces, charsmap };
}
