"""Pages are tests: every fence that the site shows runs, in order, in one namespace a page.

pytest-codeblocks finds the blocks and makes the items (`docs/part-3/minilm.md::line 42`). This plugin closes
what it skips in silence, gives a page one namespace, and compares what a fence prints with the `text` fence
behind it. How to write a page that passes: docs/contributing.

A page's fences share a real `__main__` module, a fresh folder to work in, and one state of torch; all of it
is put back behind the page. A fence that is asked for by itself runs the fences before it first. Behind a
fence that raised, the rest of the page is not run, and says so. A wrong output does not stop the page.

`pytest --update-output docs/x.md` writes what the fences printed into the page.

A page may say `needs: minilm` in its front matter: where the real model is neither in the store nor to be
had, its fences are skipped, and the reason says how to get it. Nothing else skips a fence. With `numbers:
gpt2 miniature` the outputs are compared only on that copy; with another one the fences run all the same, and
the summary names the page. So do the fences of every page where the kernels are not those that all processors
have (tools/portable.py): what is printed there has other last digits.
"""

from __future__ import annotations
import __future__

import contextlib
import difflib
import io
import linecache
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_codeblocks import plugin as engine
from pytest_codeblocks.main import extract_from_buffer

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.hub import NotReachableError
from llm_rebuild.errors import InputError
from tests import warm
from tools import fences, portable
from tools.fences import PYTHON, Fence

SHELL_SECONDS = 900
THREADS = 2
FUTURE_FLAGS = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
PAGE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PIP_NO_INDEX": "1",  # a model that is not in the store is not fetched from the package registry either
    "COLUMNS": "80",
    "LINES": "25",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "PYTHONIOENCODING": "utf-8",
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": str(THREADS),  # for the commands: the bits of a sum depend on how it is divided
}
rewritten_key = pytest.StashKey[list[str]]()
uncompared_key = pytest.StashKey[list[str]]()
missing_key = pytest.StashKey[dict[str, str]]()


class FenceError(Exception):
    """A fence of a page failed. The message is the whole report."""


# ------------------------------------------------------------------------------------------- pytest's hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("general").addoption(
        "--update-output",
        action="store_true",
        help="write what the fences of the pages print into the pages' text fences",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not getattr(config.option, "codeblocks", False):
        raise pytest.UsageError("pytest needs --codeblocks (and pytest-codeblocks): no page would be tested")
    config.add_cleanup(warm.stop)
    config.stash[rewritten_key] = []
    config.stash[uncompared_key] = []
    config.stash[missing_key] = {}


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Generator[None, list[Any], list[Any]]:
    """Put a page in the place of each file that the engine collects."""
    collectors = yield
    return [
        PageFile.from_parent(parent, path=file_path)
        if isinstance(collector, engine.MarkdownFile)
        else collector
        for collector in collectors
    ]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in [*config.stash[rewritten_key], *config.stash[uncompared_key]]:
        terminalreporter.write_line(line)


class PageFile(engine.MarkdownFile):
    """One Markdown file."""

    run: PageRun | None = None
    compares = True

    def collect(self) -> Iterator[FenceItem]:
        page = fences.read_page(self.path)
        problems = page.problems or engine_problems(self.path, page)
        if problems:
            raise self.CollectError("\n".join(f"{self.nodeid}:{p.line}: {p.message}" for p in problems))
        self.fences, self.needs, self.numbers = page.runnable, page.needs, page.numbers
        for fence in self.fences:
            item = FenceItem.from_parent(self, name=f"line {fence.first}")
            item.obj = fence
            yield item

    def setup(self) -> None:
        for model in self.needs:
            reason = why_missing(model, self.config, self.nodeid)
            if reason:
                pytest.skip(f"{self.nodeid} needs the real {model}: {reason}")
        self.run = PageRun(self.path, self.nodeid, self.fences)
        if not portable.in_force():
            self.compares = False
            self.config.stash[uncompared_key].append(
                f"{self.nodeid}: every fence ran, and no output was compared, since this processor has last "
                "digits of its own; `python -m tools.portable -m pytest` compares them"
            )
        for model, source in self.numbers:  # what the page itself will get, offline as it is
            copy = local_copy.get(model)
            if (copy.source == "miniature") != (source == "miniature"):
                self.compares = False
                got = (
                    "the miniature" if copy.source == "miniature" else f"the real one from the {copy.source}"
                )
                self.config.stash[uncompared_key].append(
                    f"{self.nodeid}: its outputs were made on {model} {source}, and {model} is {got} here: "
                    "every fence ran, and no output was compared"
                )

    def teardown(self) -> None:
        if self.run is None:
            return
        self.run.close()
        if self.run.updates:
            count = update_page(self.path, self.run.updates)
            self.config.stash[rewritten_key].append(f"{self.nodeid}: {count} outputs rewritten")
        self.run = None


class FenceItem(engine.TestBlock):
    """One fence of a page."""

    parent: PageFile
    obj: Fence

    def runtest(self) -> None:
        run = self.parent.run
        assert run is not None
        index = self.parent.fences.index(self.obj)
        result = run.run_through(index)
        sys.stdout.write(result.output)  # for pytest's report of a failure
        sys.stderr.write(result.errors)
        if result.failure is not None:
            raise FenceError(result.failure)
        if not self.parent.compares:
            return
        difference = output_difference(self.obj, result.output, self.parent.nodeid)
        if difference is None:
            return
        if self.config.getoption("--update-output") and printed(result.output):
            run.updates.append((self.obj, result.output))
            return
        raise FenceError(difference)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        if isinstance(excinfo.value, FenceError):
            return str(excinfo.value)
        return pytest.Item.repr_failure(self, excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.obj.first - 1, self.name


def why_missing(model: str, config: pytest.Config, name: str) -> str:
    """Why the real model is neither in the store nor to be fetched; nothing if it is there. Asked once."""
    known = config.stash[missing_key]
    if model not in known:
        try:
            local_copy.get(model, strict=True)
            known[model] = ""
        except NotReachableError as reason:
            known[model] = str(reason)
        except InputError as reason:  # there, and not right
            raise FenceError(f"{name} needs the real {model}: {reason}") from None
    return known[model]


def engine_problems(path: Path, page: fences.Page) -> list[fences.Problem]:
    """Where pytest-codeblocks reads other blocks in a page than `read_page` does."""
    try:
        text = path.read_text(encoding="utf-8")
        blocks = extract_from_buffer(io.StringIO(text), max_num_lines=len(text) + 1)
    except RuntimeError as reason:
        return [fences.Problem(1, f"pytest-codeblocks cannot read this page: {reason}")]
    ours = [(fence.first, _solid_lines(fence.code)) for fence in page.fences]
    theirs = [(block.lineno, _solid_lines(block.code)) for block in blocks]
    for our, their in zip([*ours, None], [*theirs, None], strict=False):
        if our != their:
            line = (our or their or (1, []))[0]
            return [fences.Problem(line, "pytest-codeblocks reads another block here than the site does")]
    return []


def _solid_lines(code: str) -> list[str]:
    """A block's lines without its blank ones, which pytest-codeblocks drops from an indented block."""
    return [line.rstrip() for line in code.splitlines() if line.strip()]


# ------------------------------------------------------------------------------------------- running a page


@dataclass
class Result:
    """What a fence did."""

    output: str = ""
    errors: str = ""
    failure: str | None = None


class PageRun:
    """One run through a page: its namespace, its folder, its state of the process."""

    def __init__(self, path: Path, name: str, page_fences: list[Fence]) -> None:
        self.path = path
        self.name = name
        self.fences = page_fences
        self.results: list[Result] = []
        self.updates: list[tuple[Fence, str]] = []
        self.future_flags = 0
        self.module = types.ModuleType("__main__")
        self.module.__file__ = str(path)
        with contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="page-", ignore_cleanup_errors=True)
            stack.enter_context(_process_state(Path(stack.enter_context(folder))))
            stack.enter_context(_torch_state())
            stack.enter_context(_main_module(self.module))
            stack.callback(self._forget_sources)
            self.stdout = stack.enter_context(_Recorder(1))
            self.stderr = stack.enter_context(_Recorder(2))
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def run_through(self, index: int) -> Result:
        """Run the fences up to this one that have not run yet, and return what this one did."""
        for position in range(len(self.results), index + 1):
            failed = next((k for k, result in enumerate(self.results) if result.failure is not None), None)
            if failed is not None:
                first, why = self.fences[failed].first, self.results[failed].failure
                place = f"{self.name}:{self.fences[position].first}"
                message = f"{place}: not run, because the fence on line {first} failed:"
                self.results.append(Result(failure=f"{message}\n\n{indented(str(why))}"))
            else:
                self.results.append(self._run(self.fences[position]))
        return self.results[index]

    def _run(self, fence: Fence) -> Result:
        with self.stdout.recording(), self.stderr.recording():
            failure = self._python(fence) if fence.language == PYTHON else self._shell(fence)
        return Result(self.stdout.take(), self.stderr.take(), failure)

    def _python(self, fence: Fence) -> str | None:
        """Run a Python fence, as a file of its own like a notebook's cell, so that a line's number does not
        depend on what stands before it on the page; return the report of its failure."""
        filename = f"{self.path}::line {fence.first}"
        linecache.cache[filename] = (len(fence.source), None, fence.source.splitlines(True), filename)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", SyntaxWarning)
                warnings.simplefilter("error", DeprecationWarning)  # "\\d", until Python 3.12
                code = compile(fence.source, filename, "exec", flags=self.future_flags, dont_inherit=True)
            self.future_flags |= code.co_flags & FUTURE_FLAGS
            exec(code, self.module.__dict__)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit and pytest.skip too: nothing ends a fence quietly
            return self._python_failure(fence, error, filename)
        return None

    def _python_failure(self, fence: Fence, error: BaseException, filename: str) -> str:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != filename:
            trace = trace.tb_next
        line = trace.tb_lineno if trace is not None else getattr(error, "lineno", None)
        included = fence.source != fence.code  # then its lines are not the page's
        place = f"{self.name}:{fence.first if included or line is None else fence.first + line}"
        text = self._with_page_lines("".join(traceback.format_exception(type(error), error, trace)))
        what = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
        if isinstance(error, SystemExit):
            what += " (the fence ended the program: the lines behind it never ran)"
        listing = [
            f"{'>' if number == line else ' '} {number if included else fence.first + number:4d} | {source}"
            for number, source in enumerate(fence.source.splitlines(), start=1)
        ]
        return "\n".join([f"{place}: {what}", "", *listing, "", text.rstrip()])

    def _with_page_lines(self, report: str) -> str:
        """A traceback in which lines of fences are lines of the page, where they stand in it."""
        page = {fence.first: fence.source == fence.code for fence in self.fences}

        def in_page(place: re.Match[str]) -> str:
            first, line = int(place["first"]), int(place["line"])
            if not page[first]:
                return f'File "{self.name}::line {first}", line {line}'
            return f'File "{self.name}", line {first + line}'

        fence = rf'File "{re.escape(str(self.path))}::line (?P<first>\d+)", line (?P<line>\d+)'
        return re.sub(fence, in_page, report)

    def _forget_sources(self) -> None:
        for fence in self.fences:
            linecache.cache.pop(f"{self.path}::line {fence.first}", None)

    def _shell(self, fence: Fence) -> str | None:
        """Run a shell fence; return the report of its failure."""
        options = ["-e", "-o", "pipefail"] if fence.language == "bash" else ["-e"]
        quick = "llm-rebuild" in fence.source and self.path.name != "README.md"
        try:
            status = subprocess.run(
                [fence.language, *options, "-c", fence.source],
                stdin=subprocess.DEVNULL,
                stdout=self.stdout.descriptor,
                stderr=self.stderr.descriptor,
                env=warm.environment() if quick else None,
                timeout=SHELL_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"{self.name}:{fence.first}: not finished after {SHELL_SECONDS} seconds\n\n{fence.source}"
        if status:
            return (
                f"{self.name}:{fence.first}: exit status {status}\n\n"
                f"{indented(fence.source)}\n{self.stderr.peek()}"
            ).rstrip()
        return None


def indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(True))


class _Recorder:
    """Keeps what is written to a stream while it records: by print, by C code, and by child processes."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.name = {1: "stdout", 2: "stderr"}[target]

    def __enter__(self) -> _Recorder:
        self._file = tempfile.TemporaryFile()
        self.descriptor = self._file.fileno()
        os.set_inheritable(self.descriptor, True)
        # One stream object for the whole page: what a fence keeps hold of works in the next fence.
        # Unbuffered: its lines and those of child processes come in the order in which they were written.
        self._stream = io.TextIOWrapper(
            io.FileIO(self.descriptor, "w", closefd=False),  # type: ignore[arg-type]
            encoding="utf-8",
            errors="backslashreplace",
            newline="",
            write_through=True,
        )
        self._taken = 0
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream.close()
        self._file.close()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        outside = getattr(sys, self.name)
        outside.flush()
        saved = os.dup(self.target)
        os.dup2(self.descriptor, self.target)
        setattr(sys, self.name, self._stream)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # a fence may have closed it
                self._stream.flush()
            setattr(sys, self.name, outside)
            os.dup2(saved, self.target)
            os.close(saved)

    def peek(self) -> str:
        """What was recorded since the last take."""
        size = os.fstat(self.descriptor).st_size
        data = os.pread(self.descriptor, size - self._taken, self._taken)
        return data.decode("utf-8", "backslashreplace")

    def take(self) -> str:
        text = self.peek()
        self._taken = os.fstat(self.descriptor).st_size
        return text


@contextlib.contextmanager
def _process_state(folder: Path) -> Iterator[None]:
    """A page works in its own folder, offline, on a plain terminal of 80 columns; all is put back."""
    environment, cwd, path, argv = dict(os.environ), Path.cwd(), list(sys.path), list(sys.argv)
    modules, random_state = set(sys.modules), random.getstate()
    os.environ.update(PAGE_ENVIRONMENT)
    tools_of_this_python = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([tools_of_this_python, environment.get("PATH", os.defpath)])
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PYTHONSTARTUP"):
        os.environ.pop(name, None)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    random.seed(0)
    with contextlib.ExitStack() as stack:
        # The hub reads HF_HUB_OFFLINE once, when it is imported; it may have been imported long ago.
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:
            stack.callback(setattr, constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
            constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            os.chdir(cwd)
            sys.path[:], sys.argv[:] = path, argv
            random.setstate(random_state)
            for name in set(sys.modules) - modules:  # modules that the page wrote into its folder
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[name]
            for name in set(os.environ) | set(environment):
                if name == "PYTEST_CURRENT_TEST":
                    continue
                if name not in environment:
                    del os.environ[name]
                elif os.environ.get(name) != environment[name]:
                    os.environ[name] = environment[name]


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    """A page begins with seed 0, float32 and two threads, whatever ran before it, and leaves no trace."""
    import numpy as np
    import torch

    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(0)
    np.random.seed(0)
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(True)
    torch.set_printoptions(profile="default")
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call is slow
            torch.use_deterministic_algorithms(deterministic)
        torch.set_printoptions(profile="default")


@contextlib.contextmanager
def _main_module(module: types.ModuleType) -> Iterator[None]:
    outside = sys.modules["__main__"]
    sys.modules["__main__"] = module
    try:
        yield
    finally:
        sys.modules["__main__"] = outside


# -------------------------------------------------------------------------------------------------- outputs


def printed(output: str) -> list[str]:
    """An output's lines, as they are compared: without the blanks at the ends of lines and of the output."""
    return "\n".join(line.rstrip() for line in output.splitlines()).rstrip().splitlines()


def output_difference(fence: Fence, output: str, name: str) -> str | None:
    """How what a fence printed differs from what its page shows; None if it does not."""
    got = printed(output)
    if fence.output is None:
        if not got or fence.hidden:
            return None
        shown = "\n".join(f"    {line}" for line in got)
        return (
            f"{name}:{fence.first}: this fence prints, and the page does not show it. Put a ```text fence "
            f"right behind it, or let `pytest --update-output` do it. It printed:\n\n{shown}"
        )
    expected = printed(fence.output.code)
    if got == expected:
        return None
    difference = difflib.unified_diff(
        expected, got, f"{name}:{fence.output.first} shows", f"{name}:{fence.first} printed", lineterm="", n=3
    )
    return "\n".join(
        [
            f"{name}:{fence.output.first}: not what the fence on line {fence.first} printed",
            "",
            *difference,
            "",
            "`pytest --update-output` writes what it printed into the page.",
        ]
    )


def update_page(path: Path, updates: list[tuple[Fence, str]]) -> int:
    """Write outputs into a page, behind their fences; return how many."""
    text = path.read_bytes().decode("utf-8")
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines()
    for fence, output in sorted(updates, key=lambda update: -update[0].first):
        got = printed(output)
        old = fence.output
        ticks = old.ticks if old else "```"
        while any(line.lstrip(" \t>").startswith(ticks) for line in got):
            ticks += "`"
        block = [f"{ticks}{old.info if old else fences.OUTPUT}", *got, ticks]
        block = [f"{fence.indent}{line}" if line else "" for line in block]
        if old:
            lines[old.first - 1 : old.last] = block
        else:
            lines[fence.last : fence.last] = ["", *block]
    path.write_bytes((newline.join(lines) + newline).encode("utf-8"))
    return len(updates)
