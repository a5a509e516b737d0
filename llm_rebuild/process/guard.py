"""What a rebuild in a process of its own may not do: borrow what it should compute, or touch what is others'.

The guard sees what Python's audit hooks see: files that are opened, listed, moved, linked; programs that are
started; machine code that is loaded. Files are known by their inode, so that a link is no way round. What is
refused is refused there and then; of official results, and of what lies outside and was to be changed,
`refused` remembers it, whatever the rebuild does with the exception. It is against accidents and short cuts.
It is no jail: somebody who looks into the interpreter itself, or brings machine code along, gets past it
(what they bring back is then looked at by `Origins`).
"""

from __future__ import annotations

import ctypes  # noqa: F401 (before the guard stands: a library that does so later loads nothing by it)
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

RUST = importlib.import_module("safetensors._safetensors_rust")
PACKAGE = Path(__file__).resolve().parents[1]
OFFICIAL = ("transformers", "sentence_transformers")
# What a learner's file may have of this package, and what Python itself reads when it shows a traceback.
MAY_IMPORT = ("", "errors", "checkpoints", "weights", "workbench", "workbench.steps")
SHOWN = ("process", "workbench/child.py")
TENSORS = (".safetensors", ".pt", ".pth", ".bin", ".npy", ".npz", ".ckpt")  # how files of tensors end

LOOKING = ("open", "os.listdir", "os.scandir")
# What changes a path: where an event has the path, and the open folder that it is relative to.
CHANGING = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.chmod": ((0, 2),),
}
FOLLOWING = ("open", "os.truncate", "os.chmod")  # of a link, these change what it leads to
PROGRAMS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork",
    "os.forkpty", "pty.spawn", "socket.connect",
)  # fmt: skip
MACHINE_CODE = ("ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

RESULTS, COURSE = "official results", "the course's own"


def forbidden_to_rebuilds(module: str) -> str:
    """Why this package's own rebuild may not import a module. Empty: it may."""
    ours = ("llm_rebuild.verify", "llm_rebuild.diagnosis", "llm_rebuild.workbench", "llm_rebuild.proof")
    if module.partition(".")[0] in (*OFFICIAL, "tokenizers") or ".".join(module.split(".")[:2]) in ours:
        return f"the rebuild imports {module}, which a rebuild has to do without"
    return ""


def forbidden_to_learners(module: str) -> str:
    """Why a learner's file may not import a module. Empty: it may."""
    root, _, rest = module.partition(".")
    if root in OFFICIAL:
        return f"a rebuild cannot import {root}: it is held against it, and would be compared with itself"
    if root == PACKAGE.name and rest not in MAY_IMPORT:
        return f"a rebuild cannot import {module}: that is the course's own, and this one is to be yours"
    return ""


class Guard(MetaPathFinder):
    """Stands from the moment it is made to the end of the process.

    weights    The file that may be read, and its tensors, which whoever opens it is handed.
    hidden     Folders with official results. They need not be there.
    own        Folders in which it may write.
    forbidden  Says of a module why it may not be imported. Where it is this package's own rebuild's, the
               files of this package may be read, too.
    """

    def __init__(
        self,
        file: Path,
        weights: Mapping[str, Tensor],
        hidden: Iterable[Path],
        own: Iterable[Path],
        forbidden: Callable[[str], str],
    ) -> None:
        self.refused: str | None = None
        self.sealed = False  # once it is, nothing is written any more
        self._forbidden = forbidden
        self._file = _inode(file)
        results = [path for folder in hidden for path in (folder, *folder.glob("*"))]
        self._hidden: dict[Any, str] = {inode: RESULTS for path in results if (inode := _inode(path))}
        self._own = {_inode(folder) for folder in own}
        if forbidden is not forbidden_to_rebuilds:
            self._hidden |= dict.fromkeys(_sources(), COURSE)
        for name in [name for name in sys.modules if forbidden(name)]:
            parent, _, last = name.rpartition(".")
            vars(sys.modules.get(parent, sys)).pop(last, None)
            del sys.modules[name]
        sys.meta_path.insert(0, self)
        self._replace(weights)
        sys.addaudithook(self._hook)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Asked first whenever a module is imported."""
        reason = self._forbidden(name)
        if name == RUST.__name__:
            reason = f"a rebuild cannot import {name} anew"
        if reason:
            raise ImportError(reason)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in LOOKING:
            self._look(event, arguments[0], writing=event == "open" and bool((arguments[2] or 0) & WRITING))
        elif event in CHANGING:
            for path, folder in CHANGING[event]:
                self._look(event, arguments[path], -1 if folder is None else arguments[folder], writing=True)
        elif event in PROGRAMS:
            raise PermissionError(f"it starts or calls another program ({event}); a rebuild needs none")
        elif event in MACHINE_CODE:
            raise PermissionError(f"it loads machine code ({event}); a rebuild is written in Python")

    def _look(self, event: str, path: Any, folder: int = -1, *, writing: bool) -> None:
        """Refuse a file or folder that a rebuild has no business with. OSError for one that is not there is
        left to whoever opens it."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a file descriptor, or no path at all
        text = os.fsdecode(path)
        name = os.path.basename(text)  # noqa: PTH119 (quick: every file comes by here)
        inode, above = _inode(text, folder), os.path.dirname(text) or "."  # noqa: PTH120
        kind = self._hidden.get(inode) or self._hidden.get(_inode(above, folder))
        if kind == COURSE:
            raise PermissionError(f"it opens {name}, which is the course's own; this rebuild is to be yours")
        if kind == RESULTS or (text.startswith("/proc/") and name == "mem"):
            self._refuse(f"it reads {name}, where official results are kept; compute it instead")
        if writing and (self.sealed or (inode and inode == self._file)):
            raise PermissionError(f"it writes {name}, which a step that is tried by itself has no need of")
        if writing and text != os.devnull:
            if event in FOLLOWING and folder < 0:
                above = os.path.realpath(text)
                above = above if os.path.isdir(above) else os.path.dirname(above)  # noqa: PTH112, PTH120
            if not self._is_own(above, folder):
                reason = f"it changes {name}, which is not in its own folder; a rebuild has no need to"
                if inode and event != "os.mkdir":  # that one harms nothing that is there
                    self._refuse(reason)
                raise PermissionError(reason)
        tensors = name.endswith(".safetensors") or (inode and name.endswith(TENSORS))
        if tensors and inode != self._file and not writing:
            self._refuse(
                f"it reads {name}; a rebuild reads one file of tensors, the weight file, which it gets as "
                "`weights`"
            )

    def _is_own(self, path: str, folder: int) -> bool:
        """Whether a folder is one of its own, or in one. Where there is none, nothing comes of it anyway."""
        inode, below = _inode(path, folder), None
        if inode is None:
            return True
        while inode != below:  # the root is above itself
            if inode in self._own:
                return True
            path = f"{path}/.."
            inode, below = _inode(path, folder), inode
        return False

    def _refuse(self, reason: str) -> None:
        self.refused = self.refused or reason
        raise PermissionError(reason)

    def _replace(self, weights: Mapping[str, Tensor]) -> None:
        """Put something in the place of the ways to files, programs and memory that the hooks do not see."""
        guard = self

        class WeightFile:
            """In the place of `safe_open`: the weight file, which is open already."""

            def __init__(self, filename: Any, framework: str = "pt", *_: Any, **__: Any) -> None:
                path = Path(os.fsdecode(filename))
                with path.open("rb"):  # seen by the hook
                    pass
                if _inode(path) != guard._file:
                    guard._refuse(f"it reads {path.name}; a rebuild reads one file of tensors")
                self._numpy = framework in ("np", "numpy")

            def __enter__(self) -> WeightFile:
                return self

            def __exit__(self, *problem: object) -> None:
                return None

            def keys(self) -> list[str]:
                """The names of its tensors."""
                return list(weights)

            offset_keys = keys

            def metadata(self) -> dict[str, str]:
                """What the library says of every such file."""
                return {"format": "pt"}

            def get_tensor(self, name: str) -> Any:
                """One tensor, or array, by its name."""
                return weights[name].numpy() if self._numpy else weights[name]

            def get_tensors(self) -> dict[str, Any]:
                """All of them."""
                return {name: self.get_tensor(name) for name in weights}

            get_slice = get_tensor

        def closed(*arguments: Any, **named: Any) -> Any:
            """Refuse a call."""
            raise PermissionError("it goes round the guard of this process; a rebuild has no need to")

        for module in (RUST, safetensors, safetensors.torch, safetensors.numpy):
            for name, instead in (("safe_open", WeightFile), ("serialize_file", closed)):
                if hasattr(module, name):
                    setattr(module, name, instead)
        for owner, name in (
            (torch, "from_file"),
            (torch.UntypedStorage, "from_file"),
            (torch._C, "PyTorchFileReader"),
            (torch._C, "PyTorchFileWriter"),
            (subprocess, "_fork_exec"),
            (sys.modules.get("_posixsubprocess"), "fork_exec"),
        ):
            if hasattr(owner, name):
                setattr(owner, name, closed)


def _inode(path: Any, folder: int = -1) -> tuple[int, int] | None:
    """Which file it is. `folder`: an open one that the path is relative to; -1: where the process is."""
    try:
        status = os.stat(path, dir_fd=None if folder < 0 else folder)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _sources() -> Iterable[tuple[int, int]]:
    """The files of this package, compiled ones too, that hold more than a learner's file may import."""
    for folder, _, files in os.walk(PACKAGE):
        for file in files:
            path = Path(folder, file)
            inside = path.relative_to(PACKAGE).as_posix()
            module = inside.replace("__pycache__/", "").partition(".")[0].replace("/", ".")
            shown = module.removesuffix("__init__").rstrip(".") in MAY_IMPORT or inside.startswith(SHOWN)
            if path.suffix in (".py", ".pyc") and not shown and (inode := _inode(path)) is not None:
                yield inode
