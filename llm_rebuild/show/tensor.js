// An element made of text and nothing else, and the pictures of one tensor: how its numbers are spread, heat maps, every head, and the numbers themselves.
//
// What is drawn comes as data: {histogram, heat}, bytes of 254 shades (base64, or an array of them), see charts.py
// beside this file. Colours are the page's own variables, so pictures follow light and dark.

const DRAWN = new Set(["svg", "path", "line", "text", "circle", "g", "rect"]);

/** An element with attributes and children. A child that is a string becomes text: nothing is ever read as markup. */
export function make(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name === "style") element.style.cssText = value; // the one way that a strict content security policy allows
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const MASKED = 0, NOT_A_NUMBER = 1, FIRST = 2, LAST = 255;
const MOST_COLUMNS = 24; // of a table of numbers, on one of its pages

export const short = (x) => (x === 0 ? "0" : Number(x.toPrecision(4)).toString());
const decoded = (cells) => (typeof cells === "string" ? Uint8Array.from(atob(cells), (c) => c.charCodeAt(0)) : cells);

/** Everything there is to see of a checkpoint. said: {chart, labels, numbers}; see `Explorer.fill`. */
export function pictures(said, panel, open = false) {
  const box = make("div", { class: "charts" });
  const { chart, labels } = said;
  const draw = () => {
    const heat = chart?.heat;
    const head = Math.min(Number(panel.dataset.head ?? 0), (heat?.heads ?? 1) - 1);
    box.replaceChildren();
    if (chart?.histogram) box.append(histogram(chart.histogram));
    if (!heat) return;
    const readout = make("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
    const title = `${heat.axes[0]} down, ${heat.axes[1]} across${heat.at ? `; ${heat.at}` : ""}`;
    const row = make("div", { class: "heads" }, make("span", {}, heat.heads > 1 ? `${title}; every head:` : title));
    for (let number = 0; heat.heads > 1 && number < heat.heads; number++) {
      const button = make("button", { type: "button", "aria-pressed": String(number === head), "aria-label": `head ${number}` });
      button.append(small(heat, heat.maps[0], number, panel), String(number));
      button.addEventListener("click", () => {
        panel.dataset.head = number;
        draw();
        box.querySelectorAll(".heads button")[number].focus();
      });
      row.append(button);
    }
    const shown = { heat, labels, head, panel, readout };
    box.append(row, ...heat.maps.map((map) => heatMap(map, shown)), readout, table(shown, said.numbers, open));
  };
  draw();
  panel.redraw = draw;
  return box;
}

// ------------------------------------------------------------------------------------------ histogram

const SIDES = { official: "official", rebuilt: "rebuilt", pinned: "pinned", here: "computed here", wrong: "with the mistake" };

function histogram(chart) {
  const width = 320, height = 96, foot = 16;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height + foot}`, width, height: height + foot, role: "img" });
  const sides = Object.keys(SIDES).filter((side) => side in chart);
  for (const side of sides) {
    const bars = decoded(chart[side]), step = width / bars.length;
    let path = `M0 ${height}`;
    bars.forEach((bar, i) => {
      const y = height - (bar / 255) * (height - 4);
      path += `L${i * step} ${y}L${(i + 1) * step} ${y}`;
    });
    svg.append(make("path", { d: `${path}L${width} ${height}`, class: `bars-${side}` }));
  }
  svg.append(make("line", { x1: 0, x2: width, y1: height, y2: height, class: "base" }));
  svg.append(make("text", { x: 0, y: height + 12, class: "axis" }, short(chart.low)));
  svg.append(make("text", { x: width, y: height + 12, class: "axis", "text-anchor": "end" }, short(chart.high)));
  const words = sides.map((side) => SIDES[side]);
  svg.setAttribute("aria-label", `Histogram, ${words.join(" and ")}, from ${short(chart.low)} to ${short(chart.high)}`);
  const keys = sides.flatMap((side, i) => [i ? " and " : "", make("span", { class: `key-${side}` }, SIDES[side])]);
  return make("figure", {}, make("figcaption", {}, "how the numbers are spread: ", ...keys), svg);
}

// ------------------------------------------------------------------------------------------ heat maps

/** One of the page's colours as [red, green, blue]. */
function colour(panel, name) {
  const hex = getComputedStyle(panel).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
const between = (a, b, share) => a.map((x, i) => Math.round(x + (b[i] - x) * share));

function shades(map, panel) {
  const paper = colour(panel, "--paper"), odd = colour(panel, "--near");
  const up = colour(panel, map.name === "difference" ? "--bad" : "--accent"), down = colour(panel, "--warm");
  const both = map.low < 0 && map.high > 0 && map.name !== "difference";
  const most = Math.max(Math.abs(map.low), Math.abs(map.high)) || 1;
  return (value) => {
    if (value === MASKED) return null;
    if (value === NOT_A_NUMBER) return odd;
    const number = numberOf(map, value);
    if (both) return between(paper, number < 0 ? down : up, Math.abs(number) / most);
    const share = (number - map.low) / (map.high - map.low || 1);
    if (map.name === "difference") return between(paper, up, Math.sqrt(share));
    return between(paper, map.high <= 0 ? down : up, map.high <= 0 ? 1 - share : share);
  };
}

const numberOf = (map, byte) => map.low + ((byte - FIRST) / (LAST - FIRST)) * (map.high - map.low);

/** What a cell of a picture stands for, in words. */
function valueOf(map, at) {
  const byte = decoded(map.cells)[at];
  return byte === MASKED ? "masked" : byte === NOT_A_NUMBER ? "not a number" : `≈ ${short(numberOf(map, byte))}`;
}

/** Where a cell stands along an axis: `key 3 "rock"`, or `number 4 to 7` where several share one. */
function placeOf({ heat, labels }, axis, bin, bins) {
  const size = heat.size[axis], at = Math.floor((bin * size) / bins), end = Math.floor(((bin + 1) * size) / bins) - 1;
  const label = labels[heat.labels[axis]]?.[at];
  return `${heat.axes[axis]} ${end > at ? `${at} to ${end}` : at}${label && end <= at ? ` ${label}` : ""}`;
}

function heatMap(map, shown) {
  const { heat, labels, head, panel, readout } = shown;
  const { rows, columns } = heat, cells = decoded(map.cells), offset = head * rows * columns;
  const binned = rows < heat.size[0] || columns < heat.size[1];
  const rowLabels = !binned || rows === heat.size[0] ? (rows <= 32 ? (labels[heat.labels[0]] ?? []) : []) : [];
  const columnLabels = !binned && columns <= 32 ? (labels[heat.labels[1]] ?? []) : [];
  const side = Math.max(4, Math.min(18, Math.floor((columnLabels.length ? 240 : 400) / columns)));
  const tall = rowLabels.length ? Math.max(side, 12) : Math.max(4, Math.min(18, Math.floor(300 / rows)));
  const cut = (words) => (words.length > 12 ? `${words.slice(0, 11)}…` : words).replace(/^"|"$/g, "");
  const longest = Math.max(0, ...columnLabels.map((words) => cut(words).length));
  const left = rowLabels.length ? 76 : 14, top = columnLabels.length ? 12 + Math.min(56, longest * 6) : 14;
  const width = left + columns * side + (columnLabels.length ? 26 : 2), height = top + rows * tall + 2;
  const canvas = make("canvas", { role: "img" }), ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  const context = canvas.getContext("2d"), shade = shades(map, panel), style = getComputedStyle(panel);
  const css = (name) => style.getPropertyValue(name).trim();
  context.scale(ratio, ratio);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const rgb = shade(cells[offset + row * columns + column]);
      context.fillStyle = rgb ? `rgb(${rgb})` : css("--line");
      context.fillRect(left + column * side, top + row * tall, side - (side > 6 ? 1 : 0), tall - (tall > 6 ? 1 : 0));
    }
  context.strokeStyle = css("--line");
  context.strokeRect(left - 0.5, top - 0.5, columns * side + 1, rows * tall + 1);
  if (heat.worst && map.name !== "official") {
    context.strokeStyle = css("--ink");
    context.lineWidth = 2;
    context.strokeRect(left + heat.worst[1] * side - 1, top + heat.worst[0] * tall - 1, side + 1, tall + 1);
  }
  context.fillStyle = css("--muted");
  context.font = `11px ${css("--text")}`;
  context.textBaseline = "middle";
  context.textAlign = "right";
  rowLabels.forEach((words, row) => context.fillText(cut(words), left - 5, top + (row + 0.5) * tall));
  context.textAlign = "left";
  columnLabels.forEach((words, column) => {
    context.save();
    context.translate(left + (column + 0.5) * side, top - 6);
    context.rotate(-Math.PI / 3.2);
    context.fillText(cut(words), 0, 0);
    context.restore();
  });
  if (!columnLabels.length) context.fillText(`${heat.axes[1]} →`, left, 6);
  if (!rowLabels.length) {
    context.save();
    context.translate(6, top);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText(`← ${heat.axes[0]}`, 0, 0);
    context.restore();
  }
  const where = heat.heads > 1 ? `, head ${head}` : "";
  canvas.setAttribute("aria-label", `Heat map, ${map.name}${where}: ${heat.axes[0]} down, ${heat.axes[1]} across, from ${short(map.low)} to ${short(map.high)}; the numbers are in the table below`);
  canvas.addEventListener("pointermove", (event) => {
    const scale = width / canvas.clientWidth;
    const column = Math.floor((event.offsetX * scale - left) / side), row = Math.floor((event.offsetY * scale - top) / tall);
    if (column < 0 || row < 0 || column >= columns || row >= rows) return;
    const values = heat.maps.map((one) => `${one.name} ${valueOf(one, offset + row * columns + column)}`).join(", ");
    readout.textContent = `${placeOf(shown, 0, row, rows)}, ${placeOf(shown, 1, column, columns)}: ${values}`;
  });
  const gradient = make("canvas", { width: 96, height: 1, "aria-hidden": "true" }), stripe = gradient.getContext("2d");
  for (let x = 0; x < 96; x++) {
    stripe.fillStyle = `rgb(${shade(FIRST + Math.round((x / 95) * (LAST - FIRST)))})`;
    stripe.fillRect(x, 0, 1, 1);
  }
  const scale = make("div", { class: "scale" }, short(map.low), gradient, short(map.high));
  return make("figure", {}, make("figcaption", {}, map.name), canvas, scale);
}

/** A head as a picture of the size of a stamp. */
function small(heat, map, head, panel) {
  const { rows, columns } = heat, cells = decoded(map.cells), shade = shades(map, panel);
  const side = Math.max(1, Math.round(56 / Math.max(rows, columns))), none = colour(panel, "--line");
  const canvas = make("canvas", { width: columns * side, height: rows * side, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let at = 0; at < rows * columns; at++) {
    context.fillStyle = `rgb(${shade(cells[head * rows * columns + at]) || none})`;
    context.fillRect((at % columns) * side, Math.floor(at / columns) * side, side, side);
  }
  return canvas;
}

// ----------------------------------------------------------------------------------------- the numbers

/**
 * The picture as a table. `numbers(head)` gives the slice itself, {shape: [rows, columns], data}, or a promise of it;
 * where there is none, the cells of the pictures are read back.
 */
function table(shown, numbers, open) {
  const { heat, head } = shown;
  const box = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of the numbers" });
  const details = make("details", { class: "numbers", open }, make("summary", {}, numbers ? "The numbers" : "The numbers of the pictures"), box);
  const cellOf = (map) => (row, column) => valueOf(map, (head * heat.rows + row) * heat.columns + column);
  const fill = async () => {
    const slice = await numbers?.(head);
    const tables = slice
      ? [["", slice.shape, (row, column) => numberWords(slice.data[row * slice.shape[1] + column])]]
      : heat.maps.map((map) => [map.name, [heat.rows, heat.columns], cellOf(map)]);
    box.replaceChildren(...tables.map(([words, size, value]) => paged(words, size, value, shown)));
  };
  details.addEventListener("toggle", () => details.open && fill());
  return details;
}

const numberWords = (x) => (Number.isNaN(x) ? "NaN" : Math.abs(x) > 1e30 ? (x < 0 ? "masked" : "∞") : Number(x.toPrecision(7)).toString());

function paged(words, [rows, columns], value, shown) {
  const box = make("div", {});
  const draw = (from) => {
    const to = Math.min(columns, from + MOST_COLUMNS);
    const numbers = Array.from({ length: to - from }, (_, i) => from + i);
    const head = make("tr", {}, make("td", {}), ...numbers.map((column) => make("th", { scope: "col" }, placeOf(shown, 1, column, columns).replace(/^number /, ""))));
    const lines = Array.from({ length: rows }, (_, row) =>
      make("tr", {}, make("th", { scope: "row" }, placeOf(shown, 0, row, rows)), ...numbers.map((column) => make("td", {}, value(row, column)))));
    const turn = (to, words) => {
      const button = make("button", { type: "button" }, words);
      button.addEventListener("click", () => draw(to));
      return button;
    };
    box.replaceChildren(make("table", {}, words ? make("caption", {}, words) : "", make("thead", {}, head), make("tbody", {}, ...lines)));
    if (from > 0) box.append(turn(Math.max(0, from - MOST_COLUMNS), "‹ those before"));
    if (to < columns) box.append(turn(to, `${columns - to} more ›`));
  };
  draw(0);
  return box;
}
