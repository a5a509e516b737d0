// A folder of the reader's own, or several: which files in it are a model's.

const WEIGHTS = "model.safetensors";
const WANTED = ["config.json", "generation_config.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "modules.json", WEIGHTS];
const PIPELINE = /^(sentence_[\w-]+_config|config_sentence_transformers)\.json$/; // of a sentence encoder

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
