// A read-only view of a safetensors file, and the one name that a part of the model has.
//
// The twin of llm_rebuild/weights.py, checkpoints.py and models/part.py. A tensor is {shape, data}: its sizes, and
// its numbers in one flat typed array, the last axis running fastest, just as they lie in the file.

/** The input is at fault, not the program. Its message is one sentence that says what to do. */
export class InputError extends Error {}

const LARGEST_HEADER = 100e6; // bytes; the library that writes these files allows no more
const KINDS = { F32: Float32Array, I64: BigInt64Array, U8: Uint8Array, BOOL: Uint8Array };

/**
 * The tensors of a safetensors file by key: windows on the file's own bytes.
 *
 * The file begins with the length of its header (8 bytes), then comes the header in JSON, then nothing but
 * numbers. Nothing that it says of itself is believed before it fits the bytes that are there.
 */
export function readSafetensors(buffer) {
  const { start, entries } = readHeader(buffer, buffer.byteLength);
  checkPlaces(start, entries, buffer.byteLength);
  return new Map(entries.map(([key, about]) => [key, readTensor(buffer, start, key, about)]));
}

/** How long a file's header is, from its first 8 bytes. `whole`: how long the file is. */
export function headerLength(buffer, whole) {
  if (whole < 8) throw new InputError("this is no safetensors file: it has fewer than 8 bytes");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > LARGEST_HEADER || 8 + length > whole)
    throw new InputError("this is no whole safetensors file: its header is longer than the file; download it again");
  return length;
}

/** The header of a file of `whole` bytes, of which `buffer` has the first -> {start, entries: [[key, about]], metadata}. */
export function readHeader(buffer, whole) {
  const length = headerLength(buffer, whole);
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw new InputError("this is no safetensors file: its header is not JSON");
  }
  if (header === null || typeof header !== "object") throw new InputError("this is no safetensors file: its header is no object");
  const { __metadata__: metadata = {}, ...tensors } = header;
  return { start: 8 + length, entries: Object.entries(tensors), metadata };
}

/** Refuse tensors that do not lie one behind the other, from the end of the header to the end of a file of `whole` bytes. */
export function checkPlaces(start, entries, whole) {
  const places = entries.map(([key, about]) => {
    const place = about?.data_offsets;
    if (!Array.isArray(about?.shape) || !Array.isArray(place) || place.length !== 2 || !place.every((at) => Number.isSafeInteger(at) && at >= 0))
      throw new InputError(`${key.slice(0, 100)} has no shape or no place in the file; download it again`);
    return place;
  });
  const end = start + places.reduce((most, [, to]) => Math.max(most, to), 0);
  if (end !== whole)
    throw new InputError(`the file has ${whole.toLocaleString("en")} bytes, its header speaks of ${end.toLocaleString("en")}: it is cut off, or not what it says; download it again`);
  places.sort(([a, b], [c, d]) => a - c || b - d);
  if (places.some(([from], i) => from !== (i ? places[i - 1][1] : 0)))
    throw new InputError("tensors lie over each other in the file, or leave gaps: it is not what it says; download it again");
}

function readTensor(buffer, start, key, about) {
  const { dtype, shape, data_offsets: offsets } = about ?? {};
  const Kind = KINDS[dtype];
  const sizes = (list, most) => Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0 && n <= most);
  if (!Kind) throw new InputError(`${key} is ${String(dtype).slice(0, 20)}; this course works in float32: convert it and save it anew`);
  if (!sizes(shape, 2 ** 31) || !sizes(offsets, buffer.byteLength - start) || offsets.length !== 2)
    throw new InputError(`${key} lies outside of the file; download it again`);
  const [begin, end] = offsets;
  const count = shape.reduce((product, size) => product * size, 1);
  if (end - begin !== count * Kind.BYTES_PER_ELEMENT)
    throw new InputError(`${key} has other bytes than its shape [${shape.join(", ")}] needs; download it again`);
  const at = start + begin;
  // A window where the bytes lie as the processor wants them, and a copy where they do not.
  const data = at % Kind.BYTES_PER_ELEMENT ? new Kind(buffer.slice(at, start + end)) : new Kind(buffer, at, count);
  return { shape, data };
}

/** `join("encoder.layer.0", "output")` is `encoder.layer.0.output`; either may be empty. */
const join = (path, name) => (path && name ? `${path}.${name}` : path || name);

/**
 * The tensors of a weight file by key, or of the part of it under a path.
 *
 * `weights.at("h.0").get("ln_1.weight")` is `weights.get("h.0.ln_1.weight")`.
 */
export class Weights {
  constructor(tensors, path = "") {
    this.tensors = tensors;
    this.path = path;
  }

  at(part) {
    return new Weights(this.tensors, join(this.path, part));
  }

  has(key) {
    return this.tensors.has(join(this.path, key));
  }

  get(key) {
    const tensor = this.tensors.get(join(this.path, key));
    if (!tensor) throw new InputError(`the weight file has no tensor ${join(this.path, key)}`);
    return tensor;
  }
}

/** Shows interim tensors to an observer. It returns nothing and changes nothing. */
export class Tap {
  constructor(observe, path = "") {
    this.observe = observe;
    this.path = path;
  }

  at(part) {
    return new Tap(this.observe, join(this.path, part));
  }

  /** Show `tensor` under `name`. An empty name is the part itself: its output. */
  show(name, tensor) {
    this.observe(join(this.path, name), tensor);
  }
}

export const NO_TAP = new Tap(() => {});

/** Keeps every tensor that is tapped, in the order in which they come. Nothing here writes into a tensor again. */
export class Recorder {
  constructor() {
    this.tensors = new Map();
    this.tap = new Tap((name, tensor) => {
      if (this.tensors.has(name)) throw new Error(`checkpoint ${name} was tapped twice in one run`);
      this.tensors.set(name, tensor);
    });
  }
}

/** A model, or a part of it, under its one name: its weights, and where to show what comes to be. */
export class Part {
  constructor(weights, config, tap = NO_TAP, path = "") {
    Object.assign(this, { weights, config, taps: tap, path });
  }

  at(name) {
    return new Part(this.weights.at(name), this.config, this.taps.at(name), join(this.path, name));
  }

  tap(name, tensor) {
    this.taps.show(name, tensor);
  }

  /** The number of the block that the part is, or is in. */
  get layer() {
    return Number(this.path.split(".").find((word) => /^\d+$/.test(word)));
  }
}
