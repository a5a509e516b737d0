// A model's files: those that the site carries, or a folder of the reader's own. A file of weights is judged by its
// header, before anything else of it is read.

const WEIGHTS = "model.safetensors";
const WANTED = ["config.json", "generation_config.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "modules.json", WEIGHTS];
const PIPELINE = /^(sentence_[\w-]+_config|config_sentence_transformers)\.json$/; // of a sentence encoder
const LARGEST = 1.9e9; // bytes of one file: what a page can hold in one piece
const MOST_BLOCKS = 200;
const LARGEST_SMALL = 60e6; // of any other file

const inBytes = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);

/**
 * The files of the one model among these, by name.
 *
 * chosen  [{path, file}], as they were dropped or chosen.
 * fail    Makes the error of a sentence.
 */
export function modelIn(chosen, fail) {
  const folders = new Map();
  for (const { path, file } of chosen) {
    const [, folder, name] = path.match(/^(.*?)([^/]*)$/);
    if (!folders.has(folder)) folders.set(folder, new Map());
    folders.get(folder).set(name, file);
  }
  const models = [...folders].filter(([, files]) => files.has("config.json") && files.has(WEIGHTS));
  const called = (folder) => folder.replace(/\/$/, "").split("/").at(-1) || "the folder";
  if (models.length > 1) throw fail(`There are ${models.length} models in what you chose (${models.slice(0, 3).map(([folder]) => called(folder)).join(", ")}): choose the folder of one.`);
  if (!models.length) {
    const names = chosen.map(({ path }) => path.split("/").at(-1));
    if (names.some((name) => /^(pytorch_model.*\.bin|.*\.(pt|pth|ckpt|pkl))$/.test(name)))
      throw fail(`This page reads ${WEIGHTS} only: files such as .bin can hold programs. \`llm-rebuild download\` converts them.`);
    if (names.some((name) => name.endsWith(".safetensors.index.json")))
      throw fail("This model's weights are in several files; this page reads models of one file.");
    throw fail(`There is no model in what you chose: it needs a folder with config.json and ${WEIGHTS}.`);
  }
  const [[folder, files]] = models;
  const wanted = new Map([...files].filter(([name]) => WANTED.includes(name) || PIPELINE.test(name)));
  const pooling = folders.get(`${folder}1_Pooling/`)?.get("config.json");
  if (pooling) wanted.set("1_Pooling/config.json", pooling);
  return { name: called(folder), files: wanted };
}

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
