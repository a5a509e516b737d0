// The rebuild's modules, as they are, or with some of their lines changed.
//
// A changed module becomes a blob, and so does every module that imports it; all others stay what they are, so that a
// class such as InputError is the same everywhere.

const BASE = new URL("../rebuild/", import.meta.url);
const NAMES = ["models.js", "tokenizers.js", "weights.js", "cache.js"];
const WRITING = ["generate.js", "decoding.js"];
const IMPORT = /((?:from\s+|import\()")(\.[^"]+)(")/g;

const sources = new Map(); // address -> source

async function source(url) {
  if (!sources.has(url)) sources.set(url, await (await fetch(url)).text());
  return sources.get(url);
}

/**
 * The modules by name: `(await modules()).models.open`.
 *
 * edits   {"gpt2.js": [[before, after], …]}: pieces of source, each of which must be there exactly once.
 * writes  Whether those that write texts are wanted, too.
 */
export async function modules(edits = {}, writes = true) {
  const changed = new Map(); // address -> the address to import instead
  const addressOf = async (url) => {
    if (!changed.has(url)) {
      let text = await source(url), own = false;
      for (const [before, after] of edits[url.slice(BASE.href.length)] ?? []) {
        if (text.split(before).length !== 2) throw new Error(`${url} has not exactly one "${before}"`);
        text = text.replace(before, () => after);
        own = true;
      }
      for (const [, , path] of text.matchAll(IMPORT)) {
        const other = new URL(path, url).href, address = await addressOf(other);
        own ||= address !== other;
      }
      const absolute = text.replace(IMPORT, (_, from, path, end) => from + changed.get(new URL(path, url).href) + end);
      changed.set(url, own ? URL.createObjectURL(new Blob([absolute], { type: "text/javascript" })) : url);
    }
    return changed.get(url);
  };
  const any = Object.values(edits).some((list) => list.length);
  const loaded = await Promise.all(
    [...NAMES, ...(writes ? WRITING : [])].map(async (name) => {
      const url = new URL(name, BASE).href;
      return [name.slice(0, -3), await import(any ? await addressOf(url) : url)];
    }),
  );
  return Object.fromEntries(loaded);
}
