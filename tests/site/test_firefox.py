"""The pages that compute, in a second engine: Firefox, driven by its own protocol, with no driver between."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Site
from .test_live import CELLS, PAGES

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
SETTINGS = {
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}
ERRORS = """return Services.console.getMessageArray().filter((message) => message instanceof Ci.nsIScriptError
  && !(message.flags & Ci.nsIScriptError.warningFlag) && message.sourceName.startsWith(arguments[0]))
  .map((message) => message.message)"""


class Firefox:
    """A Firefox without a window. Marionette's messages are `length:JSON`."""

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in {**SETTINGS, "marionette.port": port}.items()
        ]
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [str(FIREFOX), "--headless", "--marionette", "--remote-allow-system-access", "--no-remote"]
        self.process = subprocess.Popen(
            [*command, "--profile", str(profile)],
            env={**os.environ, "HOME": str(profile)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.socket = self._connected(port)
        self.count = 0
        self._read()
        self.ask("WebDriver:NewSession")
        self.ask("WebDriver:SetTimeouts", pageLoad=300_000, script=300_000)

    def _connected(self, port: int) -> socket.socket:
        for _ in range(3000):
            knock = socket.socket()
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return knock
            knock.close()
            assert self.process.poll() is None, "Firefox has ended"
            time.sleep(0.1)
        raise AssertionError("Firefox does not answer")

    def _read(self) -> Any:
        with self.socket.makefile("rb", buffering=0) as stream:
            head = b""
            while not head.endswith(b":"):
                head += stream.read(1) or b""
            size, body = int(head[:-1]), b""
            while len(body) < size:
                body += stream.read(size - len(body)) or b""
        return json.loads(body)

    def ask(self, command: str, **values: Any) -> Any:
        self.count += 1
        message = json.dumps([0, self.count, command, values]).encode()
        self.socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, answer = self._read()
        assert error is None, error
        return answer

    def run(self, script: str, *values: Any) -> Any:
        return self.ask("WebDriver:ExecuteScript", script=script, args=list(values))["value"]

    def wait(self, condition: str) -> None:
        for _ in range(3000):
            if self.run(f"return Boolean({condition})"):
                return
            time.sleep(0.1)
        raise AssertionError(f"waited in vain for: {condition}")

    def open(self, url: str) -> None:
        self.ask("WebDriver:Navigate", url=url)

    def errors(self, url: str) -> list[str]:
        """What went wrong in scripts of this site."""
        self.ask("Marionette:SetContext", value="chrome")
        found = self.run(ERRORS, url)
        self.ask("Marionette:SetContext", value="content")
        return list(found)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    if FIREFOX is None:
        pytest.skip("no Firefox on this machine (apt install firefox-esr): no second engine was tried")
    opened = Firefox(tmp_path_factory.mktemp("firefox"))
    yield opened
    opened.process.terminate()
    opened.process.wait()


@pytest.mark.parametrize("name", PAGES)
def test_a_live_page_computes_the_same_in_firefox(live: Site, firefox: Firefox, name: str) -> None:
    firefox.open(f"{live.url}live/{PAGES[name]}/")
    firefox.wait("document.querySelector('[data-part=map]')")
    firefox.run("document.querySelector('[data-part=map]').scrollIntoView()")
    firefox.wait("document.querySelector('[value=verdicts]:not(:disabled)')")
    firefox.run("document.querySelector('[value=verdicts]').click()")
    cells = firefox.run("return [...document.querySelectorAll('a.cell')].map((cell) => cell.classList[1])")
    assert len(cells) == CELLS[name]
    assert set(cells) == {"identical", "near"}
    assert firefox.errors(live.url) == []


def test_the_home_page_answers_in_firefox(live: Site, firefox: Firefox, reader: Any) -> None:
    said = "document.querySelector('.says')?.textContent"
    firefox.open(live.url)
    firefox.wait(f"{said} && document.querySelector('.hero-map .identical')")
    visitor = reader()
    visitor.open(live.url)
    visitor.page.locator(".hero-map .identical").first.wait_for()
    visitor.wait(f"Boolean({said})")
    assert firefox.run(f"return {said}") == visitor.page.evaluate(said)
    assert firefox.errors(live.url) == []
