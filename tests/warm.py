"""`llm-rebuild` for the pages' shell fences and for tests, without seconds of imports each time.

On a page's PATH `llm-rebuild` is a small script. It hands its streams, arguments and folder to a process that
has imported this package and its libraries: that copies itself, and the copy runs the command's own `main`.
What is run is what a reader runs, but for the imports. The official library is only in the copies for
commands that run the official model themselves, and nothing in a process apart: a second process has it. A
command with an environment of its own is started as everywhere, for torch reads some of it when it is
imported; README.md's commands always are. It serves all processes that run the tests, if their environment is
the same, and ends with the last.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# What else a command imports of other libraries; most of the time is that of torch's for transformers.
LIBRARIES = (
    "torch.distributed.tensor", "torch.distributed.fsdp", "torch._dynamo", "torch.export", "scipy.optimize",
    "rich.progress", "huggingface_hub.file_download", "tokenizers", "regex", "jinja2",
)  # fmt: skip
OFFICIAL = ("capture", "compare", "dump", "find", "map", "verify")  # run the official model themselves
SIDE = "official side"  # of a check: what is asked of the process that has transformers
ARRANGED = "TESTS_ARRANGED"  # Python that is run before the command
# Read when a command runs: they are those of the call.
OBEYED = ("LLM_REBUILD_STORE", "COLUMNS", "RAY_worker_niceness", "RAY_AUTH_MODE", ARRANGED)
CHANGING = (  # from fence to fence: by the shell, by pytest, and by what a fence or a test imports
    "PWD", "OLDPWD", "SHLVL", "_", "PS1", "PYTEST_CURRENT_TEST",
    "TRANSFORMERS_VERBOSITY", "TORCHINDUCTOR_CACHE_DIR", "OMP_WAIT_POLICY", *OBEYED,
    "RAY_CLIENT_MODE", "KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK",  # Ray's, and scikit-learn's
    "PYTEST_XDIST_WORKER",
)  # fmt: skip

STARTED: list[subprocess.Popen[bytes]] = []
KEPT: list[int] = []  # ends of pipes: as long as somebody has one open, the process at the other end lives
SCRIPT = """#!{python} -IS
import json, os, socket, sys
environment = {{name: value for name, value in os.environ.items() if name not in {changing}}}
if environment != {environment}:
    os.execvp({command!r}[0], [*{command!r}, *sys.argv[1:]])
obeyed = {{name: os.environ[name] for name in {obeyed} if name in os.environ}}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r} + (".official" if sys.argv[1:2] and sys.argv[1] in {official}
                       and "--isolated" not in sys.argv else ""))
    socket.send_fds(connection, [json.dumps([os.getcwd(), sys.argv[1:], obeyed]).encode()], [0, 1, 2])
    sys.exit(int(connection.recv(9) or 137))  # no answer: it was killed
"""


@functools.cache
def folder(*before: str) -> str:
    """The folder of the script, to be the first of PATH; what serves it is started by whoever needs it first,
    as an argument of the command `before`, where there is one."""
    environment = {name: value for name, value in os.environ.items() if name not in CHANGING}
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
    same = json.dumps([run, before, sys.executable, environment], sort_keys=True)
    place = Path(tempfile.gettempdir(), f"warm-{hashlib.sha256(same.encode()).hexdigest()[:16]}")
    with one_at_a_time():
        try:
            keep(place)
        except OSError:  # nobody has started it
            _start(place, environment, before)
            keep(place)
    return str(place)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Who starts such a process, or ends as one, is alone in that."""
    import fcntl  # not everywhere

    with Path(__file__).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def keep(place: Path) -> None:
    """Have what serves there live for as long as this process, or until `stop`. OSError where nobody does."""
    KEPT.append(os.open(place / "kept", os.O_WRONLY | os.O_NONBLOCK))


def _start(place: Path, environment: dict[str, str], before: tuple[str, ...]) -> None:
    """Start what serves there."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    os.mkfifo(place / "kept")
    address, script = f"{place}/socket", place / "llm-rebuild"
    installed = str(Path(sys.executable).with_name(script.name))
    environment = environment | {"PATH": os.pathsep.join([str(place), os.environ["PATH"]])}
    python = [sys.executable, "-c", f"from tests.warm import serve; serve({address!r}, {installed!r})"]
    pipe, here = subprocess.PIPE, Path(__file__).parents[1]
    server = subprocess.Popen(
        [*before, *python], stdin=subprocess.DEVNULL, stdout=pipe, env=environment, cwd=here
    )
    STARTED.append(server)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    names = {"python": sys.executable, "changing": CHANGING, "environment": environment}
    names |= {"official": OFFICIAL, "obeyed": OBEYED}
    command = [*before, installed]
    script.write_text(SCRIPT.format(**names, command=command, address=address), encoding="utf-8")
    script.chmod(0o755)


def environment(*before: str, **variables: str) -> dict[str, str]:
    """That of a process which shall find the script; on systems that copy no process, the command itself."""
    where = folder(*before) if sys.platform == "linux" else str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([where, os.environ["PATH"]])} | variables


def run(*arguments: object, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command, in a folder and with these variables."""
    command = ["llm-rebuild", *map(str, arguments)]
    more = environment(**variables)
    return subprocess.run(command, cwd=folder, env=more, capture_output=True, text=True, check=False)


def stop() -> None:
    """What `folder` has started may end, where nobody else needs it."""
    folder.cache_clear()
    while KEPT:
        os.close(KEPT.pop())


def load() -> None:
    """Import this package and its libraries, but for the official one."""
    import llm_rebuild

    ours = [module.name for module in pkgutil.walk_packages(llm_rebuild.__path__, "llm_rebuild.")]
    for name in (*ours, *LIBRARIES):
        if name != "llm_rebuild.__main__":  # which runs a command
            importlib.import_module(name)
    assert "transformers" not in sys.modules


def serve(address: str, installed: str) -> None:
    """Run commands, each in a copy of this process, until nobody keeps it."""
    from llm_rebuild.models import ARCHITECTURES
    from llm_rebuild.process.limits import end_with

    kept = os.open(Path(address).with_name("kept"), os.O_RDONLY | os.O_NONBLOCK)
    load()
    sys.path.remove("")
    places = [address, f"{address}.official"]
    sockets = {place: socket.socket(socket.AF_UNIX) for place in places}
    for place, listening in sockets.items():
        listening.bind(place)
        listening.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    first = os.getpid()
    official = os.fork() == 0
    sockets[places[not official]].close()  # whoever asks one that has ended is refused, and waits for nothing
    if official:
        end_with(first)
        names = [f"transformers.models.{kind}.modeling_{kind}" for kind in ARCHITECTURES]
        for name in (*names, "transformers.models.auto.tokenization_auto"):
            importlib.import_module(name)
    gc.freeze()  # no copy searches through what was imported, as it ends
    with sockets[places[official]] as listening:
        while True:
            if kept in select.select([listening, *([] if official else [kept])], [], [])[0]:
                _end(address, kept)
                continue
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection, installed, places[1])
            connection.close()


def _end(address: str, kept: int) -> None:
    """End, if nobody has come meanwhile."""
    with one_at_a_time(), contextlib.suppress(BlockingIOError):
        os.read(kept, 1)  # of nobody
        shutil.rmtree(Path(address).parent)
        os._exit(0)


def _official_side(address: str, environment: dict[str, str]) -> None:
    """Have the official side of a check computed by a copy of the process that has transformers already;
    where it is not, a check starts one as it always does, and says what there is to say."""
    from llm_rebuild.workbench.runs import Officials

    make = Officials._make

    def made(self: Officials, job: Mapping[str, Any], out: Path) -> None:
        """The same, asked of it."""
        arguments = [SIDE, json.dumps({**job, "out": str(out)})]
        with socket.socket(socket.AF_UNIX) as connection, Path(os.devnull).open("r+b") as nothing:
            connection.connect(address)
            asked = json.dumps([str(Path.cwd()), arguments, environment]).encode()
            socket.send_fds(connection, [asked], [nothing.fileno()] * 3)
            if connection.recv(9) != b"0":
                make(self, job, out)

    Officials._make = made  # type: ignore[method-assign]


def _answer(connection: socket.socket, installed: str, official: str) -> None:
    """Run the command of a connection, and answer with its exit code. Does not return. `official`: where the
    process that has transformers can be asked."""
    from llm_rebuild.cli.main import main
    from llm_rebuild.workbench.runs import save_official

    asked, streams, _, _ = socket.recv_fds(connection, 2**20, 3)
    folder, arguments, obeyed = json.loads(asked)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    for name in OBEYED:
        os.environ.pop(name, None)
    os.environ.update(obeyed)
    code: object = 1
    try:
        if arguments[:1] == [SIDE]:
            save_official(json.loads(arguments[1]))
            sys.exit(0)
        if ARRANGED not in os.environ:
            _official_side(official, obeyed)
        exec(os.environ.pop(ARRANGED, ""), {"sys": sys})
        sys.argv, sys.path[:] = [installed, *arguments], [str(Path(installed).parent), *sys.path]
        main()  # which leaves as a process does
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    # All the rest of a process's end would be to take apart what was imported: half a second.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code).encode())
    os._exit(code)
