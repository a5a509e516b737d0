// The page of a report: the map and the chosen checkpoint, of the data that stand in the page.

import { Explorer } from "./map.js";

const { kinds, stacks, cells, entries, labels, first } = JSON.parse(document.getElementById("page-data").textContent);
const numberOfName = new Map(cells.map(({ name }, number) => [name, number]));
const explorer = new Explorer(document.getElementById("page-explorer"), {
  kinds,
  stacks,
  about: (name) => ({ ...entries[numberOfName.get(name)], labels }),
});
explorer.show(cells);
if (first !== null) explorer.choose(first);
explorer.arrive(true);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => explorer.panel.redraw?.());
