// What can be wrong with the words of a picture: some lie partly outside, some on others (slanted ones may pass each other), some
// have too little contrast to what is painted below their middle.
() => {
  const channels = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const below = (svg, word, middle, paper) => {
    let colour = paper;
    for (const shape of svg.querySelectorAll("rect, circle, path")) {
      const { fill, fillOpacity } = getComputedStyle(shape);
      const later = word.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_FOLLOWING;
      if (later || fill === "none" || shape.closest("defs") || !shape.isPointInFill(middle)) continue;
      colour = channels(fill).map((ink, i) => ink * fillOpacity + colour[i] * (1 - fillOpacity));
    }
    return colour;
  };
  const paper = channels(getComputedStyle(document.body).backgroundColor), wrong = [];
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.firstElementChild, whole = svg.getBoundingClientRect();
    const words = [...svg.querySelectorAll("text")].map((word) => {
      const box = word.getBBox(), within = word.getBoundingClientRect();
      const middle = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
      return { word, within, middle, slanted: word.hasAttribute("transform"), box, said: word.textContent };
    });
    const say = (problem, ...said) => wrong.push(`${figure.id}: ${problem}: ${said.join(" | ")}`);
    for (const [i, { word, within, middle, slanted, box, said }] of words.entries()) {
      const out = within.left < whole.left - 1 || within.right > whole.right + 1
        || within.top < whole.top - 1 || within.bottom > whole.bottom + 1;
      if (out) say("cut off", said);
      if (slanted) continue;
      const [one, other] = [light(channels(getComputedStyle(word).fill)), light(below(svg, word, middle, paper))];
      if ((Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5) say("pale", said);
      for (const next of words.slice(i + 1)) {
        const across = Math.min(box.x + box.width, next.box.x + next.box.width) - Math.max(box.x, next.box.x);
        const down = Math.abs(box.y + box.height / 2 - next.middle.y);
        if (!next.slanted && across > 1 && down < 0.3 * (box.height + next.box.height)) say("overlap", said, next.said);
      }
    }
  }
  return wrong;
}
