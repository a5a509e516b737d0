"""The site as others serve it: through nginx with the configuration of hosting/, below a path, from a zip."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.site import pack

from .conftest import REPOSITORY, Site, missing, served

NGINX = shutil.which("nginx", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin")))
AROUND = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


@pytest.fixture(scope="module")
def nginx(built_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The built site, served by nginx as hosting/site.conf says, at /course/."""
    if NGINX is None:
        missing("no nginx on this machine (apt install nginx-light)")
    folder = tmp_path_factory.mktemp("nginx")
    shutil.copytree(built_site, folder / "root" / "course")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = (REPOSITORY / "hosting" / "site.conf").read_text(encoding="utf-8")
    for before, after in (
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("root /usr/share/nginx/html;", f"root {folder}/root;"),
        ("error_page 404 /404.html;", "error_page 404 /course/404.html;"),
    ):
        assert server.count(before) == 1
        server = server.replace(before, after)
    user = "user root;\n" if os.geteuid() == 0 else ""  # pytest's folders are for their owner alone
    configuration = folder / "nginx.conf"
    configuration.write_text(user + AROUND.format(folder=folder, server=server), encoding="utf-8")
    process = subprocess.Popen([str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(configuration)])
    try:
        for _ in range(600):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "nginx refuses the configuration"
            time.sleep(0.1)
        yield Site(folder / "root" / "course", f"http://127.0.0.1:{port}/course/")
    finally:
        process.terminate()
        process.wait()


def answer(url: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_pages_are_compressed_and_asked_for_again(nginx: Site) -> None:
    for name in ("", "search/search_index.json", "javascripts/site.js", "stylesheets/extra.css"):
        status, headers, body = answer(nginx.url + name)
        plain = nginx.root / (name or "index.html")
        assert (status, headers["Content-Encoding"]) == (200, "gzip"), name
        assert gzip.decompress(body) == plain.read_bytes()
        assert headers["Cache-Control"] == "no-cache"
        assert headers["ETag"] or headers["Last-Modified"]


def test_what_never_changes_is_kept(nginx: Site) -> None:
    hashed = next((nginx.root / "assets" / "javascripts").glob("bundle.*.min.js"))
    _, headers, _ = answer(nginx.url + hashed.relative_to(nginx.root).as_posix())
    assert "immutable" in headers["Cache-Control"]


def test_every_kind_of_file_says_what_it_is(nginx: Site) -> None:
    """With `nosniff` a browser runs no script that does not say that it is one."""
    kinds = {
        "index.html": "text/html", "javascripts/site.js": "text/javascript", "llms.txt": "text/plain",
        "javascripts/rebuild/gpt2.js": "text/javascript", "assets/mark.svg": "image/svg+xml",
        "assets/social.png": "image/png", "notebooks/part-3-gpt2.ipynb": "application/json",
        "live/models/gpt2/model.safetensors": "application/octet-stream",
    }  # fmt: skip
    for name, kind in kinds.items():
        status, headers, _ = answer(nginx.url + name)
        assert (status, headers.get_content_type()) == (200, kind), name
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]


def test_an_unknown_address_is_answered_with_the_page_for_it(nginx: Site) -> None:
    status, _, body = answer(nginx.url + "nowhere/")
    assert status == 404
    assert b"There is no such page" in gzip.decompress(body)


def test_no_page_is_kept_from_anything_by_its_policy(nginx: Site, reader: Any) -> None:
    """Formulas, search, a change of colours, instant navigation, a page that computes: below a path."""
    visitor = reader(color_scheme="light", bypass_csp=False)
    page = visitor.open(f"{nginx.url}start/")
    page.click("label.md-header__button[for^=__palette]:not([hidden])")
    visitor.follow('.md-nav--primary a[href$="part-3/minilm/"]')
    assert page.locator("math").count() > 0
    page.click(".md-search__input")
    page.keyboard.type("checkpoint")
    page.wait_for_selector(".md-search-result__item a")
    page.keyboard.press("Escape")
    visitor.follow('.md-nav--primary a[href$="live/gpt2/"]')
    page.wait_for_selector("[data-live] a.cell")
    assert visitor.errors == []
    assert visitor.outside == []


def test_a_script_that_nobody_put_there_is_not_run(nginx: Site, reader: Any) -> None:
    page = reader(bypass_csp=False).open(nginx.url)
    add = "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'}))"
    page.evaluate(add)
    assert page.evaluate("window.hit === undefined")


def test_the_site_works_from_a_zip(built_site: Path, tmp_path: Path, reader: Any) -> None:
    for name in ("one.zip", "two.zip"):
        pack(Path(built_site), tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        packed.extractall(tmp_path)
    for unpacked in served(tmp_path):
        visitor = reader(bypass_csp=False)
        page = visitor.open(f"{unpacked.url}llm-rebuild-site/part-3/gpt2/")
        visitor.follow("a.md-footer__link--next")
        assert page.locator("h1").count() == 1
        assert visitor.errors == []


def test_a_workflow_calls_only_what_there_is() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    seen = 0
    for workflow in sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")):
        text = workflow.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        assert content["permissions"] == {"contents": "read"}, (
            f"{workflow.name}: a job asks for what it needs"
        )
        called = {name for line in re.findall(r"\bmake ([a-z ]+)", text) for name in line.split()}
        assert called <= targets, workflow.name
        modules = re.findall(r"-m (tools\.[\w.]+)", text)
        places = [REPOSITORY / name.replace(".", "/") for name in modules]
        runs = [(place / "__main__.py").is_file() or place.with_suffix(".py").is_file() for place in places]
        assert all(runs), workflow.name
        tests = re.findall(r"\btests/[\w/.]+", text)
        assert all((REPOSITORY / name).exists() for name in tests), workflow.name
        seen += len(called) + len(modules) + len(tests)
    assert seen > 10
