"use strict";
const { charts, labels } = JSON.parse(document.getElementById("page-data").textContent);
const entries = [...document.querySelectorAll("details[data-chart]")];
const MASKED = 0, NOT_A_NUMBER = 1, FIRST = 2, LAST = 255;
const short = (x) => (x === 0 ? "0" : Number(x.toPrecision(4)).toString());

function make(tag, attributes = {}, ...children) {
  const element = tag === "svg" || tag === "path" || tag === "line" || tag === "text"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children); // as text: nothing here is ever read as markup
  return element;
}
const decoded = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// ------------------------------------------------------------------------------ histogram

function histogram(chart) {
  const width = 320, height = 96, foot = 16;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height + foot}`, width, height: height + foot, role: "img" });
  const said = [];
  for (const side of ["official", "rebuilt"]) {
    if (!(side in chart)) continue;
    const bars = decoded(chart[side]), step = width / bars.length;
    let path = `M0 ${height}`;
    bars.forEach((bar, i) => {
      const y = height - (bar / 255) * (height - 4);
      path += `L${i * step} ${y}L${(i + 1) * step} ${y}`;
    });
    svg.append(make("path", { d: `${path}L${width} ${height}`, class: `bars-${side}` }));
    said.push(side);
  }
  svg.append(make("line", { x1: 0, x2: width, y1: height, y2: height, class: "base" }));
  svg.append(make("text", { x: 0, y: height + 12, class: "axis" }, short(chart.low)));
  svg.append(make("text", { x: width, y: height + 12, class: "axis", "text-anchor": "end" }, short(chart.high)));
  svg.setAttribute("aria-label", `Histogram, ${said.join(" and ")}, from ${short(chart.low)} to ${short(chart.high)}`);
  const caption = make("figcaption", {}, "how the numbers are spread: ", make("span", { class: "key-official" }, "official"));
  if ("rebuilt" in chart) caption.append(" and ", make("span", { class: "key-rebuilt" }, "rebuilt"));
  else if (chart.identical) caption.append(" and rebuilt alike");
  return make("figure", {}, caption, svg);
}

// ------------------------------------------------------------------------------ heat maps

function colour(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
const between = (a, b, share) => a.map((x, i) => Math.round(x + (b[i] - x) * share));

function shades(map) {
  const paper = colour("--paper"), odd = colour("--near");
  const up = colour(map.name === "difference" ? "--bad" : "--accent"), down = colour("--warm");
  const both = map.low < 0 && map.high > 0 && map.name !== "difference";
  const most = Math.max(Math.abs(map.low), Math.abs(map.high)) || 1;
  return (value) => {
    if (value === MASKED) return null;
    if (value === NOT_A_NUMBER) return odd;
    const number = map.low + ((value - FIRST) / (LAST - FIRST)) * (map.high - map.low);
    if (both) return between(paper, number < 0 ? down : up, Math.abs(number) / most);
    const span = map.high - map.low || 1;
    const share = map.name === "difference" ? Math.sqrt((number - map.low) / span) : (number - map.low) / span;
    return between(paper, map.high <= 0 ? down : up, map.high <= 0 ? 1 - share : share);
  };
}

function heatMap(heat, map, head, readout, siblings) {
  const { rows, columns } = heat, cells = decoded(map.cells), offset = head * rows * columns;
  const binned = rows < heat.size[0] || columns < heat.size[1];
  const rowLabels = !binned && rows <= 32 ? labels[heat.labels[0]] : [];
  const columnLabels = !binned && columns <= 32 ? labels[heat.labels[1]] : [];
  const side = Math.max(4, Math.min(18, Math.floor(240 / columns)));
  const tall = rowLabels.length ? Math.max(side, 12) : Math.max(4, Math.min(18, Math.floor(300 / rows)));
  const cut = (words) => (words.length > 12 ? words.slice(0, 11) + "…" : words).replace(/^"|"$/g, "");
  const longest = Math.max(0, ...columnLabels.map((words) => cut(words).length));
  const left = rowLabels.length ? 76 : 14, top = columnLabels.length ? 12 + Math.min(56, longest * 6) : 14;
  const width = left + columns * side + (columnLabels.length ? 26 : 2), height = top + rows * tall + 2;
  const canvas = make("canvas", { role: "img" }), ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  const context = canvas.getContext("2d"), shade = shades(map);
  context.scale(ratio, ratio);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const rgb = shade(cells[offset + row * columns + column]);
      const x = left + column * side, y = top + row * tall;
      context.fillStyle = rgb ? `rgb(${rgb})` : css("--line");
      context.fillRect(x, y, side - (side > 6 ? 1 : 0), tall - (tall > 6 ? 1 : 0));
    }
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
  const where = heat.at ? `, ${heat.at}` : "";
  canvas.setAttribute("aria-label", `Heat map, ${map.name}${where}: ${heat.axes[0]} down, ${heat.axes[1]} across, from ${short(map.low)} to ${short(map.high)}`);
  const place = (axis, bin, bins) => {
    const size = heat.size[axis], at = Math.floor((bin * size) / bins), end = Math.floor(((bin + 1) * size) / bins) - 1;
    const label = labels[heat.labels[axis]][at];
    return `${heat.axes[axis]} ${end > at ? `${at} to ${end}` : at}${label && end <= at ? ` ${label}` : ""}`;
  };
  const value = (one, at) => {
    const byte = decoded(one.cells)[offset + at];
    if (byte === MASKED) return "masked";
    if (byte === NOT_A_NUMBER) return "not a number";
    return "≈ " + short(one.low + ((byte - FIRST) / (LAST - FIRST)) * (one.high - one.low));
  };
  canvas.addEventListener("pointermove", (event) => {
    const scale = width / canvas.clientWidth;
    const column = Math.floor((event.offsetX * scale - left) / side), row = Math.floor((event.offsetY * scale - top) / tall);
    if (column < 0 || row < 0 || column >= columns || row >= rows) return;
    const said = siblings.map((one) => `${one.name} ${value(one, row * columns + column)}`).join(", ");
    readout.textContent = `${place(0, row, rows)}, ${place(1, column, columns)}: ${said}`;
  });
  const gradient = make("canvas", { width: 96, height: 1, "aria-hidden": "true" }), stripe = gradient.getContext("2d");
  for (let x = 0; x < 96; x++) {
    stripe.fillStyle = `rgb(${shade(FIRST + Math.round((x / 95) * (LAST - FIRST)))})`;
    stripe.fillRect(x, 0, 1, 1);
  }
  const scale = make("div", { class: "scale" }, short(map.low), gradient, short(map.high));
  return make("figure", {}, make("figcaption", {}, map.name), canvas, scale);
}

function small(heat, map, head) {
  const { rows, columns } = heat, cells = decoded(map.cells), shade = shades(map);
  const side = Math.max(1, Math.round(56 / Math.max(rows, columns))), none = colour("--line");
  const canvas = make("canvas", { width: columns * side, height: rows * side, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let at = 0; at < rows * columns; at++) {
    context.fillStyle = `rgb(${shade(cells[head * rows * columns + at]) || none})`;
    context.fillRect((at % columns) * side, Math.floor(at / columns) * side, side, side);
  }
  return canvas;
}

function draw(details) {
  const box = details.querySelector(".charts"), chart = charts[details.dataset.chart];
  const head = Number(box.dataset.head || 0);
  box.replaceChildren();
  if (chart.histogram) box.append(histogram({ ...chart.histogram, identical: details.dataset.kind === "identical" }));
  const heat = chart.heat;
  if (!heat) return;
  const readout = make("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
  const title = `${heat.axes[0]} down, ${heat.axes[1]} across${heat.at ? `; ${heat.at}` : ""}`;
  const row = make("div", { class: "heads" }, make("span", {}, heat.heads > 1 ? `${title}; every head:` : title));
  for (let number = 0; heat.heads > 1 && number < heat.heads; number++) {
    const pressed = String(number === head);
    const button = make("button", { type: "button", "aria-pressed": pressed, "aria-label": `head ${number}` });
    button.append(small(heat, heat.maps[0], number), String(number));
    button.addEventListener("click", () => {
      box.dataset.head = number;
      draw(details);
      box.querySelectorAll(".heads button")[number].focus();
    });
    row.append(button);
  }
  box.append(row, ...heat.maps.map((map) => heatMap(heat, map, head, readout, heat.maps)), readout);
}

const redraw = () => entries.filter((details) => details.open).forEach(draw);
for (const details of entries) details.addEventListener("toggle", () => details.open && draw(details));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// ------------------------------------------------------------------------------ finding, going there

const find = document.getElementById("page-find"), verdict = document.getElementById("page-verdict");
const found = document.getElementById("page-found"), buttons = [...document.querySelectorAll(".legend button")];

const parts = [...document.querySelectorAll(".part")];
for (const part of parts) part.dataset.open = part.open; // as it is without a filter

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const details of entries) {
    const fits = (!verdict.value || details.dataset.kind === verdict.value) &&
      words.every((word) => details.dataset.text.includes(word));
    details.hidden = !fits;
    count += fits;
  }
  for (const part of parts) {
    part.hidden = !part.querySelector(".entry:not([hidden])");
    part.open = words.length || verdict.value ? true : part.dataset.open === "true";
  }
  document.querySelector(".nothing").hidden = count > 0;
  found.textContent = count === 1 ? "1 checkpoint" : `${count} checkpoints`;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.kind === verdict.value));
}
find.addEventListener("input", filter);
verdict.addEventListener("change", filter);
document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
for (const button of buttons) {
  button.addEventListener("click", () => {
    verdict.value = verdict.value === button.dataset.kind ? "" : button.dataset.kind;
    filter();
  });
}

function arrive() {
  const details = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!details || !entries.includes(details)) return;
  if (details.hidden) {
    find.value = verdict.value = "";
    filter();
  }
  details.closest(".part").open = details.open = true;
  details.scrollIntoView();
  details.querySelector("summary").focus({ preventScroll: true });
}
addEventListener("hashchange", arrive);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.getAttribute("href") === location.hash) arrive(); // once more to the same place
});
arrive();

// ------------------------------------------------------------------------------ the map by keyboard

const map = document.querySelector(".map"), reading = document.getElementById("page-reading");
const cells = [...map.querySelectorAll("a.cell")];
const say = (cell) => (reading.textContent = cell ? cell.dataset.say : "\u00a0");
map.addEventListener("pointerover", (event) => say(event.target.closest("a.cell")));
map.addEventListener("focusin", (event) => say(event.target.closest("a.cell")));
const start = Math.max(0, cells.findIndex((cell) => cell.classList.contains("here")));
if (cells.length) cells[start].tabIndex = 0; // one stop for the tab key, arrows from there
map.addEventListener("keydown", (event) => {
  const at = cells.indexOf(document.activeElement);
  if (at < 0) return;
  const here = cells[at].getBoundingClientRect();
  const vertical = (down) => {
    const others = cells.filter((cell) => down ? cell.getBoundingClientRect().top > here.top + 4 : cell.getBoundingClientRect().top < here.top - 4);
    const line = down ? Math.min(...others.map((c) => c.getBoundingClientRect().top)) : Math.max(...others.map((c) => c.getBoundingClientRect().top));
    return others.filter((c) => Math.abs(c.getBoundingClientRect().top - line) < 4)
      .sort((a, b) => Math.abs(a.getBoundingClientRect().left - here.left) - Math.abs(b.getBoundingClientRect().left - here.left))[0];
  };
  const next = { ArrowRight: () => cells[at + 1], ArrowLeft: () => cells[at - 1], Home: () => cells[0],
    End: () => cells[cells.length - 1], ArrowDown: () => vertical(true), ArrowUp: () => vertical(false) }[event.key];
  const cell = next && next();
  if (!cell) return;
  event.preventDefault();
  cells[at].tabIndex = -1;
  cell.tabIndex = 0;
  cell.focus();
});
