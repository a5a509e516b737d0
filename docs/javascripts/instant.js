// Instant navigation, wherever the site happens to be served from.
//
// The theme learns from sitemap.xml which links it may follow without loading a whole page. A sitemap needs
// full addresses, and a site that anybody may serve from their own machine has none. So where the site was
// built without an address (no canonical link), the theme is handed a sitemap made from the navigation
// of this very page. It must run before the theme's own script does.

// And where a browser forbids storage, the theme would stop at the first thing it wants to remember. It gets a
// memory that keeps nothing.

try {
  localStorage.length;
} catch {
  const nothing = { getItem: () => null, setItem: () => {}, removeItem: () => {} };
  for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { value: nothing });
}

if (!document.querySelector("link[rel=canonical]")) {
  const open = XMLHttpRequest.prototype.open;

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

  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const own = String(url).endsWith("/sitemap.xml") ? sitemapOfThisPlace() : url;
    return open.call(this, method, own, ...rest);
  };
}
