// Decoding: from a model that scores the next token to a row of tokens, one at a time. The twin of using/decoding.py,
// with the same steps under the same names; the papers are named there.
//
// A model only ever says how well each token of the vocabulary would come next. What to do with that is decided here:
// take the best (greedy), draw one (sampling), or keep several beginnings (beam search). Nothing here knows a model: a
// *step* is any function (tokenIds [row, new token], state) -> {scores [row, vocab], state}, where the state is null
// before the first call and `state.reorder(rows)` gives that of other rows. Texts are lists of token ids, the scores of
// one row a Float32Array; with beams the rows of a prompt stand next to each other.

import { InputError } from "./weights.js";

const NEVER = -1e9; // added to a score, it makes a beam lose against every other
const single = Math.fround; // what torch keeps in float32 is kept in float32 here, so that the same sums tie

// ------------------------------------------------------------------------------------------- what is asked for

// The most that is asked for in earnest. What is above it runs out of memory, or never ends.
const MOST = { maxNewTokens: 1e6, topK: 1e9, noRepeatNgram: 1e9, beams: 1000 };
const DEFAULTS = {
  maxNewTokens: 20, temperature: null, topK: null, topP: null, repetitionPenalty: null, noRepeatNgram: null, beams: 1,
  lengthPenalty: 1, earlyStopping: false, sample: null, seed: null,
};

/**
 * Settings with nothing left open: what is null is not done. InputError for what makes no sense.
 *
 * `sample` says whether tokens are drawn; where it is left out they are if `temperature`, `topK` or `topP` is given.
 * Without a `seed` every run draws others.
 */
export function complete(asked) {
  const whole = { ...DEFAULTS };
  for (const [name, value] of Object.entries(asked)) {
    if (!(name in DEFAULTS)) throw new InputError(`there is no setting ${name}`);
    whole[name] = value ?? DEFAULTS[name];
  }
  const refuse = (name, must) => {
    throw new InputError(`${name} is ${JSON.stringify(whole[name])}; it must be ${must}`);
  };
  for (const [name, most] of Object.entries(MOST)) {
    if (whole[name] !== null && (!Number.isInteger(whole[name]) || whole[name] < 1)) refuse(name, "a whole number from 1");
    if (whole[name] > most) refuse(name, `at most ${most.toLocaleString("en")}`);
  }
  for (const name of ["temperature", "repetitionPenalty"])
    if (whole[name] !== null && !(whole[name] > 0 && whole[name] < Infinity)) refuse(name, "a number above 0");
  if (whole.topP !== null && !(whole.topP > 0 && whole.topP <= 1)) refuse("topP", "above 0 and at most 1");
  if (!Number.isFinite(whole.lengthPenalty)) refuse("lengthPenalty", "a finite number");
  if (![true, false, "never"].includes(whole.earlyStopping)) refuse("earlyStopping", 'true, false or "never"');
  if (whole.seed !== null && !Number.isSafeInteger(whole.seed)) refuse("seed", "a whole number");
  whole.sample ??= [whole.temperature, whole.topK, whole.topP].some((value) => value !== null);
  if (whole.seed !== null && !whole.sample) throw new InputError("a seed changes nothing without sampling; give a temperature, 1 for none");
  if (whole.beams > 1 && Math.abs(whole.lengthPenalty * Math.log(whole.maxNewTokens)) > 80) // float32 ends at about e ** 88
    throw new InputError(`lengthPenalty is ${whole.lengthPenalty}; take one nearer to 0, for a length of ${whole.maxNewTokens} to that power is no number any more`);
  return whole.sample ? whole : { ...whole, temperature: null, topK: null, topP: null };
}

/**
 * Numbers between 0 and 1, neither of them, the same from one seed (Steele and Vigna's splitmix32: a counter, well stirred). torch has
 * another generator: the same chances, other draws.
 */
export function generator(seed) {
  let counter = seed ?? Math.floor(Math.random() * 2 ** 32);
  return () => {
    let bits = (counter = (counter + 0x9e3779b9) | 0);
    bits = Math.imul(bits ^ (bits >>> 16), 0x21f0aaad);
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
    return (((bits ^ (bits >>> 15)) >>> 0) + 0.5) / 2 ** 32;
  };
}

// --------------------------------------------------------------- what is done to the scores of a row, in order

/**
 * Everything that is done to the scores of a row's next token, in the order in which it is done. -> [vocab].
 *
 * `tokenIds` are those so far, the first `padding` of them padding, and `ends` says how many tokens end a text.
 */
export function adjusted(scores, tokenIds, settings, padding, ends) {
  if (settings.repetitionPenalty !== null) scores = penaliseRepetition(scores, tokenIds.slice(padding), settings.repetitionPenalty);
  if (settings.noRepeatNgram !== null) scores = forbidRepeatedNgrams(scores, tokenIds, settings.noRepeatNgram);
  // A beam that can only end leaves no beginning to go on with, so one token more than ends must stay.
  const atLeast = settings.beams === 1 ? 1 : Math.max(2, ends + 1);
  if (settings.temperature !== null) scores = warm(scores, settings.temperature);
  if (settings.topK !== null) scores = keepTopK(scores, Math.max(settings.topK, atLeast));
  if (settings.topP !== null && settings.topP < 1) scores = keepTopP(scores, settings.topP, atLeast);
  return scores;
}

/** Makes every token that was there before less likely, by the same factor however often it was there. */
export function penaliseRepetition(scores, tokenIds, penalty) {
  const penalised = scores.slice();
  for (const id of new Set(tokenIds)) penalised[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
  return penalised;
}

/** No probability for a token that would complete a run of `size` tokens that is there already. */
export function forbidRepeatedNgrams(scores, tokenIds, size) {
  const open = scores.slice();
  const beginning = tokenIds.slice(tokenIds.length + 1 - size); // size - 1: what the next token would complete
  for (let start = 0; start + size <= tokenIds.length; start++)
    if (size === 1 || beginning.every((id, i) => id === tokenIds[start + i])) open[tokenIds[start + size - 1]] = -Infinity;
  return open;
}

/** Sharpens the distribution below 1 and flattens it above. */
export const warm = (scores, temperature) => scores.map((score) => score / temperature);

/** No probability for tokens below the k-th best; those that tie with it stay. */
export function keepTopK(scores, k) {
  const worstKept = scores.slice().sort()[Math.max(scores.length - k, 0)];
  return scores.map((score) => (score < worstKept ? -Infinity : score));
}

/** The nucleus: only the likeliest tokens, as few as have probability p together. */
export function keepTopP(scores, p, atLeast) {
  const ascending = Array.from(scores.keys()).sort((a, b) => scores[a] - scores[b]); // so the sum of the tail is what is cut
  const shares = softmax(scores);
  const kept = scores.slice();
  let sum = 0;
  for (const id of ascending.slice(0, ascending.length - atLeast)) {
    sum += shares[id];
    if (sum > 1 - p) break;
    kept[id] = -Infinity;
  }
  return kept;
}

/** Shares that add up to 1. [vocab] -> [vocab]. */
function softmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const shares = Float64Array.from(scores, (score) => Math.exp(score - largest));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

/** Their logarithms. */
function logSoftmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const log = Math.log(scores.reduce((sum, score) => sum + Math.exp(score - largest), 0));
  return scores.map((score) => score - largest - log);
}

// ---------------------------------------------------------------------------------------------------- decoding

/**
 * Prompts with their continuations: lists of token ids, all as long as the longest prompt and at most maxNewTokens more.
 *
 * step     Scores the next token. With beams it is called with batch × beam rows, from the first call on.
 * prompts  Rows of token ids of one length.
 * special  {ends, padding}: the ids that end a text, and the one that pads (null: none).
 * options  {padding, stream}: how many of each row's first tokens are padding, on the left; and what is called with
 *          each step's tokens, one a row, as soon as they are known.
 *
 * A row that has ended is filled up with padding until all have.
 */
export function decode(step, prompts, settings, special, { padding = prompts.map(() => 0), stream = null } = {}) {
  const whole = complete(settings);
  if (whole.beams === 1) return oneByOne(step, prompts, whole, special, padding, stream);
  if (stream) throw new InputError("a beam search cannot stream: which text wins is only known at the end");
  return beamSearch(step, prompts, whole, special, padding);
}

/** Token ids [row, new token] as a tensor. */
const tensorOf = (rows) => ({ shape: [rows.length, rows[0].length], data: Int32Array.from(rows.flat()) });

/** The rows of scores [row, vocab]. */
const rowsOf = ({ shape: [rows, vocab], data }) => Array.from({ length: rows }, (_, row) => data.subarray(row * vocab, (row + 1) * vocab));

/** Greedy decoding and sampling: take the best token, or draw one, and go on after it. */
function oneByOne(step, prompts, settings, special, padding, stream) {
  const texts = prompts.map((prompt) => [...prompt]);
  const running = texts.map(() => true);
  const random = generator(settings.seed);
  let fresh = prompts, state = null, scores;
  for (let count = 0; count < settings.maxNewTokens; count++) {
    ({ scores, state } = step(tensorOf(fresh), state));
    const chosen = rowsOf(scores).map((row, i) => {
      const own = adjusted(row, texts[i], settings, padding[i], special.ends.length);
      const best = settings.sample ? draw(own, 1, random)[0] : argmax(own);
      return special.ends.length && special.padding !== null && !running[i] ? special.padding : best;
    });
    fresh = chosen.map((id) => [id]);
    chosen.forEach((id, i) => {
      texts[i].push(id);
      running[i] &&= !special.ends.includes(id);
    });
    stream?.(chosen);
    if (!running.some((on) => on)) break;
  }
  return texts;
}

/** The place of the largest number; the first of equals. */
const argmax = (scores) => scores.reduce((best, score, i) => (score > scores[best] ? i : best), 0);

/** The places of the `count` largest numbers, the largest first; the first of equals first. */
function topK(scores, count) {
  const places = [];
  for (let i = 0; i < scores.length; i++) {
    if (places.length === count && scores[i] <= scores[places.at(-1)]) continue;
    let at = places.length;
    while (at > 0 && scores[i] > scores[places[at - 1]]) at--;
    places.splice(at, 0, i);
    if (places.length > count) places.pop();
  }
  return places;
}

/**
 * Different places, drawn by their probabilities: a race, where the likelier starts ahead (each one's time is an
 * exponential draw divided by its probability) and the first `count` win. That is how torch draws, too.
 */
function draw(scores, count, random) {
  const shares = softmax(scores);
  if (!shares.every(Number.isFinite))
    throw new InputError("temperature or repetitionPenalty makes scores too large to draw by; take one nearer to 1");
  return topK(shares.map((share) => share / -Math.log(random())), count);
}

/**
 * Keeps several beginnings of each text, and returns the finished text with the best score.
 *
 * A beginning's score is the sum of its tokens' log-probabilities; a finished text's is divided by its length to the
 * power of the length penalty, for otherwise the short would always win.
 */
function beamSearch(step, prompts, settings, special, padding) {
  const { beams, maxNewTokens } = settings;
  // So many that, even if every end is among the best of each beam, enough are left to go on with.
  const candidates = beams * Math.max(2, 1 + special.ends.length);
  const random = generator(settings.seed);
  const searches = prompts.map((prompt, i) => new Search(prompt, settings, padding[i], special));
  let fresh = searches.flatMap(({ running }) => running.map(({ text }) => text)), state = null, scores;
  for (let length = 1; length <= maxNewTokens; length++) {
    ({ scores, state } = step(tensorOf(fresh), state));
    const rows = rowsOf(scores);
    const parents = searches.flatMap((search, i) => {
      const own = rows.slice(i * beams, (i + 1) * beams);
      return search.advance(own, length, candidates, random).map((parent) => i * beams + parent);
    });
    if (!searches.some(({ hopeful }) => hopeful) || (settings.earlyStopping === true && searches.every(({ full }) => full))) break;
    state = state.reorder(parents);
    fresh = searches.flatMap(({ running }) => running.map(({ text }) => [text.at(-1)]));
  }
  const fill = special.ends.length ? special.padding || special.ends[0] : 0; // 0 fills no row officially
  const best = searches.map(({ finished }, i) => finished[0]?.text ?? prompts[i]);
  const longest = Math.max(...best.map(({ length }) => length));
  return best.map((text) => [...text, ...Array(longest - text.length).fill(fill)]);
}

/** The beam search of one prompt: beginnings that go on, and texts that are finished, {text, score}, the best first. */
class Search {
  finished = [];
  hopeful = true; // whether a beginning may still beat a finished text

  constructor(prompt, settings, padding, special) {
    Object.assign(this, { settings, padding, ends: special.ends });
    // All are the prompt at first, so only the first counts until they differ.
    this.running = Array.from({ length: settings.beams }, (_, beam) => ({ text: [...prompt], score: beam ? NEVER : 0 }));
  }

  get full() {
    return this.finished.length === this.settings.beams;
  }

  /** One token more. rows: the scores of the next token after each beginning. -> the beginning that each went on from. */
  advance(rows, length, candidates, random) {
    const { settings, ends } = this;
    const vocab = rows[0].length;
    // 1. Every token after every beginning, and the best of all these.
    const total = new Float32Array(rows.length * vocab);
    rows.forEach((row, beam) => {
      const { text, score } = this.running[beam];
      adjusted(logSoftmax(row), text, settings, this.padding, ends.length).forEach((value, id) => (total[beam * vocab + id] = value + score));
    });
    const picked = settings.sample ? draw(total, candidates, random) : topK(total, candidates);
    const grown = picked.map((place) => {
      const [parent, id] = [Math.floor(place / vocab), place % vocab];
      const ended = ends.includes(id) || length === settings.maxNewTokens;
      return { text: [...this.running[parent].text, id], score: total[place], parent, ended };
    });

    // 2. The best that have not ended go on, with what the step remembers of their beginning.
    const open = grown.map((candidate) => ({ ...candidate, score: single(candidate.score + (candidate.ended ? NEVER : 0)) }));
    this.running = topK(open.map(({ score }) => score), settings.beams).map((i) => open[i]);

    // 3. Those that have ended take their place among the finished, if they are good enough.
    const full = this.full && settings.earlyStopping === true;
    const newly = grown.slice(0, settings.beams).filter(({ ended }) => ended && this.hopeful && !full); // the others are in reserve
    const final = newly.map(({ text, score }) => ({ text, score: single(score / length ** settings.lengthPenalty) }));
    this.finished = [...this.finished, ...final].sort((a, b) => b.score - a.score).slice(0, settings.beams);

    // 4. Stop when no beginning can become better than the worst finished text.
    this.hopeful &&= this.mayBeBeaten(this.running[0].score, length);
    return this.running.map(({ parent }) => parent);
  }

  /** Whether the best beginning may become better than the worst text. Which length to judge it by is a guess. */
  mayBeBeaten(score, length) {
    const never = this.settings.earlyStopping === "never" && this.settings.lengthPenalty > 0;
    const reach = single(score / (never ? this.settings.maxNewTokens : length) ** this.settings.lengthPenalty);
    return !this.full || reach > this.finished.at(-1).score;
  }
}
