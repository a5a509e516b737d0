// A report of `verify --json` or `check --json`, for the map. It may be made by hand: nothing in it is believed, and all of
// it becomes text.

import { Problem } from "./client.js";

const LARGEST = 60e6; // bytes
const MOST = 20_000; // checkpoints
const NO_REPORT = "This is no report: `llm-rebuild verify --json FILE` and `check --json FILE` write one.";

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
// Half of a pair, which is no character, has no address in the page.
const words = (value, most = 400) => (typeof value === "string" ? value.slice(0, most).replace(/\p{Surrogate}/gu, "\ufffd") : "");

/** -> {kind: "report", title, names, verdicts: {name: {kind, words, …}}, first, said: [sentences]}. */
export async function readReport(file) {
  if (file.size > LARGEST) throw new Problem(`This file has ${Math.round(file.size / 1e6)} MB; a report has less than ${LARGEST / 1e6}.`);
  let report;
  try {
    report = JSON.parse(await file.text());
  } catch {
    throw new Problem("This file is not JSON. " + NO_REPORT);
  }
  if (Array.isArray(report?.steps) && !Array.isArray(report.checkpoints)) report = report.steps.find((step) => step?.first_divergence) ?? report.steps[0];
  if (!isObject(report) || !Array.isArray(report.checkpoints)) throw new Problem(NO_REPORT);
  const named = report.checkpoints.slice(0, MOST).filter((one) => isObject(one) && words(one.name) && words(one.verdict)).map((one) => [words(one.name), one]);
  const listed = [...new Map(named)].map(([name, one]) => ({ ...one, name })); // of twins the last
  if (!listed.length) throw new Problem("This report has no checkpoint with a name and a verdict.");
  const sizes = (shape) => (Array.isArray(shape) ? shape.filter(Number.isFinite) : []);
  const { first_divergence: first, diagnosis } = report;
  const model = isObject(report.model) ? words(report.model.name, 80) : "";
  const said = [`${model || "A model"}: ${listed.length} checkpoints, ${listed.filter((one) => one.verdict === "bit-identical").length} bit-identical.`];
  if (isObject(first)) said.push(`They part at ${words(first.name)}${words(first.words) ? `, ${words(first.words)}` : ""}.`);
  const [cause] = Array.isArray(diagnosis) ? diagnosis.filter(isObject) : [];
  if (cause) said.push([words(cause.explanation, 600), words(cause.degree) && `(${words(cause.degree)})`].filter(Boolean).join(" "));
  return {
    kind: "report",
    title: file.name,
    names: listed.map((one) => [one.name, sizes(one.shape)]),
    verdicts: Object.fromEntries(listed.map((one) => [one.name, { kind: kindOf(one.verdict), words: words(one.verdict, 80), off: one.max_abs_diff, ulp: one.max_ulp, coupled: one.coupled === true }])),
    first: isObject(first) ? words(first.name) : "",
    said,
  };
}

/** What passes is near: five decimals or more, a few units in the last place, or what was shown to be rounding. */
function kindOf(verdict) {
  if (verdict === "bit-identical") return "identical";
  if (verdict === "missing") return "missing";
  const [, decimals] = verdict.match(/^(\d+) decimals?$/) ?? [];
  return verdict === "rounding" || /^[\d,]+ ulp$/.test(verdict) || Number(decimals) >= 5 ? "near" : "wrong";
}
