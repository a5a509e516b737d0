// A float32 as its 32 bits, how far it is to the next one, and what the order of a sum does.

import { Drawing } from "./drawing.js";

const SUMS = ["none", "from left to right", "from right to left", "in pairs"];
const NUMBERS = /^[-+\d.e\s]{1,60}$/i;

export const ask = {
  question: "100000000 + 1 − 100000000 in float32, from left to right: what comes out?",
  answers: ["1", "0", "100000000"],
  right: 1,
  reply: "At 100 million one float32 is 8 away from the next: the 1 is rounded off before the rest is taken away. From right to left the 1 survives.",
};

export const controls = [
  { name: "numbers", label: "a number, or several to be added", value: "100000000 1 -100000000", most: 60 },
  { name: "order", label: "added", value: "none", options: SUMS },
];

/** The bits of a float32, and the distance to the next one away from zero. */
export function anatomy(x) {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, x);
  const bits = view.getUint32(0);
  view.setUint32(0, bits + 1);
  return { bits: bits.toString(2).padStart(32, "0"), ulp: Math.abs(view.getFloat32(0) - Math.fround(x)) };
}

const add = (a, b) => Math.fround(a + b);

/** A sum in float32, in one of the orders. */
export function sumOf(numbers, order) {
  if (order === "from right to left") return sumOf([...numbers].reverse(), SUMS[1]);
  if (order !== "in pairs") return numbers.reduce(add);
  while (numbers.length > 1) numbers = Array.from({ length: Math.ceil(numbers.length / 2) }, (_, i) => (2 * i + 1 < numbers.length ? add(numbers[2 * i], numbers[2 * i + 1]) : numbers[2 * i]));
  return numbers[0];
}

export function draw({ numbers: words, order }) {
  const numbers = (NUMBERS.test(words) ? words.trim().split(/\s+/) : []).map(Number).map(Math.fround).filter(Number.isFinite);
  if (!numbers.length) numbers.push(0);
  const shown = order === "none" ? numbers[0] : sumOf(numbers, order), exact = numbers.reduce((a, b) => a + b);
  const { bits, ulp } = anatomy(shown);
  const drawing = new Drawing(720, 150, `The 32 bits of the float32 ${shown}.`);
  const parts = [["sign", 0, 1, "warm"], ["exponent", 1, 9, "accent"], ["fraction", 9, 32, "good"]];
  drawing.text(20, 26, order === "none" ? `${shown}` : `${numbers.join(" + ")}, ${order}: ${shown}`, { at: "start", bold: true, mono: true });
  for (const [name, from, to, kind] of parts) {
    for (let i = from; i < to; i++) {
      drawing.box(20 + 21 * i, 44, 20, 34, kind, bits[i] === "1" ? 1 : 0.15);
      drawing.text(30 + 21 * i, 67, bits[i], { mono: true, size: 14, kind: bits[i] === "1" ? "paper" : "ink", bold: true });
    }
    drawing.text(20 + 10.5 * (from + to), 98, name, { size: 13, kind: "muted" });
  }
  const exponent = parseInt(bits.slice(1, 9), 2);
  const value = exponent ? `${bits[0] === "1" ? "−" : ""}1.${parseInt(bits.slice(9), 2)}/2²³ × 2^${exponent - 127}`.replace(/1\.(\d+)/, "(1 + $1") .replace("/2²³", "/2²³)") : "0 or nearly";
  drawing.text(20, 126, `= ${value}`, { at: "start", size: 13, mono: true });
  drawing.text(20, 145, `the next float32 is ${ulp.toPrecision(3)} away: one ulp`, { at: "start", size: 13, kind: "muted" });
  const said = order === "none" ? `${shown} is stored as ${bits.slice(0, 1)} ${bits.slice(1, 9)} ${bits.slice(9)}; one ulp is ${ulp.toPrecision(3)}.` : `Added ${order} the sum is ${shown}; without rounding it is ${exact}.`;
  return { picture: drawing.svg, said };
}
