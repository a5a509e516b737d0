// Operations that are the same wherever they occur. The twin of llm_rebuild/models/ops.py and of the part of torch
// that it stands on.
//
// Numbers are kept in float32, as torch keeps them. A sum runs in double and is rounded once at its end, so it is
// nearer to the true value than torch's, and differs from it in the last bits: chapter 3 says why that has to be.

/** A tensor of zeros. */
export const zeros = (shape) => ({ shape, data: new Float32Array(shape.reduce((product, size) => product * size, 1)) });

/** f of every number. x [...] -> [...]. */
export function map(x, f) {
  const y = zeros(x.shape);
  for (let i = 0; i < y.data.length; i++) y.data[i] = f(x.data[i]);
  return y;
}

/** f of every pair of numbers. An axis of one stands for all, as in torch: [2, 5, 8] with [1, 5, 8]. */
export function combine(a, b, f) {
  const axes = Math.max(a.shape.length, b.shape.length);
  const sizes = (x) => [...Array(axes - x.shape.length).fill(1), ...x.shape];
  const [first, second] = [sizes(a), sizes(b)];
  const y = zeros(first.map((size, axis) => Math.max(size, second[axis])));
  const steps = (shape) => {
    let step = 1;
    return shape.map((_, i) => shape.length - 1 - i).reduce((list, axis) => {
      list[axis] = shape[axis] === 1 ? 0 : step;
      step *= shape[axis];
      return list;
    }, []);
  };
  const [stepA, stepB] = [steps(first), steps(second)];
  const width = y.shape[axes - 1];
  const counter = new Array(axes).fill(0);
  for (let at = 0; at < y.data.length; at += width) {
    let i = 0, j = 0;
    for (let axis = 0; axis < axes - 1; axis++) {
      i += counter[axis] * stepA[axis];
      j += counter[axis] * stepB[axis];
    }
    for (let k = 0; k < width; k++) y.data[at + k] = f(a.data[i + k * stepA[axes - 1]], b.data[j + k * stepB[axes - 1]]);
    for (let axis = axes - 2; axis >= 0 && ++counter[axis] === y.shape[axis]; axis--) counter[axis] = 0;
  }
  return y;
}

export const add = (a, b) => combine(a, b, (x, y) => x + y);
export const multiply = (a, b) => combine(a, b, (x, y) => x * y);
export const scale = (x, by) => map(x, (value) => value * by);

/** ids [batch, token], table [rows, width] -> [batch, token, width]: the row of each id. */
export function embedding(ids, table) {
  const width = table.shape[1];
  const y = zeros([...ids.shape, width]);
  ids.data.forEach((id, at) => y.data.set(table.data.subarray(id * width, (id + 1) * width), at * width));
  return y;
}

/** The sum of a[i + k] · b[j + k] over k, in double. Four sums side by side, so that none waits for the last. */
function dot(a, i, b, j, length) {
  let s = 0, t = 0, u = 0, v = 0, k = 0;
  for (; k + 3 < length; k += 4) {
    s += a[i + k] * b[j + k];
    t += a[i + k + 1] * b[j + k + 1];
    u += a[i + k + 2] * b[j + k + 2];
    v += a[i + k + 3] * b[j + k + 3];
  }
  for (; k < length; k++) s += a[i + k] * b[j + k];
  return s + t + (u + v);
}

/** x [..., in] -> [..., out]. The weight lies in the file as [out, in], as torch stores it. `bias` may be left out. */
export function product(x, weight, bias) {
  const [out, width] = weight.shape;
  const rows = x.data.length / width;
  const y = zeros([...x.shape.slice(0, -1), out]);
  for (let o = 0; o < out; o++)
    for (let row = 0; row < rows; row++)
      y.data[row * out + o] = dot(x.data, row * width, weight.data, o * width, width) + (bias ? bias.data[o] : 0);
  return y;
}

export const linear = (x, part) => product(x, part.weights.get("weight"), part.weights.get("bias"));

/** [..., rows, columns] -> [..., columns, rows]. */
export function transposed(x) {
  const [rows, columns] = x.shape.slice(-2);
  const y = zeros([...x.shape.slice(0, -2), columns, rows]);
  for (let at = 0; at < x.data.length; at += rows * columns)
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        y.data[at + column * rows + row] = x.data[at + row * columns + column];
  return y;
}

/** query, key [batch, head, token, head width] -> [batch, head, query, key]: every query times every key. */
export function dotProducts(query, key) {
  const [batch, heads, queries, width] = query.shape;
  const keys = key.shape[2];
  const y = zeros([batch, heads, queries, keys]);
  for (let pair = 0, at = 0; pair < batch * heads; pair++)
    for (let q = 0; q < queries; q++)
      for (let k = 0; k < keys; k++, at++)
        y.data[at] = dot(query.data, (pair * queries + q) * width, key.data, (pair * keys + k) * width, width);
  return y;
}

/** probs [batch, head, query, key], value [batch, head, key, head width] -> [batch, head, query, head width]. */
export const weighted = (probs, value) => dotProducts(probs, transposed(value));

/** Shares that add up to 1, over the last axis. */
export function softmax(x) {
  const width = x.shape.at(-1);
  const y = zeros(x.shape);
  for (let at = 0; at < x.data.length; at += width) {
    let largest = -Infinity, sum = 0;
    for (let k = 0; k < width; k++) largest = Math.max(largest, x.data[at + k]);
    for (let k = 0; k < width; k++) sum += y.data[at + k] = Math.exp(x.data[at + k] - largest);
    for (let k = 0; k < width; k++) y.data[at + k] /= sum;
  }
  return y;
}

/** Each token's numbers, shifted to mean 0 and scaled to variance 1, then stretched and moved. [..., width]. */
export function layerNorm(x, part, eps) {
  const [weight, bias] = [part.weights.get("weight").data, part.weights.get("bias").data];
  const width = x.shape.at(-1);
  const y = zeros(x.shape);
  for (let at = 0; at < x.data.length; at += width) {
    let sum = 0, squares = 0;
    for (let k = 0; k < width; k++) sum += x.data[at + k];
    const mean = sum / width;
    for (let k = 0; k < width; k++) squares += (x.data[at + k] - mean) ** 2;
    const root = Math.sqrt(squares / width + eps);
    for (let k = 0; k < width; k++) y.data[at + k] = ((x.data[at + k] - mean) / root) * weight[k] + bias[k];
  }
  return y;
}

/** The mean over the last axis, which stays, of one number. [..., width] -> [..., 1]. */
export function mean(x) {
  const width = x.shape.at(-1);
  const y = zeros([...x.shape.slice(0, -1), 1]);
  for (let row = 0; row < y.data.length; row++) {
    let sum = 0;
    for (let k = 0; k < width; k++) sum += x.data[row * width + k];
    y.data[row] = sum / width;
  }
  return y;
}

/** [batch, token, width] -> [batch, head, token, head width]. */
export function splitHeads(x, heads) {
  const [batch, tokens, width] = x.shape;
  const size = width / heads;
  const y = zeros([batch, heads, tokens, size]);
  for (let row = 0, at = 0; row < batch; row++)
    for (let head = 0; head < heads; head++)
      for (let token = 0; token < tokens; token++, at += size) {
        const from = (row * tokens + token) * width + head * size;
        y.data.set(x.data.subarray(from, from + size), at);
      }
  return y;
}

/** [batch, head, token, head width] -> [batch, token, width]. */
export function mergeHeads(x) {
  const [batch, heads, tokens, size] = x.shape;
  const y = zeros([batch, tokens, heads * size]);
  for (let row = 0, at = 0; row < batch; row++)
    for (let token = 0; token < tokens; token++)
      for (let head = 0; head < heads; head++, at += size) {
        const from = ((row * heads + head) * tokens + token) * size;
        y.data.set(x.data.subarray(from, from + size), at);
      }
  return y;
}

/** Tensors one after the other along an axis, as torch's `cat`. */
export function concatenate(parts, axis) {
  const shape = [...parts[0].shape];
  shape[axis] = parts.reduce((sum, part) => sum + part.shape[axis], 0);
  const y = zeros(shape);
  const rows = shape.slice(0, axis).reduce((product, size) => product * size, 1);
  for (let row = 0, at = 0; row < rows; row++)
    for (const part of parts) {
      const length = part.data.length / rows;
      y.data.set(part.data.subarray(row * length, (row + 1) * length), at);
      at += length;
    }
  return y;
}

/** Rows of the first axis, in another order, or some of them twice. */
export function rowsOf(x, rows) {
  const length = x.data.length / x.shape[0];
  const y = zeros([rows.length, ...x.shape.slice(1)]);
  rows.forEach((row, at) => y.data.set(x.data.subarray(row * length, (row + 1) * length), at * length));
  return y;
}

/** The lowest float32: after it is added to a score, the softmax has nothing left. */
export const LOWEST = -3.4028234663852886e38;

/** Whether no token of a mask [batch, token] is padding. */
export const unpadded = (mask) => mask.data.every((real) => real);

/** [batch, 1, query, key]: 0 where `mayLook(row, query, key)`, and the lowest float elsewhere. */
export function maskOf(batch, queries, keys, mayLook) {
  const y = zeros([batch, 1, queries, keys]);
  for (let row = 0, at = 0; row < batch; row++)
    for (let query = 0; query < queries; query++)
      for (let key = 0; key < keys; key++, at++) y.data[at] = mayLook(row, query, key) ? 0 : LOWEST;
  return y;
}

// ---------------------------------------------------------------------- activations, by config.json's name

/** The error function: 2/√π times the integral of e^(-t²) from 0 to x, as a series of terms of one sign. */
export function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x); // 1 - erf(6) is 2e-17
  let term = size, sum = size;
  for (let n = 1; term > 1e-17 * sum; n++) sum += term *= (2 * size * size) / (2 * n + 1);
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-size * size) * sum;
}

/** x · Φ(x), with Φ approximated by tanh: GPT-2's formula, step by step as it was first written down. */
function geluNew(x, tap) {
  const half = scale(x, 0.5);
  tap.show("half", half);
  const cube = map(x, (value) => value ** 3);
  tap.show("cube", cube);
  const smallCube = scale(cube, 0.044715);
  tap.show("small_cube", smallCube);
  const steeper = add(x, smallCube);
  tap.show("steeper", steeper);
  const scaled = scale(steeper, Math.sqrt(2 / Math.PI));
  tap.show("scaled", scaled);
  const tanh = map(scaled, Math.tanh);
  tap.show("tanh", tanh);
  const gate = map(tanh, (value) => 1 + value); // 0 where x is far below zero, 2 where it is far above
  tap.show("gate", gate);
  return multiply(half, gate);
}

const geluTanh = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const silu = (x) => x / (1 + Math.exp(-x));

export const ACTIVATIONS = {
  gelu: (x) => map(x, (value) => (value / 2) * (1 + erf(value / Math.SQRT2))), // exact, by the error function
  gelu_new: geluNew,
  gelu_pytorch_tanh: (x) => map(x, geluTanh),
  relu: (x) => map(x, (value) => Math.max(value, 0)),
  silu: (x) => map(x, silu),
  swish: (x) => map(x, silu), // silu's other name
  tanh: (x) => map(x, Math.tanh),
};
