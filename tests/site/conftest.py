"""A browser, and two sites to look at: the course as built, and one page that holds every kind of element.

The second exists because a chapter may stop using, say, a footnote; the look of footnotes must not go
untested then. It is built with the course's own mkdocs.yml, theme overrides, styles and scripts.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from tools.browser import executable
from tools.site import finish

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent

PATIENCE = 300_000  # ms: on a machine that does much else a page takes long, and is not broken for that

# Without these, Chromium itself calls home, and the test for outside requests would measure the browser.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def missing(what: str) -> None:
    """Skip, and say loudly why; on a CI machine, where everything should be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set: install it")
    pytest.skip(f"{what}: the built site was NOT looked at in a browser")


@dataclass(frozen=True)
class Site:
    """A built site and the address it is served at."""

    root: Path
    url: str

    def pages(self) -> list[str]:
        """The address of every page of the menu: not those of the source's files, and not the one for unknown
        addresses."""
        files = [
            file
            for file in sorted(self.root.rglob("index.html"))
            if "language-source" not in file.read_text("utf-8")
        ]
        relative = [file.relative_to(self.root).as_posix() for file in files]
        return [self.url + path.removesuffix("index.html") for path in relative]

    def few_pages(self) -> list[str]:
        """Of `pages`, so many that each kind of element which is on some page is on one of these."""
        kinds = {url: self._kinds(url) for url in self.pages()}
        few: list[str] = []
        while left := set().union(*kinds.values()).difference(*(kinds[url] for url in few)):
            few.append(max(kinds, key=lambda url: len(kinds[url] & left)))
        return few

    def _kinds(self, url: str) -> set[str]:
        """Of the elements in a page's article: names with classes, and what a script makes something of. The
        language of a fence is no kind, nor is an element that has no look of its own."""
        text = (self.root / url.removeprefix(self.url) / "index.html").read_text("utf-8")
        article = text[text.index("<article") : text.index("</article>")]
        named = re.sub(r"language-(?!console|python|sh|source|text)\w+", "language", article)
        kinds = re.findall(r"<\w+(?: class=(?:\"[^\"]*\"|[^\s>]*))?|data-widget|data-part=[^\s>]+", named)
        return {*kinds} - {"<br", "<desc", "<span"}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        """A visitor fetches each file once."""
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """The log of a hundred files served would hide what matters in the tests' output."""


def served(root: Path) -> Iterator[Site]:
    handler = functools.partial(QuietHandler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Site(root, f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def course(built_site: Path) -> Iterator[Site]:
    """The course's site, served on this machine."""
    yield from served(Path(built_site))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def sampler(once: Once) -> Iterator[Site]:
    """A site of two pages: `/` holds every kind of element, `/plain/` nothing but a link to it."""
    pages = {
        "index.md": (HERE / "every_element.txt").read_text(encoding="utf-8"),
        "plain.md": "# Plain\n\nA page [without formulas](index.md).\n",
    }
    folder = once("sampler", lambda folder: small_site(folder, pages, strict=True))
    yield from served(folder / "site")


@pytest.fixture(scope="session")
def live(once: Once) -> Iterator[Site]:
    """The live pages alone, with what they load; the home page's at `/`; one on which a part stands far
    below; one of all the widgets, as they stand in the chapters; and two with questions at their end."""
    pages = {
        file.relative_to(REPOSITORY / "docs").as_posix(): file.read_text(encoding="utf-8")
        for file in (REPOSITORY / "docs" / "live").glob("*.md")
    }
    pages["index.md"] = '# Home\n\n<div data-live="gpt2" data-part="hero">as a picture</div>\n'
    pages["below.md"] = (
        "# Far below\n\n"
        '<div style="height: 6000px"></div>\n\n<div data-live="gpt2" data-part="next">as a picture</div>\n'
    )
    chapters = "".join(page.read_text("utf-8") for page in sorted((REPOSITORY / "docs").glob("part-*/*.md")))
    widgets = re.findall(r"<figure data-widget=.*?</figure>\n", chapters, re.S)
    pages["widgets.md"] = "# Widgets\n\n" + "\n".join(widgets)
    pages |= {"start.md": "# Start\n", "part-4/close.md": "# Close\n\nHere.\n{ .where }\n"}
    folder = once("live", lambda folder: small_site(folder, pages, strict=False))
    yield from served(folder / "site")


def small_site(project: Path, pages: dict[str, str], *, strict: bool, **environment: str) -> Path:
    """A site of these pages, built with the course's configuration, looks and scripts. -> its folder."""
    shutil.copytree(REPOSITORY / "overrides", project / "overrides")
    shutil.copytree(REPOSITORY / "includes", project / "includes")
    (project / "tools").symlink_to(REPOSITORY / "tools")  # mkdocs.yml names a hook by its path
    for folder in ("assets", "stylesheets", "javascripts", "live", "figures"):
        ignore = shutil.ignore_patterns("*.md")
        shutil.copytree(REPOSITORY / "docs" / folder, project / "docs" / folder, ignore=ignore)
    for name, text in pages.items():
        (project / "docs" / name).parent.mkdir(exist_ok=True)
        (project / "docs" / name).write_text(text, encoding="utf-8")
    config, in_nav = [], False
    for line in (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").splitlines():
        if not line.startswith((" ", "#")) and line:
            in_nav = line.startswith("nav:")
        if not in_nav:
            config.append(line if strict else line.replace("strict: true", "strict: false"))
    (project / "mkdocs.yml").write_text("\n".join(config) + "\n", encoding="utf-8")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", "site"],
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    finish(project / "site")
    return project / "site"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = executable() or playwright.chromium.executable_path
        if not Path(path).exists():
            missing("no Chromium on this machine (apt install chromium, or: playwright install chromium)")
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


class Reader:
    """Somebody with a browser. What asks for anything outside 127.0.0.1 is written down, and finds nobody.

    The page's policy holds only where `bypass_csp=False` is asked for: it would stop Playwright's own
    `wait_for_function`.
    """

    def __init__(self, browser: Browser, **context: Any) -> None:
        self.outside: list[str] = []
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.bytes = 0
        self.context: BrowserContext = browser.new_context(**{"bypass_csp": True, **context})
        self.context.on("request", self._write_down)
        self.context.on("response", self._weigh)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)

    def _write_down(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(request.url)

    def _weigh(self, response: Any) -> None:
        """What the page is made of; the models that run in it come later, when they have time."""
        if "/live/" not in response.url.replace("/javascripts/live/", ""):
            self.bytes += int(response.headers.get("content-length", 0))

    def open(self, url: str) -> Page:
        self.page.goto(url, wait_until="load")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until site.js has done its work on the page that is shown."""
        self.wait("document.body.dataset.rebuildReady === location.pathname")

    def wait(self, condition: str) -> None:
        """Playwright's `wait_for_function` evaluates text in the page, which the page's policy forbids."""
        if not self.page.evaluate(f"() => new Promise({WAIT % condition})"):
            raise AssertionError(f"waited in vain at {self.page.url} for: {condition}")

    def on_a_phone(self) -> list[str]:
        """Make the window as small as a phone's. What the page ends with that is wider than that."""
        self.page.set_viewport_size(PHONE)
        self.wait(f"innerWidth === {PHONE['width']}")
        self.page.evaluate("() => new Promise(requestAnimationFrame)")  # what reacts to it has done so
        wider: list[str] = self.page.evaluate(WIDER)
        return wider

    def follow(self, selector: str) -> None:
        """Follow a link and wait for the instant navigation that it starts. By the keyboard: on a busy
        machine the page moves under a pointer between aim and click, and then nothing is hit."""
        before = self.page.evaluate("window.stillTheSameDocument = location.pathname")
        self.page.press(selector, "Enter")
        self.wait(f"location.pathname !== {json.dumps(before)}")
        self.settle()
        assert self.page.evaluate("'stillTheSameDocument' in window"), "this was no instant navigation"


WIDER = """() => {  // what a page ends with that is wider than its window
  const root = document.documentElement, end = (one) => Math.ceil(one.getBoundingClientRect().right);
  if (root.scrollWidth <= innerWidth) return [];
  const all = [...document.querySelectorAll("body *")];
  const last = all.filter((one) => Math.abs(end(one) - root.scrollWidth) < 2);
  return [`${root.scrollWidth} px`, ...last.map((one) => `${one.tagName} ${one.getAttribute("class")}`)];
}"""


WAIT = f"""(done) => {{
  const look = () => (%s) ? done(true) : setTimeout(look, 10);
  look();
  setTimeout(done, {PATIENCE});
}}"""

UNRENDERED = r"""() => {
  const left = [];
  const formulas = document.querySelectorAll(".arithmatex:not(:has(> math > *))");
  for (const element of formulas) left.push(element.textContent);
  const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.parentElement.closest("code, pre, script, style, annotation") &&
        /\\[(\[]|\$\$/.test(node.data)) left.push(node.data);
  }
  return left;
}"""

FONTS = """async () => {  // those that the page was drawn with
  await document.fonts.ready;
  return [...document.fonts].filter(({ status }) => status === "loaded").map(({ family }) => family);
}"""

BARRIERS = (HERE / "barriers.js").read_text(encoding="utf-8")
# What a narrow page may get wrong though the wide one has it right.
OF_A_PHONE = ["aria-hidden-focus", "region", "scrollable-region-focusable", "target-size"]
LEGIBLE: set[str] = set()  # how text looks that was seen on some page, and can be read


def barriers(
    page: Page,
    rules: list[str] | None = None,
    *,
    colours: bool = True,
    within: str | None = None,
) -> list[str]:
    """What stands in the way of readers with a screen reader, with a keyboard only, or with weak sight.

    `rules` are those to try beside the contrast of colours: where they are left out all but `target-size`,
    which is asked on the phone; [] is none. `within` is a selector of the part that is looked at.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found, looks = page.evaluate(BARRIERS, [rules, colours, sorted(LEGIBLE), within])
    if not found:
        LEGIBLE.update(looks)
    return list(found)


@dataclass
class Visit:
    """What was seen of one page, in one visit."""

    outside: list[str]
    errors: list[str]
    bytes: int
    unrendered: list[str]
    formulas: int = 0
    wider: list[str] = field(default_factory=list)
    barriers: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="session", params=["few", pytest.param("all", marks=pytest.mark.weekly)])
def visits(course: Site, sampler: Site, browser: Browser, request: Any) -> dict[str, Visit]:
    """Pages of both sites, one of each kind or all: opened once on a desk, in the light, in the dark, and as
    on a phone.

    axe-core looks at each: with all its rules in the light, at the colours once more in the dark, and on the
    phone at what depends on room.
    """
    seen = {}
    reader = Reader(browser, reduced_motion="reduce", bypass_csp=False)
    page = reader.page
    reader.context.add_init_script(AXE_SCRIPT)
    pages = course.pages() if request.param == "all" else course.few_pages()
    for url in [*sampler.pages(), *pages]:
        page.set_viewport_size(DESKTOP)
        page.emulate_media(color_scheme="light")
        reader.outside, reader.errors, reader.bytes = [], [], 0
        reader.open(url)
        visit = Visit(reader.outside, reader.errors, reader.bytes, page.evaluate(UNRENDERED))
        visit.formulas = page.locator(".arithmatex").count()
        page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        visit.barriers["light"] = barriers(page)
        page.emulate_media(color_scheme="dark")
        reader.wait("document.body.dataset.mdColorScheme === 'slate'")
        visit.barriers["dark"] = barriers(page, [])
        visit.wider = reader.on_a_phone()
        visit.barriers["phone"] = barriers(page, OF_A_PHONE, colours=False)
        page.evaluate("localStorage.clear()")  # what was read on it
        seen[url] = visit
    reader.context.close()
    return seen


@pytest.fixture
def reader(browser: Browser) -> Iterator[Any]:
    """Call it to get a reader: `reader(color_scheme="dark", viewport=PHONE)`."""
    readers: list[Reader] = []

    def open_browser(**context: Any) -> Reader:
        context.setdefault("viewport", DESKTOP)
        context.setdefault("reduced_motion", "reduce")
        readers.append(Reader(browser, **context))
        return readers[-1]

    yield open_browser
    for opened in readers:
        opened.context.close()
