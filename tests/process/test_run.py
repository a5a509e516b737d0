"""A process of our own: what goes there comes back; however it ends, it ends in a word and leaves nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from llm_rebuild.errors import InputError
from llm_rebuild.process import fork_server
from llm_rebuild.process.exchange import plain
from llm_rebuild.process.run import Process
from tests.process.tasks import echo, hungry

WAYS = [False] + ([True] if fork_server.COPIES else [])
TENSORS = {
    "floats": torch.arange(6.0).reshape(2, 3).t(),
    "one": torch.tensor(7),
    "none": torch.zeros(0, 3),
    "bools": torch.tensor([True, False]),
    "halves": torch.arange(3).to(torch.bfloat16),
    "complex": torch.tensor([1 + 2j]).conj(),
    "expanded": torch.zeros(1).expand(5),
}


@pytest.mark.parametrize("copies", WAYS)
def test_what_is_sent_comes_back_with_every_bit(copies: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fork_server, "COPIES", copies)
    with Process(echo) as process:
        for number in range(3):
            (message,) = process.ask({"number": number, "words": "ü\n"}, TENSORS)
            assert message.about == {"number": number, "words": "ü\n", "end": True}
            for name, tensor in TENSORS.items():
                back = message.tensors[name]
                assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
                assert torch.equal(back, tensor)
                assert back.is_contiguous()
    assert process.ended is not None
    assert process.ended.how == ""


ENDS = {
    "crash": ("os.abort()", "signal SIGABRT"),
    "exit": ("os._exit(3)", "exit 3"),
    "sys.exit": ("sys.exit(4)", "exit 4"),
    "raises": ("1 / 0", "exit 1"),
    "ends": ("os._exit(0)", ""),
    "sleeps": ("import time; time.sleep(600)", "time"),
    "computes": ("while True: pass", "time"),
    "stops": ("os.kill(os.getpid(), 19)", "time"),
    "garbage": ("os.write(channel._writing.fileno(), b'x' * 100)", "garbage"),
    "a length": ("os.write(channel._writing.fileno(), b'llmr' + b'\\xff' * 100)", "garbage"),
    "a wrong size": ("import struct; os.write(channel._writing.fileno(), "
                     "struct.pack('>4sQQ', b'llmr', 8, 9) + b'[{}, []]')", "garbage"),
    "no dtype": ("import struct; w = b'[{}, [[\"x\", \"float\", [3]]]]'; os.write(channel._writing.fileno(), "
                 "struct.pack('>4sQQ', b'llmr', len(w), 12) + w + b' ' * 12)", "garbage"),
    "half a message": ("os.write(channel._writing.fileno(), b'llmr'); os._exit(0)", ""),
    "its pipes closed": ("os.closerange(3, 100)\nwhile True: pass", "garbage"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "how"), ENDS.values(), ids=ENDS)
def test_however_it_ends_it_is_told(code: str, how: str):
    with Process(echo) as process:
        assert list(process.ask({"run": "print('hello')"}))
        process.deadline = time.monotonic() + (1 if how == "time" else 60)
        assert not list(process.ask({"run": code}))
        assert process.ended is not None
        assert process.ended.how == how
        assert process.ended.output.startswith("hello\n")
        assert not list(process.ask({}))  # nobody is there any more


def test_it_works_before_it_is_asked_what_came_of_it(tmp_path: Path):
    """However much was sent: more than a pipe holds."""
    done = tmp_path / "done"
    with Process(echo) as process:
        answers = process.ask({"run": f"open({str(done)!r}, 'w')"}, {"much": torch.zeros(1_000_000)})
        end = time.monotonic() + 60
        while not done.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        (message,) = answers
        assert message.tensors["much"].numel() == 1_000_000
        assert not list(process.ask({"run": "os._exit(3)"}, {"much": torch.zeros(1_000_000)}))
        assert process.ended is not None
        assert not list(process.ask({}, {"much": torch.zeros(1_000_000)}))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_copy_has_no_pipe_to_another_process():
    """A learner's file runs while the official model's process waits, and could ask it."""
    with Process(echo) as other:
        ends = (other._reading, other._writing, other._output)
        pipes = {str(Path(f"/proc/self/fd/{end}").readlink()) for end in ends}
        with Process(echo) as process:
            listing = "subprocess.getoutput('ls -l /proc/$PPID/fd')"
            assert list(process.ask({"run": f"import subprocess; print({listing})"}))
        assert list(other.ask({"number": 1}))  # this process has them still
    assert process.ended is not None
    assert "pipe:" in process.ended.output
    assert "socket:" not in process.ended.output  # by which it could have the fork server do something
    assert not pipes & set(process.ended.output.split())


SAYS = """
from tests.process.tasks import echo
from llm_rebuild.process import fork_server
from llm_rebuild.process.run import Process
def said(code):
    with Process(echo) as process:
        assert list(process.ask({"run": code}))
    return process.ended.output.strip()
"""


def printed(code: str) -> list[str]:
    """What a Python of its own prints, which starts processes of ours."""
    here = Path(__file__).parents[2]
    command = [sys.executable, "-c", SAYS + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=True)
    return done.stdout.split()


def test_a_copy_is_where_the_one_that_asks_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The environment, the folder and the path as they are now, and not as they were when it was started."""
    with Process(echo) as process:
        assert list(process.ask({}))
    monkeypatch.setenv("SINCE", "then")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with Process(echo) as process:
        assert list(process.ask({"run": "print(os.environ.get('HOME'), os.environ['SINCE'], os.getcwd())"}))
        assert list(process.ask({"run": "print(sys.path[0])"}))
    assert process.ended is not None
    assert process.ended.output == f"None then {tmp_path}\n{tmp_path}\n"


@pytest.mark.skipif(not fork_server.COPIES, reason="elsewhere each is a new Python")
def test_what_was_loaded_is_there_in_each_copy():
    """What is loaded before `begin`, and nothing of what came after it."""
    code = """
        import colorsys
        fork_server.begin()
        import plistlib
        loaded = "print('colorsys' in sys.modules, 'plistlib' in sys.modules, os.getsid(0) == os.getpid())"
        print(said(loaded), said(loaded))
    """
    assert printed(code) == ["True", "False", "True"] * 2


@pytest.mark.skipif(not fork_server.COPIES, reason="elsewhere each is a new Python")
def test_a_fork_server_that_is_gone_is_started_again():
    code = """
        import os, signal
        fork_server.begin()
        print(said("print(1)"))
        os.kill(fork_server._server().pid, signal.SIGKILL)
        print(said("print(2)"))
        first = fork_server._server().pid
        if os.fork() == 0:  # a copy of this process has one of its own, which ends with it
            print(said("print(3)"), fork_server._server().pid != first, flush=True)
            os._exit(0)
        os.wait()
        print(said("print(4)"), fork_server._server().pid == first)
    """
    assert printed(code) == ["1", "2", "3", "True", "4", "True"]


def test_a_flood_is_counted_and_not_kept():
    with Process(echo) as process:
        assert list(process.ask({"run": "for _ in range(20_000): print('x' * 99)"}))
    assert process.ended is not None
    assert (len(process.ended.output), process.ended.lost) == (4000, 2_000_000 - 4000)


def test_both_sides_may_send_at_once():
    """More than a pipe holds, in both directions: neither waits for the other."""
    large = {"x": torch.arange(2**20)}
    with Process(echo) as process:
        process.send({"number": 1}, large)
        process.deadline = time.monotonic() + 60
        for number in (1, 2, 3):
            (answer,) = process.ask({"number": number + 1}, large)
            assert answer.about["number"] == number
            assert torch.equal(answer.tensors["x"], large["x"])


def test_one_that_has_closed_its_output_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    waits: list[int] = []
    wait = select.select

    def counted(*arguments):
        waits.append(len(waits))
        assert len(waits) < 100  # it is not asked all the time
        return wait(*arguments)

    monkeypatch.setattr(select, "select", counted)
    with Process(echo) as process:
        assert list(process.ask({"run": "print('last words', flush=True); os.close(1); os.close(2)"}))
        assert list(process.ask({"run": "__import__('time').sleep(1)"}))
    assert process.ended is not None
    assert process.ended.output == "last words\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the limits hold on Linux only")
def test_memory_is_limited():
    with Process(hungry) as process:
        assert list(process.ask({"run": "torch.zeros(2**25)"}))
        assert not list(process.ask({"run": "torch.zeros(2**28)"}))
    assert process.ended is not None
    assert "memory" in process.ended.output


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends; one that was killed may still be there for as long as the machine is busy."""
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_it_has_started_ends_with_it():
    with Process(echo) as process:
        start = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid)"
        assert list(process.ask({"run": start}))
    assert process.ended is not None
    assert ends(int(process.ended.output))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("copies", WAYS)
@pytest.mark.parametrize(
    "signal_",
    [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.weekly) for s in (signal.SIGTERM, signal.SIGHUP))],
)
def test_it_ends_with_the_one_that_started_it_and_leaves_nothing_on_the_disk(
    tmp_path: Path, copies: bool, signal_: int
):
    code = f"""
        from llm_rebuild.process import fork_server
        from llm_rebuild.process.run import Process
        from tests.process.tasks import echo
        import torch
        fork_server.COPIES = {copies}
        process = Process(echo)
        list(process.ask({{"run": "print(1)"}}, {{"official": torch.ones(9)}}))
        print(process._pid, flush=True)
        list(process.ask({{"run": "while True: pass"}}))
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal_)
    parent.communicate()
    assert ends(pid)
    assert list(tmp_path.iterdir()) == []


class Liar(torch.Tensor):
    """A tensor that says what it likes."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.zeros(3)


def test_a_tensor_that_lies_is_taken_at_its_numbers():
    numbers = plain(torch.arange(3.0).as_subclass(Liar), "it is")
    assert type(numbers) is torch.Tensor
    assert numbers.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(3).to_sparse(), "a sparse_coo tensor on cpu"),
        (torch.zeros(3, device="meta"), "a strided tensor on meta"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a quantised tensor on cpu"),
    ],
    ids=["sparse", "meta", "quantised"],
)
def test_what_has_no_plain_numbers_is_refused_in_a_line(tensor: torch.Tensor, kind: str):
    with pytest.raises(InputError, match=f"it is {kind}; it takes a plain one"):
        plain(tensor, "it is")
