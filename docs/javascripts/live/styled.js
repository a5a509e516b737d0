import { make } from "./tensor.js";

/** A stylesheet that only some pages need, once; the path is relative to this folder. -> a promise of it. */
export function styled(path) {
  const href = new URL(path, import.meta.url).href;
  const present = [...document.querySelectorAll("link[rel=stylesheet]")].find((link) => link.href === href);
  if (present) return present.loaded;
  const link = make("link", { rel: "stylesheet", href });
  link.loaded = new Promise((resolve) => ["load", "error"].forEach((kind) => link.addEventListener(kind, resolve, { once: true })));
  document.head.append(link);
  return link.loaded;
}
