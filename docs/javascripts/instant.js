// What must be there before the theme's own script runs: instant navigation wherever the site happens to be served from,
// and a search that waits until it is wanted.
//
// The theme learns from sitemap.xml which links it may follow without loading a whole page. A sitemap needs
// full addresses, and a site that anybody may serve from their own machine has none. So where the site was
// built without an address (no canonical link), the theme is handed a sitemap made from the navigation
// of this very page.

// And where a browser forbids storage, the theme would stop at the first thing it wants to remember. It gets a
// memory that keeps nothing.

try {
  localStorage.length;
} catch {
  const nothing = { getItem: () => null, setItem: () => {}, removeItem: () => {} };
  for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { value: nothing });
}

// Whatever follows restyles the whole page, thousands of elements, while it opens. So it is not done, or done before there is
// anything to style.

{
  document.documentElement.className = "js js-focus-visible"; // the theme sets both, one by one, behind the page

  // The theme tells the browser light from dark in an element of the head; extra.css does it. And what the next page names, to be
  // fetched at once, is here or will be asked for.
  const append = (element) => Node.prototype.appendChild.call(document.head, element);
  const names = (element) => /preload$/.test(element.rel);
  document.head.appendChild = (element) => (element.name === "color-scheme" || names(element) ? element : append(element));

  // It writes full addresses into the head, to tell its elements from those of the next page, and a sheet with another address is
  // read anew. A sheet that stands there, or what is named, is told by its full address without that.
  const { get, set } = Object.getOwnPropertyDescriptor(HTMLLinkElement.prototype, "href");
  const { get: markup } = Object.getOwnPropertyDescriptor(Element.prototype, "outerHTML");
  const full = new WeakMap();

  Object.defineProperty(HTMLLinkElement.prototype, "href", {
    get,
    set(address) {
      if (this.ownerDocument === document && (names(this) || this.sheet?.href === address)) full.set(this, address);
      else set.call(this, address);
    },
  });

  Object.defineProperty(HTMLLinkElement.prototype, "outerHTML", {
    get() {
      const written = markup.call(this);
      return full.has(this) ? written.replace(this.getAttribute("href"), full.get(this)) : written;
    },
  });
}

{
  const open = XMLHttpRequest.prototype.open;
  const hasAddress = document.querySelector("link[rel=canonical]");

  const sitemapOfThisPlace = () => {
    const addresses = new Set();
    for (const link of document.querySelectorAll(".md-nav--primary a.md-nav__link[href], a.md-logo[href]")) {
      const address = new URL(link.href);
      address.hash = "";
      if (address.origin === location.origin) addresses.add(address.href);
    }
    const entries = [...addresses].map((address) => `<url><loc>${encodeURI(decodeURI(address))}</loc></url>`);
    return URL.createObjectURL(new Blob([`<urlset>${entries.join("")}</urlset>`], { type: "text/xml" }));
  };

  // The theme fetches the index of all pages, a quarter of a page's weight, and starts a worker for it, on every page. Both
  // wait here until somebody goes to the search field.
  const searched = new Promise((resolve) => {
    addEventListener("focusin", ({ target }) => target.matches?.(".md-search__input") && resolve());
  });

  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const own = !hasAddress && String(url).endsWith("/sitemap.xml") ? sitemapOfThisPlace() : url;
    if (String(url).endsWith("/search/search_index.json")) this.send = (body) => searched.then(() => XMLHttpRequest.prototype.send.call(this, body));
    return open.call(this, method, own, ...rest);
  };

  const Started = window.Worker;

  window.Worker = function (url, options) {
    if (!/\/workers\/search\.\w+\.min\.js$/.test(url)) return new Started(url, options);
    const address = new URL(url, location).href; // of the page that is shown now: by then it may be another
    const waiting = new EventTarget(); // what is said to it is said to the worker once there is one
    const worker = searched.then(() => {
      const started = new Started(address, options);
      started.addEventListener("message", ({ data }) => waiting.dispatchEvent(new MessageEvent("message", { data })));
      return started;
    });
    waiting.postMessage = (message) => worker.then((started) => started.postMessage(message));
    return waiting;
  };
}
