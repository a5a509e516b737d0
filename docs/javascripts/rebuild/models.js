// The rebuilds, and how each is loaded. A page loads the one that it needs. The twin of models/__init__.py.
//
// What a config.json may say stands in the _config.js files. A field that changes what is computed is read, or it must have
// the value that the rebuild is written for. A config cannot ask for something and silently not get it. What is read has the
// sizes that the shapes of weights speak of, too, and `positions`: the longest input, in tokens; null where none is too long.

import { shown } from "./config.js";
import { InputError, Part, Weights } from "./weights.js";

const LLAMA = { name: "llama", load: () => import("./llama.js"), read: async (config) => (await import("./llama_config.js")).readLlama(config), prefix: "" };

/** model_type -> how its rebuild is loaded, how its config is read, and the prefix that its keys have in some files. */
export const ARCHITECTURES = {
  __proto__: null,
  bert: { name: "minilm", load: () => import("./minilm.js"), read: async (config) => (await import("./minilm_config.js")).readBert(config), prefix: "bert." },
  gpt2: { name: "gpt2", load: () => import("./gpt2.js"), read: async (config) => (await import("./gpt2_config.js")).readGpt2(config), prefix: "transformer." },
  t5: { name: "t5-small", load: () => import("./t5.js"), read: async (config) => (await import("./t5_config.js")).readT5(config), prefix: "" },
  llama: LLAMA,
  mistral: LLAMA,
  qwen2: LLAMA,
  qwen3: LLAMA,
};

/** What a key of a weight file is called here: without the prefix of a model that was saved with a head, and by its name of today. */
export function nameOf(key, { prefix }) {
  const name = key.startsWith(prefix) ? key.slice(prefix.length) : key;
  return name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");
}

/** A model that is ready to run, from the two files that make it: the text of config.json, and the weights. */
export async function open(config, tensors, tap) {
  const architecture = ARCHITECTURES[config.model_type];
  if (!architecture)
    throw new InputError(`config.json: model_type is ${shown(config.model_type)}; there is a rebuild for ${Object.keys(ARCHITECTURES).join(", ")} only`);
  const weights = new Weights(new Map([...tensors].map(([key, tensor]) => [nameOf(key, architecture), tensor])));
  const module = await architecture.load();
  return { ...architecture, module, forward: module.forward, model: new Part(weights, await architecture.read(config), tap) };
}
