// What axe-core finds on a page, each with the beginning of its markup. `rules` are those to try, null for all; `colours` says
// whether the contrast of colours is looked at. That is slow, and a page has thousands of words. So it is looked
// at once for each way in which text looks: of two elements that are alike in kind, colour, size, weight, and in all
// that is painted below them, axe would say the same, on whichever page they stand. `seen` are the looks that passed before.
// `within` is a selector: of what is looked at, of all where it is null. Returns what was found, and the looks that were looked at.

async ([rules, colours, seen, within]) => {
  const CLEAR = "rgba(0, 0, 0, 0) none 1", below = new Map([[null, ""]]);
  const ground = (element) => {
    if (!below.has(element)) {
      const { backgroundColor: colour, backgroundImage: image, opacity } = getComputedStyle(element);
      const own = `${colour} ${image} ${opacity}`, ends = /^rgb\(.*\) none 1$/.test(own);
      const others = ends ? "" : ground(element.parentElement);
      below.set(element, own === CLEAR ? others : `${own} / ${others}`);
    }
    return below.get(element);
  };
  const kind = (element) => `${element.localName}.${element.getAttribute("class") ?? ""}`;
  const lookOf = (element) => {
    const { color, fill, fontSize, fontWeight } = getComputedStyle(element);
    return [kind(element), color, fill, fontSize, fontWeight, ground(element)].join();
  };
  const speaks = (element) => [...element.childNodes].some(({ nodeType, data }) => nodeType === 3 && data.trim());
  const looks = new Map();
  if (colours) {
    const words = [...(within ? document.querySelector(within) : document.body).querySelectorAll("*")].filter((one) => speaks(one) && one.checkVisibility());
    for (const element of words.reverse()) looks.set(lookOf(element), element);
    for (const look of seen) looks.delete(look);
  }
  if (rules && !rules.length && !looks.size) return [[], []];
  for (const element of looks.values()) element.dataset.look = "";
  axe.configure({ rules: [{ id: "color-contrast", selector: "[data-look]" }], noHtml: true });
  const { violations } = await axe.run(within ?? document, {
    ...(rules ? { runOnly: looks.size ? [...rules, "color-contrast"] : rules } : { rules: { "color-contrast": { enabled: looks.size > 0 } } }),
    checks: { "link-in-text-block": { enabled: false } }, // a link is to be told by more than its colour
    resultTypes: ["violations"], elementRef: true, iframes: false,
  });
  for (const element of looks.values()) delete element.dataset.look;
  const barriers = violations.flatMap(({ id, impact, nodes }) => nodes.map(({ element }) => `${id} (${impact}): ${element.outerHTML.slice(0, 200)}`));
  return [barriers, [...looks.keys()]];
}
