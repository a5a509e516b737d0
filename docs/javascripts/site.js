// What the theme leaves to us, done again after every (instant) page change: names for screen readers,
// the keyboard, what has been read. Everything is served from this site; nothing is fetched from elsewhere.

const ROOT = new URL("..", document.currentScript.src);

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

// A fence gets its button from the theme when it is first seen. One button is no place to go to, and a page has as many as
// it has fences.
const buttons = document.getElementsByClassName("md-code__nav");
new MutationObserver(() => {
  for (const frame of buttons) frame.role = "none";
}).observe(document.documentElement, { childList: true, subtree: true });

// What scrolls sideways must be reachable with the keyboard.
function reachWhatScrolls() {
  const mayScroll =
    ".md-typeset__scrollwrap, .md-typeset pre > code, div.arithmatex, .figure-scroll";
  // All are measured before one is changed: a change would have the page laid out anew for the next measure.
  const measured = [...document.querySelectorAll(mayScroll)].map((one) => [one, one.scrollWidth > one.clientWidth]);
  for (const [element, scrolls] of measured) {
    if (scrolls) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}

// A figure that is wider than the page shows at which edge it goes on.
function showWhereFiguresGoOn() {
  const frames = [...document.querySelectorAll(".figure-scroll")];
  const measure = (frame) => [frame.scrollLeft, frame.scrollWidth - frame.clientWidth - frame.scrollLeft];
  const mark = (frame, [left, right]) => {
    frame.toggleAttribute("data-more-left", left > 4); // for a class all within is styled anew
    frame.toggleAttribute("data-more-right", right > 4);
  };
  const measured = frames.map(measure); // all of them first, as above
  frames.forEach((frame, number) => {
    frame.onscroll = () => mark(frame, measure(frame));
    mark(frame, measured[number]);
  });
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

// What has been read is kept in this browser and goes nowhere. A chapter is read when its end is seen.
let endSeen;

function pagesRead() {
  try {
    const kept = __md_get("read", localStorage, ROOT);
    return new Set(Array.isArray(kept) ? kept : []);
  } catch {
    return new Set(); // what is kept is not ours
  }
}

function rememberWhatIsRead() {
  const read = pagesRead();
  const nameOf = (address) => new URL(address, location).pathname.slice(ROOT.pathname.length);
  const page = nameOf(location.pathname);
  const show = () => {
    for (const link of document.querySelectorAll(".md-nav--primary a.md-nav__link")) {
      link.classList.toggle("read", link.hash === "" && read.has(nameOf(link.href)));
    }
  };
  const keep = (isRead) => {
    if (isRead) read.add(page);
    else read.delete(page);
    __md_set("read", [...read], localStorage, ROOT);
    show();
  };
  endSeen?.disconnect();
  show();
  const article = document.querySelector("article:has(.where)");
  if (!article) return;
  let arrived = false; // the first report is of where the page was opened: at its end nothing has been read
  const button = document.createElement("button");
  button.className = "md-button read-mark";
  const say = () => {
    const isRead = read.has(page);
    button.textContent = isRead ? "Read. Take it back" : "Mark as read";
  };
  button.addEventListener("click", () => {
    endSeen.disconnect();
    arrived = false; // a report that is on its way counts no more
    keep(!read.has(page));
    say();
  });
  article.append(button);
  say();
  endSeen = new IntersectionObserver(([end]) => {
    const left = nameOf(location.pathname) !== page; // going back scrolls before it shows the other page
    if (arrived && end.isIntersecting && !left) {
      endSeen.disconnect();
      keep(true);
      say();
    }
    arrived = true;
  });
  endSeen.observe(button);
}

// The parts of a page that compute or remember, where there are any. The modules are loaded by the page that has them.
const ALIVE = { "[data-live]": "live/live.js", "[data-widget]": "widgets/widgets.js", "[data-progress]": "progress.js" };

function comeToLife() {
  const load = async (boxes, module) => (await import(new URL(`javascripts/${module}`, ROOT))).start(boxes);
  return Promise.all(Object.entries(ALIVE).map(([selector, module]) => {
    const boxes = document.querySelectorAll(selector);
    return boxes.length ? load(boxes, module).catch(reportError) : null;
  }));
}

document$.subscribe(async () => {
  const page = location.pathname;
  const alive = comeToLife();
  breakLongNames();
  nameForScreenReaders();
  // The theme attaches annotations, copy buttons and tables just after this moment, and takes the place to which
  // a reader scrolls within a quarter of a second for the one where the page opened.
  await new Promise((done) => window.setTimeout(done, 300));
  nameForScreenReaders();
  reachWhatScrolls();
  showWhereFiguresGoOn();
  rememberWhatIsRead(); // now that an instant navigation has gone to the top of the page
  await alive;
  document.body.dataset.rebuildReady = page;
});

window.addEventListener("resize", () => {
  reachWhatScrolls();
  showWhereFiguresGoOn();
});
