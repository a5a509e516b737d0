// T5's buckets: how far away a key is, as one of 32 numbers.

import { bucketOf } from "../rebuild/t5.js";
import { Drawing } from "./drawing.js";

const SIDES = ["encoder", "decoder"];
const REACH = 40; // distances in the picture, on either side

export const beside = true;

export const ask = {
  question: "In T5's encoder, keys 100 and 120 tokens behind a query: one bucket, or two?",
  answers: ["one bucket", "two buckets"],
  right: 0,
  reply: "Up to 7 tokens every distance has a bucket of its own; beyond, they widen. The last one begins before 100, and everything farther falls into it.",
};

export const controls = [
  { name: "distance", label: "key minus query", value: -3, min: -150, max: 150 },
  { name: "side", label: "in the", value: "encoder", options: SIDES },
  { name: "limit", label: "the largest distance (T5: 128)", value: 128, min: 16, max: 256 },
];

export function draw({ distance, side, limit }) {
  const config = { relative_attention_num_buckets: 32, relative_attention_max_distance: limit };
  const bucket = (of) => bucketOf(of, side === "encoder", config);
  const chosen = bucket(distance), step = 8, middle = 360;
  const drawing = new Drawing(720, 170, `The buckets of the distances from ${-REACH} to ${REACH} in the ${side}.`);
  drawing.text(20, 24, `bucket of each distance, in the ${side}`, { at: "start", bold: true });
  for (let at = -REACH; at <= REACH; at++) {
    const number = bucket(at), x = middle + step * at - step / 2;
    drawing.box(x, 124 - 2.6 * number, step - 1, 2.6 * number + 3, number === chosen ? "accent" : at > 0 ? "warm" : "good", number === chosen ? 1 : 0.45);
    if (at % 10 === 0) drawing.text(middle + step * at, 146, at, { size: 12, kind: "muted" });
  }
  drawing.text(20, 164, "← keys before the query", { at: "start", size: 13, kind: "muted" });
  drawing.text(700, 164, "keys after it →", { at: "end", size: 13, kind: "muted" });
  const alike = Array.from({ length: 601 }, (_, i) => i - 300).filter((of) => bucket(of) === chosen);
  const ends = [alike[0], alike.at(-1)].map((end) => (Math.abs(end) === 300 ? "beyond" : end));
  return { picture: drawing.svg, said: `Distance ${distance} falls into bucket ${chosen}, as do ${alike.length === 1 ? "no others" : `those from ${ends[0]} to ${ends[1]}`}.` };
}
