// The pictures of a tensor as data: bytes of 254 shades. The twin of llm_rebuild/show/charts.py, for one text.

const BARS = 40;
const MOST = [48, 96]; // cells down and across
const MASKED = 0, NOT_A_NUMBER = 1, FIRST = 2, LAST = 255;
const NEVER = 1e30;

const usual = (x) => Number.isFinite(x) && Math.abs(x) < NEVER;

/** Which axis goes down and which across; null where there is nothing to lay out. */
export function sidesOf(axes) {
  if (axes.length < 2) return null;
  if (axes.includes("query") && axes.includes("key")) return [axes.indexOf("query"), axes.indexOf("key")];
  const down = ["token", "query", "key"].map((word) => axes.indexOf(word)).find((at) => at >= 0) ?? axes.length - 2;
  return down === axes.length - 1 ? null : [down, axes.length - 1];
}

/** One head of the tensor as rows and columns: {shape, data}. Axes that are neither are at their first place. */
export function sliceOf({ shape, data }, axes, head) {
  const [down, across] = sidesOf(axes) ?? [0, shape.length - 1];
  const steps = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  const headAxis = axes.indexOf("head");
  const from = headAxis >= 0 && headAxis !== down && headAxis !== across ? head * steps[headAxis] : 0;
  const [rows, columns] = [shape[down], shape[across]];
  const slice = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) slice[row * columns + column] = data[from + row * steps[down] + column * steps[across]];
  return { shape: [rows, columns], data: slice };
}

/**
 * {histogram, heat} of a tensor.
 *
 * sides   {here: tensor}, or two, such as {here, wrong}, of one shape, to see their difference.
 * labels  Two numbers: which lists of labels the rows and the columns have; null for none.
 */
export function chartsOf(sides, axes, labels) {
  const [first] = Object.values(sides);
  const chart = { histogram: histogramOf(sides) };
  const layout = sidesOf(axes);
  if (!layout || axes.length !== first.shape.length || !first.data.length) return chart;
  const headAxis = axes.indexOf("head");
  const heads = headAxis >= 0 && !layout.includes(headAxis) ? first.shape[headAxis] : 1;
  const size = layout.map((axis) => first.shape[axis]);
  const [rows, columns] = size.map((count, i) => Math.min(count, MOST[i]));
  const maps = Object.entries(sides).map(([name, tensor]) =>
    shades(NAMES[name], pooled(Array.from({ length: heads }, (_, head) => sliceOf(tensor, axes, head)), rows, columns)));
  const [, second] = Object.values(sides);
  if (second) {
    const away = first.data.map((x, i) => (usual(x) && usual(second.data[i]) ? Math.abs(x - second.data[i]) : Object.is(x, second.data[i]) ? 0 : NaN));
    maps.push(shades("difference", pooled(Array.from({ length: heads }, (_, head) => sliceOf({ shape: first.shape, data: away }, axes, head)), rows, columns)));
  }
  const word = (axis) => ({ batch: "text", 1: "number" })[axes[axis]] ?? axes[axis];
  chart.heat = { at: "", heads, axes: layout.map(word), size, labels, rows, columns, maps };
  return chart;
}

const NAMES = { pinned: "pinned", here: "computed here", official: "official", wrong: "with the mistake" };

/** Bars over one range. Heights are logarithms of counts: tails are what one looks for. */
function histogramOf(sides) {
  let low = Infinity, high = -Infinity;
  for (const { data } of Object.values(sides))
    for (const x of data)
      if (usual(x)) {
        low = Math.min(low, x);
        high = Math.max(high, x);
      }
  if (low > high) return null;
  if (low === high) {
    const around = 0.5 + Math.abs(low) / 2;
    [low, high] = [low - around, high + around];
  }
  const counts = Object.entries(sides).map(([name, { data }]) => {
    const bars = new Float64Array(BARS);
    for (const x of data) if (usual(x)) bars[Math.min(BARS - 1, Math.floor(((x - low) / (high - low)) * BARS))]++;
    return [name, bars];
  });
  const most = Math.max(...counts.flatMap(([, bars]) => [...bars]));
  const bytes = counts.map(([name, bars]) => [name, Uint8Array.from(bars, (count) => Math.round((255 * Math.log1p(count)) / Math.log1p(most)))]);
  return { low, high, ...Object.fromEntries(bytes) };
}

/** Slices made smaller: means of the numbers that are numbers. */
function pooled(slices, rows, columns) {
  const cells = new Float64Array(slices.length * rows * columns);
  slices.forEach(({ shape: [tall, wide], data }, head) => {
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        let sum = 0, count = 0, odd = -Infinity;
        for (let y = Math.floor((row * tall) / rows); y < Math.floor(((row + 1) * tall) / rows); y++)
          for (let x = Math.floor((column * wide) / columns); x < Math.floor(((column + 1) * wide) / columns); x++) {
            const value = data[y * wide + x];
            if (usual(value)) {
              sum += value;
              count++;
            } else odd = value;
          }
        cells[(head * rows + row) * columns + column] = count ? sum / count : odd;
      }
  });
  return cells;
}

/** Cells as shades from the smallest to the largest of them. */
function shades(name, cells) {
  let low = Infinity, high = -Infinity;
  for (const x of cells)
    if (usual(x)) {
      low = Math.min(low, x);
      high = Math.max(high, x);
    }
  if (low > high) [low, high] = [0, 0];
  const span = high - low || 1;
  const shade = (x) => (x < -NEVER ? MASKED : usual(x) ? FIRST + Math.round(((x - low) / span) * (LAST - FIRST)) : NOT_A_NUMBER);
  return { name, low, high, cells: Uint8Array.from(cells, shade) };
}
