"""How long a visitor waits: the home page and a live page in Chromium, from an empty cache.

    python -m benchmarks.pages [--site site] [--rounds 3]

It prints the best and the worst of the seconds from the start of loading to the home page's first
answer, in a browser that is open already, and of those that each letter takes on a live page; with the
real MiniLM chosen from disk those to its first answer and to further sentences', and what the page's
processes then hold in memory beside the file.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from llm_rebuild.copies import local_copy
from tools.browser import executable

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ANSWERED = "([part, text]) => document.querySelector(`[data-part=${part}]`)?.dataset.answered === text"
START = 4  # seconds in which a browser is busy with itself after it has been started
SENTENCES = ["The cook had a good day.", "They do rock, do they not?", "A scale has four items."]


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def seconds_until_answered(page: Page, part: str, text: str) -> float:
    """Seconds from typing a text to its answer."""
    start = time.perf_counter()
    page.get_by_label("Your sentence").fill(text)
    page.wait_for_function(ANSWERED, arg=[part, text])
    return time.perf_counter() - start


def resident() -> int:
    """Bytes that the processes of pages hold (Linux; nothing else may have Chromium open)."""

    def held(process: Path) -> int:
        try:
            if b"--type=renderer" not in (process / "cmdline").read_bytes():
                return 0
            return int((process / "status").read_text().partition("VmRSS:")[2].split()[0]) * 1024
        except OSError:
            return 0  # it ended meanwhile

    return sum(held(process) for process in Path("/proc").iterdir() if process.name.isdigit())


def main() -> None:
    teaching = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=teaching)
    parser.add_argument("--site", type=Path, default=Path("site"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {}
    copy = local_copy.get("minilm")
    with (
        tempfile.TemporaryDirectory() as scratch,
        served(options.site) as address,
        sync_playwright() as playwright,
    ):
        folder = Path(scratch, "minilm")
        folder.mkdir()
        for file in copy.folder.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        for _ in range(options.rounds):
            browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            time.sleep(START)
            page.goto(address, wait_until="commit")
            page.wait_for_selector("[data-part=hero][data-answered]")
            measured.setdefault("home, first answer", []).append(page.evaluate("performance.now() / 1000"))

            page.goto(f"{address}live/minilm/")
            page.wait_for_selector("[data-part=map][data-answered]")
            text = "The cook"
            for letter in " gave":
                text += letter
                measured.setdefault("a letter more", []).append(seconds_until_answered(page, "map", text))
            without = resident()
            start = time.perf_counter()
            page.locator("input[webkitdirectory]").set_input_files(str(folder))
            page.get_by_text("Your copy").wait_for()
            measured.setdefault("real MiniLM, first answer", []).append(time.perf_counter() - start)
            for sentence in SENTENCES:
                further = seconds_until_answered(page, "map", sentence)
                measured.setdefault("real MiniLM, a sentence more", []).append(further)
            size = (folder / "model.safetensors").stat().st_size
            measured.setdefault("real MiniLM, memory ÷ file", []).append((resident() - without) / size)
            browser.close()
    for what, numbers in measured.items():
        print(f"{what:30} {min(numbers):6.2f} to {max(numbers):6.2f}")


if __name__ == "__main__":
    main()
