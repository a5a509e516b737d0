// A model's files, before they are read: a file of weights is judged by its header, before anything else of it is read.

const WEIGHTS = "model.safetensors";
const LARGEST = 1.9e9; // bytes of one file: what a page can hold in one piece
const MOST_BLOCKS = 200;
const LARGEST_SMALL = 60e6; // of any other file

const inBytes = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** Refuse files that are too large to be what they are called. files: name -> Blob. */
export function checkSizes(files, fail) {
  for (const [name, { size }] of files) {
    const most = name === WEIGHTS ? LARGEST : LARGEST_SMALL;
    if (size > most) throw fail(`${name} has ${inBytes(size)}; this page reads up to ${inBytes(most)}.`);
    if (!size) throw fail(`${name} is empty; download it again.`);
  }
}

/**
 * The weight file, once its header fits what config.json promises -> an ArrayBuffer.
 *
 * blob     The file.
 * shapes   key -> shape that must be there, `optional` the same of those that may, `unused` patterns of further keys.
 * rename   What a key is called in the rebuild.
 * weights  The module weights.js.
 */
export async function readWeights(blob, { shapes, optional, unused }, rename, weights) {
  const fail = (words) => new weights.InputError(words);
  const begin = await blob.slice(0, 8).arrayBuffer();
  const length = weights.headerLength(begin, blob.size);
  const { start, entries } = weights.readHeader(await blob.slice(0, 8 + length).arrayBuffer(), blob.size);
  const sizes = new Map(), some = (list) => `${list.slice(0, 3).join(", ")}${list.length > 3 ? ` and ${list.length - 3} more` : ""}`;
  for (const [key, about] of entries) {
    if (!Array.isArray(about?.shape)) throw fail(`${WEIGHTS}: ${key} has no shape; download it again`);
    sizes.set(rename(key), about);
  }
  const other = "model.safetensors and config.json must be of one model";
  const absent = [...shapes.keys()].filter((key) => !sizes.has(key));
  if (absent.length) throw fail(`${WEIGHTS} lacks ${some(absent)}: ${other}.`);
  const fits = (key) => unused.some((pattern) => (pattern.endsWith("*") ? key.startsWith(pattern.slice(0, -1)) : key.replaceAll(/(?<=\.)\d+(?=\.)/g, "{layer}") === pattern));
  const more = [...sizes.keys()].filter((key) => !shapes.has(key) && !optional.has(key) && !fits(key));
  if (more.length) throw fail(`${WEIGHTS} holds ${some(more)}, which config.json does not explain: ${other}.`);
  for (const [key, shape] of [...shapes, ...optional]) {
    const about = sizes.get(key);
    if (about && about.shape.join() !== shape.join()) throw fail(`${WEIGHTS}: ${key} has the shape [${about.shape.slice(0, 4)}], config.json says [${shape}]: ${other}.`);
    if (about && about.dtype !== "F32") throw fail(`${WEIGHTS}: ${key} is ${String(about.dtype).slice(0, 8)}; this page works in float32: save the model anew in float32.`);
  }
  weights.checkPlaces(start, entries, blob.size);
  return blob.arrayBuffer();
}

/**
 * Keys and shapes from a table in words: "[3 * n_embd]" is 3 times the config's n_embd, and a key with {layer} stands for one
 * in each block of its stack.
 */
export function shapesOf(table, fields, stacks, fail) {
  const size = (words) => words.split("*").reduce((product, word) => product * (Number(word) || fields[word.trim()]), 1);
  const shapes = new Map();
  for (const [key, words] of Object.entries(table)) {
    const shape = words.replace(/[[\]]/g, "").split(",").map(size);
    const [path, repeated] = key.split(".{layer}");
    const stack = stacks.find((one) => one.path === path);
    if (stack && fields[stack.blocks] > MOST_BLOCKS) throw fail(`config.json: ${fields[stack.blocks].toLocaleString("en")} blocks; this page runs models of at most ${MOST_BLOCKS}.`);
    for (let layer = 0; layer < (repeated === undefined ? 1 : fields[stack.blocks]); layer++) shapes.set(key.replace("{layer}", layer), shape);
  }
  return shapes;
}
