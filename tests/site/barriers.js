// What axe-core finds on a page, each with the beginning of its markup. `rules` are axe's options, null for no rule;
// `colours` says whether the contrast of colours is looked at. That is slow, and a page has thousands of words. So it is looked
// at once for each way in which text looks: of two elements that are alike in kind, colour, size, weight, and in all
// that lies below them, axe would say the same, on whichever page they stand. `seen` are the looks that passed before.
// `within` is a selector: of what is looked at, of all where it is null. Returns what was found, and the looks that were looked at.

async ([rules, colours, seen, within]) => {
  const below = new Map([[null, ""]]);
  const ground = (element) => {
    if (!below.has(element)) {
      const { backgroundColor: colour, backgroundImage: image, opacity } = getComputedStyle(element);
      const own = `${colour} ${image} ${opacity}`, ends = /^rgb\(.*\) none 1$/.test(own);
      below.set(element, ends ? own : `${own} / ${ground(element.parentElement)}`);
    }
    return below.get(element);
  };
  const kind = (element) => `${element.localName}.${element.getAttribute("class") ?? ""}`;
  const lookOf = (element) => {
    const { color, fill, fontSize, fontWeight } = getComputedStyle(element);
    return [kind(element), kind(element.parentElement), color, fill, fontSize, fontWeight, ground(element)].join();
  };
  const speaks = (element) => [...element.childNodes].some(({ nodeType, data }) => nodeType === 3 && data.trim());
  const run = (context, options) => axe.run(context, { resultTypes: ["violations"], iframes: false, ...options });
  const found = [];
  if (rules) found.push(await run(within ?? document, rules));
  const looks = new Map();
  if (colours) {
    const words = [...(within ? document.querySelector(within) : document.body).querySelectorAll("*")].filter((one) => speaks(one) && one.checkVisibility());
    for (const element of words.reverse()) looks.set(lookOf(element), element);
    for (const look of seen) looks.delete(look);
    if (looks.size) found.push(await run({ include: [...looks.values()] }, { runOnly: ["color-contrast"] }));
  }
  const barriers = found.flatMap(({ violations }) => violations).flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${id} (${impact}): ${node.html.slice(0, 200)}`));
  return [barriers, [...looks.keys()]];
}
