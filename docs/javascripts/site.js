// What the theme leaves to us, done again after every (instant) page change: mathematics and names
// for screen readers. Everything is served from this site; nothing is fetched from elsewhere.

function renderMathematics() {
  // Pages: arithmatex marks each formula. The notebook page: formulas stand between dollars.
  const own = [
    { left: "\\[", right: "\\]", display: true },
    { left: "\\(", right: "\\)", display: false },
  ];
  const notebook = [
    { left: "$$", right: "$$", display: true },
    { left: "$", right: "$", display: false },
    ...own,
  ];
  for (const element of document.querySelectorAll(".arithmatex")) {
    renderMathInElement(element, { delimiters: own, throwOnError: false });
  }
  for (const element of document.querySelectorAll(".jp-RenderedMarkdown")) {
    renderMathInElement(element, { delimiters: notebook, throwOnError: false });
  }
}

function nameForScreenReaders() {
  const name = (selector, label) => {
    for (const element of document.querySelectorAll(selector)) {
      if (!element.hasAttribute("aria-label")) element.setAttribute("aria-label", label);
    }
  };
  name(".md-search[role=dialog]", "Search");
  name(".md-progress", "Loading page");
  name(".md-annotation__index", "Note on this line");
  for (const box of document.querySelectorAll(".task-list-item input")) {
    box.setAttribute("aria-label", box.checked ? "done" : "to do");
  }
}

// What scrolls sideways must be reachable with the keyboard.
function reachWhatScrolls() {
  const mayScroll =
    ".md-typeset__scrollwrap, .md-typeset pre > code, .katex-display, .figure-scroll, " +
    ".jupyter-wrapper .highlight-ipynb, .jupyter-wrapper pre, .jp-OutputArea-output";
  for (const element of document.querySelectorAll(mayScroll)) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}

function breakLongNames() {
  for (const code of document.querySelectorAll(".md-typeset td code")) {
    if (code.childElementCount > 0) continue;
    const text = code.textContent;
    if (text.length <= 18) {
      code.classList.add("whole");
    } else if (text.includes(".")) {
      code.classList.add("dotted");
      code.replaceChildren(
        ...text.split(/(?<=\.)/).flatMap((word) => [word, document.createElement("wbr")]),
      );
    }
  }
}

// The parts of a page that compute, where there are any. The modules are loaded by the page that has them.
const LIVE = new URL("live/live.js", document.currentScript.src);

function comeToLife() {
  const boxes = document.querySelectorAll("[data-live]");
  if (boxes.length) import(LIVE).then(({ start }) => start(boxes));
}

document$.subscribe(() => {
  comeToLife();
  renderMathematics();
  breakLongNames();
  nameForScreenReaders();
  // The theme attaches annotations, copy buttons and tables just after this moment.
  window.setTimeout(() => {
    nameForScreenReaders();
    reachWhatScrolls();
    document.body.dataset.rebuildReady = location.pathname;
  }, 300);
});

window.addEventListener("resize", reachWhatScrolls);
