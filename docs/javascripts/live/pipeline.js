// What the files of a sentence encoder say is done around the network: the twin of models/pipeline.py. Loaded for a MiniLM only.

const ABOUT = "config_sentence_transformers.json", POOLING = "1_Pooling/config.json";
// How a sentence becomes tokens; the first of these that holds something counts.
const NETWORK = ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"].map((name) => `sentence_${name}_config.json`);

// What such a file may say beside what is read of it: these fields, with these values.
const FIXED = {
  transformer_task: "feature-extraction", module_output_name: "token_embeddings", processing_kwargs: {}, query_length: null, document_length: null,
  query_expansion: null, tokenizer_name_or_path: null, modality_config: { text: { method: "forward", method_output_name: "last_hidden_state" } },
  ...Object.fromEntries(["model", "processor", "tokenizer", "config"].flatMap((what) => ["kwargs", "args"].map((word) => [`${what}_${word}`, {}]))),
};

/**
 * What is done, as the folder's files say it -> {maxTokens, lowerCase, prompt};
 * a vector that is made otherwise than here is refused, and so is a field that asks for something else.
 *
 * read  The value of a JSON file, or null where there is none: `read(name)` an object, `read(name, Array.isArray)` a list.
 */
export async function readPipeline(read, fail) {
  const here = "this page takes the mean of the tokens' vectors and brings it to length 1", words = (value) => String(JSON.stringify(value)).slice(0, 60);
  const own = (await read("tokenizer_config.json"))?.model_max_length;
  const longest = typeof own === "number" && own >= 2 && own < 1e9 ? Math.floor(own) : null;
  const modules = await read("modules.json", Array.isArray), pooling = await read(POOLING);
  const kinds = modules?.map((module) => String(module?.type).split(".").at(-1)).join(", ").slice(0, 80);
  if (modules && kinds !== "Transformer, Pooling, Normalize") throw fail(`modules.json lists ${kinds}: ${here}.`);
  const older = Object.keys(pooling ?? {}).filter((field) => field.startsWith("pooling_mode_") && pooling[field]);
  const modes = [pooling?.pooling_mode ?? older.map((field) => (field === "pooling_mode_mean_tokens" ? "mean" : field))].flat();
  if (modes.some((mode) => mode !== "mean") || modes.length > 1) throw fail(`${POOLING} asks for ${String(modes.join(" and ")).slice(0, 60)}: ${here}.`);
  if (!modules) return { maxTokens: longest, lowerCase: false, prompt: "" };

  let file = NETWORK[0], network = {};
  for (const name of NETWORK) {
    const found = (await read(name)) ?? {};
    if (Object.keys(found).length) {
      [file, network] = [name, found];
      break;
    }
  }
  const { max_seq_length: most = null, do_lower_case: lowerCase = false, unpad_inputs, ...others } = network;
  if (most !== null && !(Number.isSafeInteger(most) && most >= 2)) throw fail(`${file}: max_seq_length is ${words(most)}, expected a whole number from 2.`);
  if (typeof lowerCase !== "boolean") throw fail(`${file}: do_lower_case is ${words(lowerCase)}, expected true or false.`);
  for (const [field, value] of Object.entries(others))
    if (!(field in FIXED) || JSON.stringify(value) !== JSON.stringify(FIXED[field])) throw fail(`${file}: ${field.slice(0, 40)} is ${words(value)}; this page does not do that.`);
  const { prompts = {}, default_prompt_name: name = null } = (await read(ABOUT)) ?? {};
  const prompt = name === null ? "" : prompts?.[name] ?? (["query", "document"].includes(name) ? "" : undefined);
  if (typeof prompt !== "string") throw fail(`${ABOUT}: default_prompt_name is ${words(name)}, which is not one of prompts.`);
  return { maxTokens: most ?? longest, lowerCase, prompt };
}
