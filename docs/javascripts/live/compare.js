// How near two tensors are. The bars are those of llm_rebuild/verify/equality.py.

const FIVE_DECIMALS = 5e-6;
const FEW_ULP = 16;
const NEVER = 1e30; // beyond it is only what a mask put there
const ROUNDING = 1e-5; // of the largest number: JavaScript adds in another order

/** -> {kind, words, worst}: kind identical, near, wrong or missing; worst as a share of the largest number. */
export function compare(tensor, official) {
  if (!tensor) return { kind: "missing", words: "missing" };
  if (tensor.shape.join() !== official.shape.join())
    return { kind: "wrong", words: `wrong shape: ${tensor.shape.join(" × ")}, official ${official.shape.join(" × ")}` };
  const [a, b] = [tensor.data, official.data];
  const [bitsA, bitsB] = [bitsOf(a), bitsOf(b)];
  let identical = true, largest = 0, difference = 0, ulps = 0;
  for (let i = 0; i < a.length; i++) {
    if (bitsA[i] === bitsB[i] || (Number.isNaN(a[i]) && Number.isNaN(b[i]))) {
      if (Math.abs(b[i]) < NEVER) largest = Math.max(largest, Math.abs(b[i]));
      continue;
    }
    identical = false;
    if (!(Math.abs(a[i]) < NEVER && Math.abs(b[i]) < NEVER)) {
      difference = Infinity; // masked on one side only, or no number
      continue;
    }
    largest = Math.max(largest, Math.abs(b[i]));
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
    ulps = Math.max(ulps, Math.abs(order(bitsA[i]) - order(bitsB[i])));
  }
  if (identical) return { kind: "identical", words: "bit-identical", worst: 0 };
  const worst = largest ? difference / largest : difference;
  if (ulps <= FEW_ULP && difference < Infinity) return { kind: "near", words: `${ulps} ulp`, worst };
  if (difference < FIVE_DECIMALS) return { kind: "near", words: `${Math.floor(-Math.log10(2 * difference))} decimals`, worst };
  if (worst <= ROUNDING) return { kind: "near", words: `rounding: off by ${worst.toExponential(0)} of its largest number`, worst };
  return { kind: "wrong", words: `off by ${difference === Infinity ? "what is no number" : difference.toPrecision(2)}`, worst };
}

const bitsOf = (data) => new Int32Array(data.buffer, data.byteOffset, data.length);

/** Bits of a float32 as a whole number, so that neighbours differ by one. */
const order = (bits) => (bits < 0 ? -(bits & 0x7fffffff) : bits);
