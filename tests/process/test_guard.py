"""Every way to official results or to another's solution that was tried once, and those that stay open."""

from __future__ import annotations

import py_compile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import llm_rebuild
from llm_rebuild.process.run import Process
from tests.process.tasks import guarded

PACKAGE = Path(llm_rebuild.__file__).parent
MODEL, SOLUTION = PACKAGE / "models" / "gpt2.py", PACKAGE / "workbench" / "skeletons" / "gpt2.py"

RESULTS = {
    "open": "open(CAPTURE, 'rb')",
    "os.open": "os.open(CAPTURE, 0)",
    "FileIO": "__import__('_io').FileIO(CAPTURE)",
    "open_code": "__import__('_io').open_code(CAPTURE)",
    "mmap": "__import__('mmap').mmap(os.open(CAPTURE, 0), 0)",
    "fromfile": "__import__('numpy').fromfile(CAPTURE)",
    "memmap": "__import__('numpy').memmap(CAPTURE)",
    "safe_open": "__import__('safetensors').safe_open(CAPTURE, 'pt')",
    "safe_open of the Rust module": "import safetensors; "
    "safetensors._safetensors_rust.safe_open(CAPTURE, 'pt')",
    "load_file": "__import__('safetensors.torch').torch.load_file(CAPTURE)",
    "load_file of numpy": "__import__('safetensors.numpy').numpy.load_file(CAPTURE)",
    "torch.load": "torch.load(CAPTURE)",
    "listdir": "os.listdir(FOLDER)",
    "scandir": "list(os.scandir(FOLDER))",
    "iterdir": "list(__import__('pathlib').Path(FOLDER).iterdir())",
    "an open folder": "os.open(FOLDER, 0)",
    "relative": "os.chdir(os.path.dirname(FOLDER)); "
    "open('./x/../' + os.path.basename(FOLDER) + '/capture.txt')",
    "a link to it": "open(LINK, 'rb')",
    "a second name for it": "open(HARD, 'rb')",
    "a link made now": "os.symlink(CAPTURE, CAPTURE + '.link')",
    "a second name made now": "os.link(CAPTURE, os.path.join(os.path.dirname(FOLDER), 'new'))",
    "moved away": "os.rename(CAPTURE, LINK)",
    "copied": "__import__('shutil').copyfile(CAPTURE, os.path.join(os.path.dirname(FOLDER), 'new'))",
    "written": "open(CAPTURE, 'wb')",
    "a new one": "open(os.path.join(FOLDER, 'poisoned.safetensors'), 'wb')",
    "moved in": "os.rename(LINK, os.path.join(FOLDER, 'poisoned.safetensors'))",
    "deleted": "os.remove(CAPTURE)",
    "another file of tensors": "open(OTHER, 'rb')",
    "another file's link": "os.symlink(OTHER, OTHER + '.npy'); open(OTHER + '.npy', 'rb')",
    "another process's memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
}
OTHERS = {
    "transformers": "import transformers",
    "from transformers": "from transformers import GPT2Model",
    "sentence_transformers": "import sentence_transformers",
    "import_module": "__import__('importlib').import_module('transformers')",
    "the course's rebuild": "import llm_rebuild.models.gpt2",
    "from the course": "from llm_rebuild.models import gpt2",
    "what is loaded already": "import llm_rebuild; llm_rebuild.process.guard",
    "the list of modules": "sys.modules['llm_rebuild.weights']; sys.modules['llm_rebuild.process.run']",
    "solution": "from llm_rebuild.workbench.skeletons import gpt2",
    "the writer of solutions": "from llm_rebuild.workbench.new import source",
    "resources": "__import__('importlib.resources').resources.files('llm_rebuild.workbench.skeletons')",
    "pkgutil": "__import__('pkgutil').get_data('llm_rebuild.models', 'gpt2.py')",
    "runpy": "__import__('runpy').run_path(SOLUTION)",
    "runpy of a module": "__import__('runpy').run_module('llm_rebuild.workbench.skeletons.gpt2')",
    "exec": "exec(open(MODEL).read())",
    "linecache": "assert __import__('linecache').getlines(MODEL)",
    "by its path": "import importlib.util as u; s = u.spec_from_file_location('a', MODEL); "
    "s.loader.exec_module(u.module_from_spec(s))",
    "compiled": "import glob; open(glob.glob(os.path.dirname(MODEL) + '/__pycache__/gpt2.*')[0], 'rb')",
    "a link to the source": "os.symlink(MODEL, OTHER + '.py'); open(OTHER + '.py')",
    "the Rust module anew": "del sys.modules['safetensors._safetensors_rust']; "
    "import safetensors._safetensors_rust",
    "subprocess": "__import__('subprocess').run(['cat', CAPTURE])",
    "fork_exec": "__import__('subprocess')._fork_exec()",
    "fork_exec of the C module": "__import__('_posixsubprocess').fork_exec()",
    "os.system": "os.system('cat ' + CAPTURE)",
    "os.popen": "os.popen('cat ' + CAPTURE)",
    "exec of a program": "os.execv('/bin/cat', ['cat', CAPTURE])",
    "posix_spawn": "os.posix_spawn('/bin/cat', ['cat', CAPTURE], {})",
    "a daemon": "os.fork() or os.setsid()",
    "multiprocessing": "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
    "multiprocessing, forked": "import multiprocessing as m; "
    "m.get_context('fork').Process(target=print).start()",
    "ctypes": "import ctypes; ctypes.CDLL(None).open(CAPTURE.encode(), 0)",
    "ctypes by pythonapi": "import ctypes; ctypes.pythonapi.fopen",
    "from_file": "torch.from_file(CAPTURE, size=3)",
    "from_file of a storage": "torch.UntypedStorage.from_file(CAPTURE, False, 12)",
    "the reader of archives": "torch._C.PyTorchFileReader(CAPTURE)",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "the weights written": "open(WEIGHTS, 'ab')",
    "the weights deleted": "os.remove(WEIGHTS)",
    "a new file outside": "open(OUTSIDE + '/new.txt', 'w')",
}
OPEN = {
    "the weight file": "__import__('safetensors.torch').torch.load_file(WEIGHTS)['w'] is weights['w']",
    "the weight file, opened": "import safetensors as s\nwith s.safe_open(WEIGHTS, 'pt') as f:\n f.keys()",
    "the weight file for numpy": "__import__('safetensors.numpy').numpy.load_file(WEIGHTS)['w'].mean()",
    "the weight file's bytes": "assert open(WEIGHTS, 'rb').read()",
    "what a learner needs": "from llm_rebuild import InputError; from llm_rebuild.workbench import step; "
    "from llm_rebuild.weights import Weights; from llm_rebuild.checkpoints import Tap",
    "a file of notes": "open(os.path.join(os.path.dirname(FOLDER), 'notes.txt'), 'w').write('a')",
    "a temporary file": "__import__('tempfile').TemporaryFile().write(b'a')",
    "a folder of its own, and away with it": "d = os.path.dirname(FOLDER) + '/y/z'; os.makedirs(d); "
    "open(d + '/a', 'w').close(); __import__('shutil').rmtree(d)",
    "a folder outside that is there": "os.makedirs(OUTSIDE, exist_ok=True)",
    "the device that keeps nothing": "open(os.devnull, 'w').write('a')",
    "a lazy import": "import torch.fx.experimental, colorsys, wave; torch.nn.functional.gelu(torch.ones(3))",
    "traceback": "import traceback\ntry: weights['none']\nexcept KeyError: traceback.format_exc()",
}
# Files that are somebody else's, in a folder OUTSIDE with a thesis.txt in it, and ways to lose them.
OUTSIDE = {
    "removed": "os.remove(OUTSIDE + '/thesis.txt')",
    "unlinked by a path": "__import__('pathlib').Path(OUTSIDE, 'thesis.txt').unlink()",
    "its whole folder removed": "__import__('shutil').rmtree(OUTSIDE)",
    "removed from an open folder": "os.remove('thesis.txt', dir_fd=os.open(OUTSIDE, 0))",
    "overwritten": "open(OUTSIDE + '/thesis.txt', 'w')",
    "appended to": "open(OUTSIDE + '/thesis.txt', 'a')",
    "overwritten from within": "open(os.path.relpath(OUTSIDE) + '/./thesis.txt', 'w')",
    "overwritten by a link": "os.symlink(OUTSIDE + '/thesis.txt', OTHER + '.out'); open(OTHER + '.out', 'w')",
    "by a second name": "os.link(OUTSIDE + '/thesis.txt', OTHER + '.second')",
    "truncated": "os.truncate(OUTSIDE + '/thesis.txt', 0)",
    "moved here": "os.rename(OUTSIDE + '/thesis.txt', OTHER + '.moved')",
    "moved from an open folder": "os.rename('thesis.txt', OTHER + '.moved', src_dir_fd=os.open(OUTSIDE, 0))",
    "locked away": "os.chmod(OUTSIDE + '/thesis.txt', 0)",
}
SEALED = {
    "a new file": "open('/tmp/x-llm-rebuild', 'w')",
    "a new file of the system": "import os; os.open('/tmp/x-llm-rebuild', os.O_CREAT | os.O_WRONLY)",
    "a new link": "import os; os.symlink('/tmp/a', '/tmp/x-llm-rebuild')",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    folder = tmp_path_factory.mktemp("guard")
    hidden, outside = folder / "captures", tmp_path_factory.mktemp("outside")
    hidden.mkdir()
    (outside / "thesis.txt").write_text("years of work", encoding="utf-8")
    (folder / "x").mkdir()
    save_file({"w": torch.arange(12.0)}, folder / "model.safetensors")
    save_file({"x": torch.arange(12.0)}, hidden / "capture.txt")
    save_file({"x": torch.arange(12.0)}, folder / "other.safetensors")
    (folder / "link").symlink_to(hidden / "capture.txt")
    (folder / "hard").hardlink_to(hidden / "capture.txt")
    py_compile.compile(str(MODEL))
    names = {
        "CAPTURE": hidden / "capture.txt",
        "FOLDER": hidden,
        "LINK": folder / "link",
        "HARD": folder / "hard",
        "OUTSIDE": outside,
        "OTHER": folder / "other.safetensors",
        "WEIGHTS": folder / "model.safetensors",
        "MODEL": MODEL,
        "SOLUTION": SOLUTION,
    }
    ways = {}
    for name, way in (RESULTS | OTHERS | OPEN | OUTSIDE).items():
        for word, path in names.items():
            way = way.replace(word, repr(str(path)))
        ways[name] = way
    job = {"weights": str(names["WEIGHTS"]), "hidden": str(hidden), "ways": ways, "sealed": SEALED}
    with Process(guarded) as process:
        found = {message.about.get("way"): message.about for message in process.ask(job)}
    assert process.ended is not None
    assert process.ended.how == "", process.ended
    assert sorted(path.name for path in hidden.iterdir()) == ["capture.txt"]
    assert [path.read_text(encoding="utf-8") for path in outside.iterdir()] == ["years of work"]
    return found


@pytest.mark.parametrize("way", RESULTS)
def test_official_results_are_out_of_reach_and_whoever_reaches_for_them_is_remembered(answers, way: str):
    assert answers[way]["error"].startswith("PermissionError: it "), answers[way]
    assert answers[way]["refused"]


@pytest.mark.parametrize("way", OUTSIDE)
def test_what_lies_outside_of_its_folder_stays_as_it_is(answers, way: str):
    assert answers[way]["error"].startswith("PermissionError: it changes "), answers[way]
    assert answers[way]["refused"]


def test_nothing_new_is_put_outside_of_its_folder(answers):
    assert answers["a new file outside"]["error"].startswith("PermissionError: it changes new.txt")


@pytest.mark.parametrize("way", OTHERS)
def test_the_work_of_others_is_out_of_reach(answers, way: str):
    assert answers[way]["error"], way
    kinds = (
        "PermissionError",
        "ImportError",
        "ModuleNotFoundError",
        "AttributeError",
        "KeyError",
        "AssertionError",
    )
    assert answers[way]["error"].startswith(kinds), answers[way]


@pytest.mark.parametrize("way", OPEN)
def test_what_a_rebuild_needs_is_open(answers, way: str):
    assert (answers[way]["error"], answers[way]["refused"]) == ("", None)


@pytest.mark.parametrize("way", SEALED)
def test_nothing_is_written_while_official_tensors_are_in_the_process(answers, way: str):
    assert answers[way]["error"] == "refused"
