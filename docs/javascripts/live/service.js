// What a live page has done for it: open a model, run it on a sentence, and hand out what came to be, a tensor at a time.

import { chartsOf, sliceOf } from "./charts.js";
import { compare } from "./compare.js";
import { checkSizes, readWeights, shapesOf } from "./copy.js";
import { modules } from "./modules.js";

const MOST_TOKENS = 128; // of one text: more than a map can show
const LARGEST_CAPTURE = 800e6; // bytes
const MOST_BARS = 14; // of the chart of next tokens
const WRITING = ["next", "write", "beams", "says"]; // calls that need what writes texts

export class Service {
  code = modules({}, false); // begun at once, so that it is there when a model comes

  /** One of the calls below, by name. What writes texts is loaded by the first that needs it. */
  async call(name, values) {
    if (WRITING.includes(name) && this.model?.generates && !this.code.generate) await this.learnToWrite();
    return this[name](...values);
  }

  async learnToWrite() {
    this.code = { ...this.code, ...(await modules()) };
    if (this.right) this.right.code = this.code;
  }

  // ---------------------------------------------------------------------------------------- opening

  /** A model that the site carries. record: what NAME.json says of it; url: its folder. */
  async fetch(record, url) {
    this.load(record);
    const bytes = async (name) => {
      const answer = await fetch(new URL(name, url));
      if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status})`);
      return [name, await answer.blob()];
    };
    return this.open(record, new Map(await Promise.all(record.files.map(bytes))));
  }

  /** Load a model's code while its files are on their way. What fails is said where it is needed. */
  async load({ type, tokenizer, generates }) {
    const { models, tokenizers } = await this.code;
    await Promise.allSettled([models.ARCHITECTURES[type].load(), tokenizers.ALGORITHMS[tokenizer].load(), generates && import("../rebuild/defaults.js")]);
  }

  /** A model from its files, name -> Blob. -> {parameters, bytes, sha256, settings}. */
  async open(record, files) {
    this.code = await this.code;
    const { InputError } = this.code.weights;
    const fail = (words) => new InputError(words);
    checkSizes(files, fail);
    const read = async (name) => files.has(name) && files.get(name).arrayBuffer();
    const json = async (name, fits = (value) => value && typeof value === "object" && !Array.isArray(value)) => {
      if (!files.has(name)) return null;
      try {
        const value = JSON.parse(await files.get(name).text());
        if (fits(value)) return value;
      } catch {} // said below
      throw fail(`${name} is not what it should be in JSON; download it again.`);
    };
    const config = await json("config.json");
    const architecture = this.code.models.ARCHITECTURES[config.model_type];
    if (!architecture || ![record.type, ...record.relatives].includes(config.model_type))
      throw fail(`config.json: model_type is ${String(JSON.stringify(config.model_type)).slice(0, 40)}; this page takes ${record.title} apart, "${record.type}".`);
    const fields = await architecture.read(config), { generates } = record;
    const needed = { shapes: shapesOf(record.weights, fields, record.stacks, fail), optional: shapesOf(record.optional, fields, record.stacks, fail), unused: record.unused };
    for (const [key, shape] of needed.optional) if (fields.needed?.includes(key.split(".").slice(-2).join("."))) needed.shapes.set(key, shape);
    const rename = (key) => this.code.models.nameOf(key, architecture);
    const pipeline = generates ? { maxTokens: null, lowerCase: false, prompt: "" } : await (await import("./pipeline.js")).readPipeline(json, fail);
    const buffer = await readWeights(files.get("model.safetensors"), needed, rename, this.code.weights);
    const tokenizerFiles = new Map();
    for (const name of files.keys()) if (/^(vocab|merges|spiece|tokenizer|special_tokens|added_tokens)/.test(name)) tokenizerFiles.set(name, await read(name));
    const made = await this.code.tokenizers.load(tokenizerFiles, record.tokenizer), tokenizer = pipeline.lowerCase ? made.lowerCased() : made;
    if (record.crossing.length) await this.learnToWrite(); // its decoder goes over what it writes
    const { defaults } = generates ? await import("../rebuild/defaults.js") : {};
    const asked = generates ? defaults(config, await json("generation_config.json"), fields.vocab_size, record.crossing.length > 0) : null;
    const tensors = this.code.weights.readSafetensors(buffer);
    const { positions } = fields;
    const most = Math.min(MOST_TOKENS, positions ?? MOST_TOKENS, pipeline.maxTokens ?? MOST_TOKENS);
    this.model = { record, config, tensors, tokenizer, asked, generates, positions, most, prompt: pipeline.prompt };
    await this.prepare();
    const counted = [...tensors].filter(([key]) => needed.shapes.has(rename(key)) || needed.optional.has(rename(key)));
    return {
      parameters: counted.reduce((sum, [, { data }]) => sum + data.length, 0),
      bytes: buffer.byteLength,
      sha256: await sha256(buffer),
      settings: asked?.settings ?? null,
    };
  }

  /** The model as the rebuild wants to have it; once more after an edit. */
  async prepare() {
    const { config, tensors } = this.model;
    const opened = async (code) => ({
      code,
      ...(await code.models.open(config, tensors, {
        at: (path) => this.recorder.tap.at(path),
        show: (...shown) => this.recorder.tap.show(...shown),
      })),
    });
    this.right = await opened(this.code);
    this.wrong = this.edited ? await opened(this.edited) : null;
  }

  /**
   * Go on with other lines of code: {"gpt2.js": [[before, after], …]}; {} is the rebuild as it is. While lines are changed, every
   * run is done twice, the right one first: that is what `compareWithRight` compares with.
   */
  async edit(edits) {
    this.edited = Object.keys(edits).length ? await modules(edits) : null;
    await this.prepare();
  }

  /** What answers: the rebuild, or what has become of it. */
  get opened() {
    return this.wrong ?? this.right;
  }

  // ---------------------------------------------------------------------------------------- running

  /** One run. -> {tokens, decoderTokens, names: [[name, shape]], truncated, answer, stopped}. */
  run(text) {
    const { tokenizer, most, prompt, record } = this.model;
    const encoding = tokenizer.encode(prompt + text, most);
    const batch = batchOf(encoding.ids);
    this.text = { ids: encoding.ids, tokens: this.spelt(encoding) };
    let answer = null, decoderIds = null;
    if (record.crossing.length) {
      const written = this.write(text, { maxNewTokens: 40 }, false, this.right); // a wrong model is given the same
      decoderIds = written.ids;
      answer = this.wrong ? attempt(() => this.write(text, { maxNewTokens: 40 }, false).text).answer ?? null : written.text;
      batch.decoderIds = { shape: [1, decoderIds.length], data: Int32Array.from(decoderIds) };
    }
    this.decoder = decoderIds && { ids: decoderIds, tokens: decoderIds.map((id) => this.word(id)) };
    const right = this.pass(this.right, batch);
    const wrong = this.wrong && attempt(() => this.pass(this.wrong, batch));
    this.before = wrong ? right.tensors : null;
    this.tensors = wrong ? this.recorder.tensors : right.tensors;
    this.outputs = { right: right.output, wrong: wrong?.answer?.output };
    return {
      tokens: this.text.tokens, ids: this.text.ids, decoderTokens: this.decoder?.tokens ?? null, decoderIds, truncated: encoding.truncated, answer,
      names: [...right.tensors].map(([name, { shape }]) => [name, this.tensors.get(name)?.shape ?? shape]), stopped: wrong?.problem ?? "",
    };
  }

  /** One pass of one side -> {tensors, output}. */
  pass(side, batch) {
    this.recorder = new this.code.weights.Recorder();
    const { tensors } = this.recorder;
    const cache = this.model.generates ? [new side.code.cache.Cache()] : [];
    return { tensors, output: side.forward(batch, side.model, ...cache) };
  }

  /** What the answer's side made of the last run. */
  get output() {
    const output = this.wrong ? this.outputs.wrong : this.outputs.right;
    if (!output) throw new this.code.weights.InputError("With this mistake the model does not come to an end.");
    return output;
  }

  /** A token as people read it; where tokens are bytes, not as the vocabulary writes it. */
  word(id) {
    const { tokenizer } = this.model;
    return tokenizer.tokens ? (tokenizer.tokens[id] ?? `id ${id}`) : tokenizer.decode([id]);
  }

  spelt({ ids, tokens }) {
    return this.model.tokenizer.tokens ? tokens : ids.map((id) => this.word(id));
  }

  // ----------------------------------------------------------------------------------- one checkpoint

  /**
   * The pictures of a checkpoint of the last run -> {chart, labels, pinned}; beside the right one, where a line is changed, unless
   * it is `alone`. pinned: the pictures of what `pin` holds, and the difference where both have one shape.
   */
  picture(name, axes, alone = false) {
    const tensor = this.tensorOf(name), right = this.before?.get(name);
    if (!tensor) return null;
    const both = right && !alone && right !== tensor && right.shape.join() === tensor.shape.join();
    const own = { chart: chartsOf(both ? { here: right, wrong: tensor } : { here: tensor }, axes, this.listsOf(name, axes)), labels: this.labels() };
    if (!this.pinned || alone) return own;
    const { pinned } = this, alike = pinned.tensor.shape.join() === tensor.shape.join();
    const chart = chartsOf(alike ? { pinned: pinned.tensor, here: tensor } : { pinned: pinned.tensor }, pinned.axes, pinned.lists);
    if (chart.heat) chart.heat.maps = chart.heat.maps.filter((_, i) => i !== 1);
    return { ...own, pinned: { name: pinned.name, text: pinned.text, chart, labels: pinned.labels } };
  }

  /** Hold a checkpoint of the last run, to be seen beside others, also of other sentences; null: hold none. */
  pin(name, axes, text) {
    this.pinned = name && { name, axes, text, tensor: this.tensorOf(name), lists: this.listsOf(name, axes), labels: this.labels() };
  }

  labels() {
    return [[], this.labelsOf(this.text), this.decoder ? this.labelsOf(this.decoder) : []];
  }

  /** Which of the labels a checkpoint's rows and columns have. */
  listsOf(name, axes) {
    const layout = ["token", "query", "key"];
    const listOf = (axis) => (layout.includes(axis) ? (this.countsDecoder(name, axis) ? 2 : 1) : 0);
    return [listOf(axes.find((axis) => layout.includes(axis))), listOf(axes.at(-1))];
  }

  /** A checkpoint of the last run; of a wrong run that does not have it, the right one. */
  tensorOf(name) {
    return this.tensors.get(name) ?? this.before?.get(name);
  }

  labelsOf({ tokens }) {
    return tokens.map((token) => `"${token}"`);
  }

  /** Whether an axis counts the decoder's own tokens. The twin of Architecture.counts_decoder. */
  countsDecoder(name, axis) {
    const { record } = this.model;
    if (!record.crossing.length || name.startsWith(`${record.stacks[0].side}.`)) return false;
    const crosses = record.crossing.some((piece) => name.includes(piece));
    if (crosses && axis === "token") return !/\.[kv]$/.test(name);
    return !(crosses && axis === "key");
  }

  /** The numbers of one head, {shape: [rows, columns], data}. */
  numbers(name, axes, head) {
    return sliceOf(this.tensorOf(name), axes, head);
  }

  /** Smallest, largest, mean and spread of a checkpoint's numbers. */
  facts(name) {
    const { data } = this.tensorOf(name);
    let low = Infinity, high = -Infinity, sum = 0, squares = 0, count = 0;
    for (const x of data) {
      if (!Number.isFinite(x) || Math.abs(x) > 1e30) continue;
      low = Math.min(low, x);
      high = Math.max(high, x);
      sum += x;
      squares += x * x;
      count++;
    }
    const mean = sum / count;
    return { low, high, mean, spread: Math.sqrt(Math.max(0, squares / count - mean * mean)), count, other: data.length - count };
  }

  // -------------------------------------------------------------------------------------- comparing

  /** How the last run compares with an official capture, name -> {kind, words, worst}. Null where it is of another text. */
  async official(url) {
    this.captures ??= new Map();
    if (!this.captures.has(url)) this.captures.set(url, await (await fetch(url)).arrayBuffer());
    return this.against(this.code.weights.readSafetensors(this.captures.get(url)));
  }

  against(stored) {
    const ids = (key) => Array.from(stored.get(`inputs/${key}`)?.data ?? [], Number).join();
    if (ids("token_ids") !== this.text.ids.join() || (this.decoder && ids("decoder_ids") !== this.decoder.ids.join())) return null;
    const verdicts = {};
    for (const [key, tensor] of stored)
      if (key.startsWith("checkpoint/")) verdicts[key.slice("checkpoint/".length)] = compare(this.tensors.get(key.slice("checkpoint/".length)), tensor);
    return verdicts;
  }

  /** How the last run compares with the right one, where a line is changed: every other bit is the mistake's. */
  compareWithRight() {
    const verdict = (name, tensor) => {
      const { kind, ...rest } = compare(this.tensors.get(name), tensor);
      return [name, { kind: kind === "near" ? "wrong" : kind, ...rest }];
    };
    return Object.fromEntries([...this.before].map(([name, tensor]) => verdict(name, tensor)));
  }

  /** What the right and the wrong model say of the last text -> {right, wrong}, each {next, text, cosines, like} or {problem}. */
  says(text, others) {
    const says = (side, output) => {
      if (!this.model.generates) {
        const mine = output.sentenceEmbedding.data;
        const cosines = others.map((other) => cosine(mine, this.embedding(other, side)));
        return { cosines, like: cosine(mine, this.outputs.right.sentenceEmbedding.data) };
      }
      const next = this.decoder ? [] : this.likeliest(output, 4);
      return { next, text: this.write(text, { maxNewTokens: this.decoder ? 40 : 8 }, false, side).text };
    };
    return Object.fromEntries(["right", "wrong"].map((side) => {
      const { answer, problem } = attempt(() => says(this[side], this.outputs[side]));
      return [side, answer ?? { problem }];
    }));
  }

  likeliest({ logits }, count) {
    const chances = shares(logits.data.slice(-logits.shape[2]));
    const order = Array.from(chances.keys()).sort((a, b) => chances[b] - chances[a]);
    return order.slice(0, count).map((id) => ({ word: this.word(id), share: chances[id] }));
  }

  /**
   * A capture of the reader's own, as `llm-rebuild capture` writes it -> {names, entries: {name: [shape, meaning]}, texts, model}. From
   * now on its tensors are those that are looked at, until the next run.
   */
  async capture(blob) {
    this.code = await this.code;
    const { InputError, readHeader, readSafetensors } = this.code.weights;
    if (blob.size > LARGEST_CAPTURE) throw new InputError(`This capture has ${Math.round(blob.size / 1e6)} MB; this page reads up to ${LARGEST_CAPTURE / 1e6} MB.`);
    const buffer = await blob.arrayBuffer();
    const { metadata } = readHeader(buffer, buffer.byteLength);
    let about;
    try {
      about = JSON.parse(metadata.llm_rebuild);
    } catch {
      throw new InputError("This is no capture: `llm-rebuild capture` writes one. For a model of your own choose its whole folder.");
    }
    const stored = readSafetensors(buffer);
    const names = (Array.isArray(about?.order) ? about.order : []).filter((name) => typeof name === "string" && !/\p{Surrogate}/u.test(name) && stored.has(`checkpoint/${name}`));
    if (!names.length) throw new InputError("This capture holds no checkpoint.");
    this.tensors = new Map(names.map((name) => [name, numbers(stored.get(`checkpoint/${name}`))]));
    this.before = null;
    const row = (key) => Array.from(stored.get(`inputs/${key}`)?.data ?? [], Number).slice(0, stored.get(`inputs/${key}`)?.shape[1] ?? 0);
    const listed = (value) => (Array.isArray(value) ? value.map(String) : []);
    this.text = { ids: row("token_ids"), tokens: listed(about.tokens?.[0]) };
    const decoder = row("decoder_ids");
    this.decoder = decoder.length ? { ids: decoder, tokens: decoder.map((id) => `id ${id}`) } : null;
    const entries = Object.fromEntries(names.map((name) => [name, listed(about.checkpoints?.[name]).slice(0, 2)]));
    return { names: [...this.tensors].map(([name, { shape }]) => [name, shape]), entries, texts: listed(about.texts), model: String(about.model?.name ?? "a model") };
  }

  // -------------------------------------------------------------------------------------- generation

  /** The scores of the next token of the last run as chances, before and after what the settings do to them. */
  next(settings) {
    const { logits } = this.output;
    const vocabulary = logits.shape[2];
    const scores = logits.data.slice(-vocabulary);
    const { adjusted, complete } = this.code.decoding;
    const ids = this.decoder?.ids ?? this.text.ids;
    const after = shares(adjusted(scores, ids, complete({ ...settings, sample: true, maxNewTokens: 1 }), 0, this.model.asked.special.ends.length));
    const before = shares(scores);
    const order = Array.from(before.keys()).sort((a, b) => before[b] - before[a]);
    const left = after.reduce((count, share) => count + (share > 0), 0);
    return { left, vocabulary, bars: order.slice(0, MOST_BARS).map((id) => ({ id, word: this.word(id), before: before[id], after: after[id] })) };
  }

  /**
   * A text gone on with, or translated. -> {text, ids, words, steps: [{fresh, seen}], end}.
   *
   * steps  Of each pass: how many tokens were read anew, and how many the cache had.
   */
  write(text, settings, keep = true, side = this.opened) {
    const { tokenizer, asked } = this.model;
    const { ids } = tokenizer.encode(text, MOST_TOKENS);
    const log = [];
    const [row] = this.decode(ids, this.fitting(ids, { ...asked.settings, ...settings }), log, side);
    const { start, ends } = asked.special;
    const written = row.slice(start === null ? ids.length : 1);
    const end = written.findIndex((id) => ends.includes(id));
    const own = end < 0 ? written : written.slice(0, end);
    if (keep) this.log = log;
    return {
      text: tokenizer.decode(own, true), ids: start === null ? row.slice(0, ids.length + own.length) : [start, ...own], words: own.map((id) => this.word(id)),
      ended: end >= 0, prompt: start === null ? ids.map((id) => this.word(id)) : [this.word(start)],
      steps: log.map(({ fresh, seen }) => ({ fresh: fresh[0].length, seen })),
    };
  }

  /** As many new tokens as the model has positions for. */
  fitting(ids, settings) {
    const { positions } = this.model;
    const most = positions ? positions - ids.length + 1 : Infinity;
    return { ...settings, maxNewTokens: Math.min(settings.maxNewTokens ?? 40, most) };
  }

  decode(ids, settings, log, side = this.opened) {
    const { special } = this.model.asked;
    const quiet = this.recorder;
    this.recorder = { tap: this.code.weights.NO_TAP }; // many passes: nobody looks inside
    try {
      const step = recorded(side.code.generate.stepOf(side, batchOf(ids), settings.beams ?? 1), log);
      return this.code.decoding.decode(step, [special.start === null ? ids : [special.start]], settings, special);
    } finally {
      this.recorder = quiet;
    }
  }

  /** A beam search as a tree: [{word, parent, score, alive}] a step, and the text that won. */
  beams(text, settings) {
    const { tokenizer, asked } = this.model;
    const { ids } = tokenizer.encode(text, MOST_TOKENS);
    const log = [];
    const whole = this.fitting(ids, { ...asked.settings, ...settings, sample: false, temperature: null, topK: null, topP: null });
    const [row] = this.decode(ids, whole, log);
    const prompt = asked.special.start === null ? ids.length : 1;
    const levels = [];
    let sums = log[0].fresh.map((_, beam) => (beam ? -Infinity : 0));
    log.forEach(({ scores, parents }, at) => {
      const next = log[at + 1];
      const alive = next ? next.fresh.map(([id], beam) => ({ id, parent: parents[beam] })) : [];
      const level = [];
      scores.forEach((logs, beam) => {
        if (sums[beam] === -Infinity) return;
        const best = Array.from(logs.keys()).sort((a, b) => logs[b] - logs[a]).slice(0, whole.beams);
        const kept = alive.filter(({ parent }) => parent === beam).map(({ id }) => id);
        for (const id of new Set([...kept, ...best]))
          level.push({ id, word: this.word(id), parent: beam, score: sums[beam] + logs[id], beam: alive.findIndex((one) => one.id === id && one.parent === beam), ends: asked.special.ends.includes(id) });
      });
      levels.push(level);
      sums = alive.map(({ id, parent }) => sums[parent] + scores[parent][id]);
    });
    const won = row.slice(prompt).filter((id) => !asked.special.ends.includes(id) && id !== asked.special.padding);
    return { levels, won: won.map((id) => this.word(id)), wonIds: row.slice(prompt), text: tokenizer.decode(won, true), greedy: this.write(text, { maxNewTokens: whole.maxNewTokens, beams: 1, sample: false }).text };
  }

  // --------------------------------------------------------------------------------------- similarity

  /** Sentences as vectors, and the cosine of each two. */
  similar(texts) {
    const vectors = texts.map((text) => this.embedding(text, this.opened));
    return vectors.map((a) => vectors.map((b) => dot(a, b)));
  }

  embedding(text, side) {
    const { tokenizer, most, prompt } = this.model, quiet = this.recorder;
    this.recorder = { tap: this.code.weights.NO_TAP };
    try {
      return side.forward(batchOf(tokenizer.encode(prompt + text, most).ids), side.model).sentenceEmbedding.data;
    } finally {
      this.recorder = quiet;
    }
  }
}

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));

/** What comes of something that a mistake may stop -> {answer} or {problem}. */
function attempt(does) {
  try {
    return { answer: does() };
  } catch (error) {
    return { problem: error.message };
  }
}

/** One row of ids as a batch. */
function batchOf(ids) {
  const shape = [1, ids.length];
  return { tokenIds: { shape, data: Int32Array.from(ids) }, mask: { shape, data: new Int32Array(ids.length).fill(1) } };
}

/** A tensor with float32 numbers, whatever it came as. */
const numbers = ({ shape, data }) => ({ shape, data: data instanceof Float32Array ? data : Float32Array.from(data, Number) });

async function sha256(buffer) {
  if (!globalThis.crypto?.subtle) return null; // not on a page without encryption
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function shares(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const shares = Float64Array.from(scores, (score) => Math.exp(score - largest));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

/** A step that writes down what it is asked: the tokens that are new, how many the cache has, and who goes on from whom. */
function recorded(step, log) {
  const around = (state) => ({
    state,
    reorder(rows) {
      log.at(-1).parents = rows;
      return around(state.reorder(rows));
    },
  });
  return (tokenIds, known) => {
    const { scores, state } = step(tokenIds, known?.state ?? null);
    const [rows, fresh] = tokenIds.shape, vocabulary = scores.shape[1];
    const seen = log.length ? log.at(-1).seen + log.at(-1).fresh[0].length : 0;
    const logs = Array.from({ length: rows }, (_, row) => shares(scores.data.subarray(row * vocabulary, (row + 1) * vocabulary)).map(Math.log));
    log.push({ fresh: Array.from({ length: rows }, (_, row) => Array.from(tokenIds.data.subarray(row * fresh, (row + 1) * fresh))), seen, scores: logs });
    return { scores, state: around(state) };
  };
}
