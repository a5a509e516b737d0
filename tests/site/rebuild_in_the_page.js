// What test_rebuild_in_the_page.py asks of the rebuild in JavaScript. It runs in the page that the test opens.

import { Cache } from "./rebuild/cache.js";
import { adjusted, complete, decode } from "./rebuild/decoding.js";
import { defaults } from "./rebuild/defaults.js";
import { generate } from "./rebuild/generate.js";
import { ARCHITECTURES, open } from "./rebuild/models.js";
import { load } from "./rebuild/tokenizers.js";
import { GRAPHEME } from "./rebuild/tokenizers/graphemes.js";
import { decompose } from "./rebuild/tokenizers/wordpiece.js";
import { InputError, Recorder, readSafetensors } from "./rebuild/weights.js";

const bytes = async (path) => (await fetch(path)).arrayBuffer();
const json = async (path) => (await fetch(path)).json();
const integers = (tensor) => tensor && { shape: tensor.shape, data: Int32Array.from(tensor.data, Number) };
const tensorOf = (rows) => ({ shape: [rows.length, rows[0].length], data: Int32Array.from(rows.flat()) });
const MASKED = 1e30; // beyond it are the lowest floats that a mask adds

async function opened(folder, tap) {
  return open(await json(`${folder}/config.json`), readSafetensors(await bytes(`${folder}/model.safetensors`)), tap);
}

/** Every checkpoint of the captures in turn, each going on from the cache of the one before. */
export async function checkpoints(folder, captures, cached) {
  let recorder;
  const { forward, model } = await opened(folder, { at: (path) => recorder.tap.at(path), show: (...shown) => recorder.tap.show(...shown) });
  let cache = cached ? new Cache() : null;
  const answers = [];
  for (const capture of captures) {
    const official = readSafetensors(await bytes(capture));
    const input = (name) => integers(official.get(`inputs/${name}`));
    const batch = { tokenIds: input("token_ids"), mask: input("mask"), decoderIds: input("decoder_ids"), decoderMask: input("decoder_mask") };
    recorder = new Recorder();
    cache = forward(batch, model, cache).cache;
    answers.push([...recorder.tensors].map(([name, tensor]) => ({ name, shape: tensor.shape, ...difference(tensor, official.get(`checkpoint/${name}`)) })));
  }
  return answers;
}

/** The worst difference over the largest number that no mask has touched; infinite where masks or shapes differ. */
function difference(tensor, official) {
  if (!official || official.shape.join() !== tensor.shape.join()) return { worst: null };
  let worst = 0, largest = 0;
  for (let i = 0; i < official.data.length; i++) {
    const [a, b] = [official.data[i], tensor.data[i]];
    if (Math.abs(a) > MASKED || Math.abs(b) > MASKED) {
      if (a !== b) return { worst: null };
      continue;
    }
    if (!Number.isFinite(b)) return { worst: null };
    worst = Math.max(worst, Math.abs(a - b));
    largest = Math.max(largest, Math.abs(a));
  }
  return { worst: worst && worst / largest, equal: worst === 0 };
}

const filesOf = async (folder, names) => new Map(await Promise.all(names.map(async (name) => [name, await bytes(`${folder}/${name}`)])));

/** The first lines of which a tokenizer says something else than is expected, and how many these are. */
export async function tokens(folder, names, lines, expected) {
  const tokenizer = await load(await filesOf(folder, names));
  const [texts, wanted] = [await json(lines), await json(expected)];
  const wrong = texts.flatMap((text, number) => {
    const { ids, tokens, offsets } = tokenizer.encode(text);
    const own = [ids, tokens, offsets, tokenizer.decode(ids), tokenizer.decode(ids, true), tokenizer.encode(text, 8).ids];
    return JSON.stringify(own) === JSON.stringify(wanted[number]) ? [] : [[text, own, wanted[number]]];
  });
  return { count: wrong.length, lines: texts.length, first: wrong.slice(0, 3) };
}

/** Each text in its graphemes, and taken apart in letters and marks with their places. */
export const apart = (texts) => texts.map((text) => [text.match(GRAPHEME) ?? [], decompose([...text].map((character, place) => [character, place]))]);

/** What a tokenizer says of files, a byte a character: the message, and whether it is meant for the reader. */
export function refusals(cases, shared = {}) {
  return Promise.all(cases.map(async ({ files, text }) => {
    try {
      (await load(new Map(Object.entries({ ...shared, ...files }).map(([name, content]) => [name, Uint8Array.from(content, (byte) => byte.charCodeAt(0))])))).encode(text);
      return null;
    } catch (error) {
      return [error instanceof InputError, error.message];
    }
  }));
}

/** Continuations of prompts, by settings. */
export async function continuations(folder, cases) {
  const model = await opened(folder);
  return cases.map(({ tokenIds, mask, settings, special }) =>
    generate(model, { tokenIds: tensorOf(tokenIds), mask: tensorOf(mask) }, settings, special),
  );
}

/** What settings do to the scores of one row; null is minus infinity. */
export const adjustments = (scores, tokenIds, cases) =>
  cases.map((settings) => Array.from(adjusted(Float32Array.from(scores), tokenIds, complete(settings), 0, 0), (score) => (Number.isFinite(score) ? score : null)));

/** How often each token is drawn in rows that all have the same scores. */
export function draws(scores, settings, rows) {
  const data = Float32Array.from({ length: rows * scores.length }, (_, i) => scores[i % scores.length]);
  const step = (_, state) => ({ scores: { shape: [rows, scores.length], data }, state });
  const counts = scores.map(() => 0);
  for (const text of decode(step, Array(rows).fill([0]), { ...settings, maxNewTokens: 1 }, { ends: [], padding: null })) counts[text[1]]++;
  return counts;
}

/** Why each pair of config.json and generation_config.json (null: only the first) is refused; empty where it is read. */
export async function refusedConfigs(cases, encoderDecoder) {
  const refusal = async ([config, generation]) => {
    try {
      const fields = await ARCHITECTURES[config.model_type].read(config);
      if (generation) defaults(config, generation, fields.vocab_size, encoderDecoder);
      return "";
    } catch (error) {
      return error instanceof InputError ? error.message : `no InputError: ${error}`;
    }
  };
  return Promise.all(JSON.parse(cases).map(refusal));
}
