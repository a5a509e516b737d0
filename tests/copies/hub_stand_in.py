"""A hub on 127.0.0.1 that speaks enough of the Hugging Face hub's API for the real huggingface_hub client.

It serves files in memory under `/{repository}/resolve/{revision}/{file}` the way the hub does: small files
at once, large ones (weights) by a redirect to another host, with the commit, size and sha256 in the headers
of the redirect. It answers byte ranges, tells what a repository holds, records every request, and
misbehaves on demand: cuts a connection in the middle of a file, answers with an error, sends other bytes.

    with HubStandIn() as hub:
        hub.add("openai-community/gpt2", revision, {"config.json": b"{}", "model.safetensors": weights})
        hub.cuts["model.safetensors"] = [1000]       # the first answer ends after 1,000 bytes
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes from which a file is served as the hub serves weights: from elsewhere


class Request(NamedTuple):
    """One request as it came in. `file` is the file that is meant, also when it is asked for elsewhere."""

    method: str
    path: str
    file: str | None
    range: str | None
    headers: Mapping[str, str]


class HubStandIn:
    """The server, its files and its faults. Faults are lists used up from the front, one an answer."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}  # repository, revision, file
        self.requests: list[Request] = []
        self.cuts: dict[str, list[int]] = {}  # file: after how many bytes of the body the line goes dead
        self.statuses: dict[str, list[int]] = {}  # file: HTTP errors to answer a GET with
        self.ignores_ranges = False
        self.is_a_portal = False  # answers everything with a page, as a hotel's network does
        self.hold = threading.Event()  # clear it to hold bodies back after their first half
        self.hold.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def add(self, repository: str, revision: str, files: Mapping[str, bytes]) -> None:
        """Add one revision of a repository; the last one added is also `main`."""
        self.repositories.setdefault(repository, {})[revision] = dict(files)
        self.repositories[repository]["main"] = self.repositories[repository][revision]

    def asked(self, method: str = "GET", file: str | None = None) -> list[Request]:
        """The requests for bytes so far, redirects followed: one for each time that a body was sent."""
        return [
            request
            for request in self.requests
            if request.method == method
            and request.file is not None
            and file in (None, request.file)
            and (method == "HEAD" or not self.is_elsewhere(request))
        ]

    def is_elsewhere(self, request: Request) -> bool:
        """Whether the answer was the redirect of a large file."""
        return "/resolve/" in request.path and len(self.content(request.file or "")) >= LARGE

    def content(self, file: str) -> bytes:
        """A file's bytes, in whichever repository it is."""
        for revisions in self.repositories.values():
            for files in revisions.values():
                if file in files:
                    return files[file]
        return b""

    def __enter__(self) -> HubStandIn:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hub-stand-in"

    @property
    def hub(self) -> HubStandIn:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: Any) -> None:
        """Say nothing: the tests look at `requests`."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        resolve = re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path)
        elsewhere = re.fullmatch(r"/elsewhere/[0-9a-f]{64}/(?P<file>.+)", path)
        about = re.fullmatch(
            r"/api/models/(?P<repository>[^/]+/[^/]+)(?:/(?P<kind>revision|tree)/(?P<revision>[^/]+))?", path
        )
        match = resolve or elsewhere
        file = match["file"] if match else None
        self.hub.requests.append(
            Request(self.command, path, file, self.headers.get("Range"), dict(self.headers))
        )
        if self.hub.is_a_portal:
            self.send(200, b"<html>Accept our terms to use this network.</html>")
        elif resolve:
            self.resolve(resolve["repository"], resolve["revision"], resolve["file"])
        elif elsewhere:
            self.send_file(elsewhere["file"], self.hub.content(elsewhere["file"]), {})
        elif about:
            self.about(about["repository"], about["kind"], about["revision"] or "main")
        else:
            self.send(404, b"", {"X-Error-Message": "Not found"})

    def resolve(self, repository: str, revision: str, file: str) -> None:
        files = self.files(repository, revision)
        if files is None:
            return
        commit = self.commit(repository, revision)
        if file not in files:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[file]
        if len(content) < LARGE:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as git names it
            self.send_file(file, content, {"ETag": f'"{blob}"', "X-Repo-Commit": commit})
            return
        sha256 = hashlib.sha256(content).hexdigest()
        self.send(
            302,
            b"",
            {
                "Location": f"http://localhost:{self.hub.port}/elsewhere/{sha256}/{file}",
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{sha256}"',
            },
        )

    def about(self, repository: str, kind: str | None, revision: str) -> None:
        files = self.files(repository, revision)
        if files is None:
            return
        if kind == "tree":
            listing: Any = [self.entry(file, content) for file, content in sorted(files.items())]
        else:
            siblings = [{"rfilename": file} for file in sorted(files)]
            commit = self.commit(repository, revision)
            listing = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}
            listing |= {"private": False, "tags": [], "downloads": 0, "likes": 0}
        self.send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def entry(file: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content)}
        entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if len(content) >= LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return entry

    def files(self, repository: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision, or None after the hub's own kind of 404."""
        revisions = self.hub.repositories.get(repository)
        if revisions is None:
            self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in revisions:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return revisions[revision]
        return None

    def commit(self, repository: str, revision: str) -> str:
        revisions = self.hub.repositories[repository]
        return next(name for name, files in revisions.items() if files is revisions[revision])

    def send_file(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        if self.command == "GET" and self.hub.statuses.get(file):
            self.send(self.hub.statuses[file].pop(0), b"")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or self.hub.ignores_ranges:
            self.send(200, content, {**headers, "Accept-Ranges": "bytes"}, file)
        elif int(asked[1]) >= len(content):
            self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            start = int(asked[1])
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(206, content[start:], {**headers, "Content-Range": span}, file)

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, file: str = ""
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cuts.get(file):
            self.wfile.write(body[: self.hub.cuts[file].pop(0)])
            self.close_connection = True
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.hub.hold.wait(30)
        self.wfile.write(body[half:])
