"""The one writer of files and the one reader: whole or not at all, and no waiting for what never comes."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from llm_rebuild import files
from llm_rebuild.errors import InputError, escaped, one_line

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o640)
    files.write(file, "new ä")
    assert file.read_text(encoding="utf-8") == "new ä"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_fails_on_the_way_leaves_the_file_as_it_was(tmp_path: Path):
    file = tmp_path / "a.json"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError), files.replacing(file) as part:
        part.write_text("half\ud800", encoding="utf-8")
    assert file.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "a.json")
    for content in ("new", "newer"):
        files.write(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "a.json").read_text(encoding="utf-8") == content


def test_a_name_of_the_greatest_length(tmp_path: Path):
    files.write(tmp_path / ("a" * 255), "content")
    assert (tmp_path / ("a" * 255)).read_text(encoding="utf-8") == "content"


@pipes
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        kind = stat.S_IFMT(place.stat().st_mode)
        with pytest.raises(OSError, match="no regular file"), files.replacing(place):
            pass
        assert stat.S_IFMT(place.stat().st_mode) == kind
    files.write(Path(os.devnull), "goes where it goes")
    assert not Path(os.devnull).is_file()


@pipes
def test_text_goes_into_a_pipe_that_somebody_reads(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):  # nobody reads: an error and no waiting
        files.write(pipe, "lost")
    content = b"x" * 200_000  # more than a pipe holds
    with os.fdopen(os.open(pipe, os.O_RDWR), "rb") as opened:
        writer = threading.Thread(target=files.write, args=(pipe, content))
        writer.start()
        assert opened.read(len(content)) == content
        writer.join()


@pipes
def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for read in (files.read, files.read_text, files.read_json, files.check_regular):
        with pytest.raises(InputError, match="is a pipe or a device, and should be a file; do this"):
            read(tmp_path / "pipe", "do this")
    assert files.read(tmp_path / "pipe", pipes=True) == b""


def test_a_terabyte_of_zeros_is_not_read(tmp_path: Path):
    with (tmp_path / "large").open("wb") as file:
        try:
            file.truncate(10**12)
        except OSError:
            pytest.skip("this file system has no room for holes")
    with pytest.raises(InputError, match="has more than 200,000,000 bytes"):
        files.read(tmp_path / "large")
    with pytest.raises(InputError, match="has more than 10 bytes"):
        files.read(Path("/dev/zero"), largest=10, pipes=True)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("absent", "is missing"),
        ("", "is a folder"),
        ("a" * 300, "file name too long"),
        ("file/inside", "not a directory"),
        ("nul\0", "null byte"),
    ],
)
def test_places_where_no_file_is(tmp_path: Path, place: str, said: str):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        files.read(tmp_path / place)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'\xef\xbb\xbf{"a": 1}', "begins with a byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, "nested more than 100 levels deep"),
        (b"[" * 100_000, "nested too deeply|is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b'{"a": 1', "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b'{"a": [{"b": 1, "c": 0, "b": 1}]}', "has 'b' twice; leave it there once"),
    ],
    ids=["byte order mark", "UTF-16", "900 levels", "unclosed", "list", "cut short", "digits", "twins"],
)
def test_json_that_cannot_be_used(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        files.read_json(tmp_path / "config.json", "take another")
    assert str(error.value).startswith(f"{tmp_path / 'config.json'} ")
    assert str(error.value).endswith("; take another")


def test_json_that_can_be_used(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"a": [{"ä": [[]]}]}', encoding="utf-8")
    assert files.read_json(tmp_path / "config.json") == {"a": [{"ä": [[]]}]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\tb\nc", "a\tb\nc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("日本 \u3000 é 👩\u200d🔬", "日本 \u3000 é 👩\u200d🔬"),
    ],
)
def test_what_is_not_printable_is_shown_and_not_obeyed(text: str, shown: str):
    assert escaped(text) == shown


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (" a \n  b\r\nc ", "a b c"),
        ("two  spaces", "two  spaces"),
        (KeyError(), "KeyError"),
        ("\x00\x1b", "\\x00\\x1b"),
    ],
)
def test_a_message_is_one_line(message: object, line: str):
    assert one_line(message) == line


def test_long_names_are_shortened():
    line = one_line(f"no model {'a' * 5000}b; it has {'c ' * 500}", 500)
    assert line.startswith("no model aaa")
    assert "ab; it has c c" in line
    assert len(line) == 500
