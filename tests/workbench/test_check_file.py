"""`check` on files as learners write them: right, half done, wrong in one step, and all kinds of accident."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm_rebuild.copies import local_copy
from llm_rebuild.errors import InputError
from llm_rebuild.workbench import new as writing
from llm_rebuild.workbench.session import learner_of
from tests import warm
from tests.workbench.bench import Bench, Said

MODEL = local_copy.MINIATURES / "gpt2"
SOLVED = writing.source("gpt2", solved=True)
Checked = Callable[..., Said]
SHORT = """
import torch
def forward(token_ids, mask, weights, config, tap):
    x = weights["wte.weight"][token_ids]
    tap("wte", x)
    where = weights["wpe.weight"][torch.arange(token_ids.shape[1])].unsqueeze(0)
    tap("wpe", where)
{then}
    return x
"""

ELSEWHERE = """import torch
torch.set_default_device("meta")
def forward(token_ids, mask, weights, config, tap):
    return torch.where(mask > 0, torch.zeros(()), 1.0)
"""


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Checked:
    """Write a file and check it on GPT-2's miniature."""

    def run(source: str, *options: object, model: Path = MODEL) -> Said:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        return bench.run("check", "mine.py", "--model", model, *options, folder=tmp_path)

    return run


@pytest.fixture
def refused(checked: Checked, bench: Bench) -> Callable[..., str]:
    """Check a file that cannot be run to its end: exit 2, and one line on stderr, which is returned."""

    def run(source: str, *options: object) -> str:
        said = checked(source, *options)
        assert said.code == 2, said.out + said.err
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("llm-rebuild: mine.py")
        assert "Traceback" not in said.err + said.out
        assert len(said.err) < 600
        return said.err

    return run


def short(then: str = "") -> str:
    return SHORT.format(then="\n".join(f"    {line}" for line in then.splitlines()))


def changed(before: str, after: str, source: str = SOLVED) -> str:
    assert source.count(before) == 1
    return source.replace(before, after)


# ------------------------------------------------------------------------------------ right and half done


def test_without_a_step_and_with_few_taps(checked: Checked, tmp_path: Path):
    said = checked(short("tap('embeddings', x + where)"), "--json", "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert said.code == 1
    assert found["summary"]["bit_identical"] == 3
    assert found["next"] == "mask"
    assert found["steps"] == []
    assert "next: mask" in said.out


def test_a_wrong_step_is_told_from_what_it_feeds(checked: Checked, tmp_path: Path):
    said = checked(changed("return product * power", "return product / power"), "--json", "found.json")
    assert said.code == 1
    assert "first divergence: h.0.attn.scaled" in said.out
    assert "wrong itself" in said.out
    assert "its step is wrong itself" in said.out
    assert "18 differ" in said.out
    assert "18 right alone" in said.out  # what only got wrong numbers
    assert "h.1 … h.2" in said.out
    assert len(said.out.splitlines()) < 30
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    right = {step["name"]: step["right"] for step in found["steps"]}
    assert not right["h.0.attn.scaled"]
    assert right["h.0.attn.scores"]
    assert right["h.2.attn.probs"]
    assert {c["verdict"] for c in found["checkpoints"] if c["name"] == "h.0.attn.scores"} == {"wrong values"}
    assert found["diagnosis"], "a scale has a diagnosis"
    assert set(found["diagnosis"][0]) >= {"cause", "explanation", "confidence", "chapter"}


def test_a_right_step_that_is_fed_wrongly(checked: Checked):
    said = checked(changed("add_mask(scaled, may_look)", "add_mask(product, may_look)"))
    assert "first divergence: h.0.attn.scores" in said.out
    assert "right alone: the mistake is in `forward`" in said.out


def test_an_empty_step_is_next_and_later_ones_are_tried_all_the_same(checked: Checked):
    for body in ("...", "raise NotImplementedError", "raise NotImplementedError('later')", "pass"):
        said = checked(changed("    return F.softmax(scores, dim=-1)", f"    {body}"), "--json", "-")
        found = json.loads(said.out)
        assert (said.code, said.err, found["error"]) == (1, "", None), body
        assert found["next"] == "h.0.attn.probs"
        states = {step["name"]: step for step in found["steps"]}
        assert states["h.0.attn.probs"]["problem"] == "not filled in"
        assert states["h.1.mlp.act"]["right"]


def test_what_comes_next_is_never_a_step_that_comes_later(checked: Checked):
    """Who writes the activation in a line leaves out its taps; the next empty step is another matter."""
    body, end = '    half = tap(f"{name}.half"', "    return half * gate"
    before, whole, after = SOLVED.partition(body)
    assert whole
    source = before + '    return F.gelu(x, approximate="tanh")' + after[after.index(end) + len(end) :]
    empty = writing.source("gpt2")
    source = source[: source.index("def head(")] + empty[empty.index("def head(") :]
    shown = checked(source).out
    assert "next: h.0.mlp.act.half" in shown
    assert "it was passed without a tap of this name" in shown
    assert "fill in" not in shown


def test_one_step_alone(checked: Checked):
    wrong = changed("return product * power", "return product / power")
    assert checked(wrong, "--step", "h.0.attn.scores").code == 0
    said = checked(wrong, "--step", "h.0.attn.scaled", "--json", "-")
    found = json.loads(said.out)
    assert said.code == 1
    assert [c["name"] for c in found["checkpoints"]] == ["h.0.attn.scaled"]
    every = checked(wrong, "--step", "h.{layer}.attn.scaled", "--json", "-")
    assert [c["name"] for c in json.loads(every.out)["checkpoints"]] == [
        f"h.{layer}.attn.scaled" for layer in range(3)
    ]
    assert "did you mean 'h.0.attn.scaled'" in checked(wrong, "--step", "h.0.attn.scald").err
    assert "no function marked @step for wte" in checked(short(), "--step", "wte").err


def test_exact_asks_for_bits(checked: Checked):
    head = '    return F.linear(x, weights["wte.weight"])\n'
    close = changed(head, head.replace("\n", " * (1 + 1e-7)\n"))
    assert checked(close).code == 0
    assert checked(close, "--exact", "--step", "lm_head").code == 1


def test_another_type_of_number(checked: Checked):
    """Both sides compute in it. With a mask that stays float32 nothing after it can be computed."""
    half = SOLVED.replace("torch.finfo(torch.float32).min", "torch.finfo(torch.bfloat16).min")
    half = half.replace("torch.zeros(())", "torch.zeros((), dtype=torch.bfloat16)")
    said = checked(half, "--dtype", "bfloat16", "--exact")
    assert said.code == 0, said.out + said.err
    other = checked(SOLVED, "--dtype", "bfloat16")
    assert (other.code, "the last checkpoint that passed is embeddings" in other.err) == (2, True)
    assert checked(SOLVED, "--dtype", "int8").err.startswith("llm-rebuild: dtype is 'int8'; it is one of")


def test_padding_attention_and_ids(checked: Checked):
    two = ("--token-ids", "5,9,11", "--token-ids", "7", "--json", "-")
    said = checked(SOLVED, *two)
    assert (said.code, json.loads(said.out)["inputs"]) == (0, {"texts": 2, "tokens": 4})
    said = checked(SOLVED, "--attention", "sdpa", "--exact", "--json", "-")
    found = json.loads(said.out)
    assert (said.code, found["done"]) == (0, True)
    assert [run["way"] for run in found["others"]] == ["eager attention", "cached step"]


def test_what_it_prints_is_shown_and_a_flood_is_cut(checked: Checked):
    said = checked(short("print('hello there')"))
    assert "your file printed\n  hello there" in said.out
    begun = time.monotonic()
    said = checked("print('x' * 99)\n" + short("for _ in range(300_000): print('flood' * 5)"))
    assert len(said.out) < 5000
    assert "more characters are left out" in said.out
    assert time.monotonic() - begun < 20
    compiled = "torch.compile(lambda x: (x * 2).sin())(torch.ones(3))"
    assert "your file printed" not in checked(short(compiled)).out
    found = json.loads(checked(short("for _ in range(9000): print('flood' * 5)"), "--json", "-").out)
    assert len(found["output"]) == 4000
    assert found["output_lost"] == 9000 * 26 - 4000


def test_the_json_is_that_of_verify_and_more(checked: Checked, tmp_path: Path):
    said = checked(SOLVED, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert said.code == 0
    assert set(found) >= {
        "model", "environment", "attention", "inputs", "checkpoints", "summary", "first_divergence",
        "diagnosis", "coverage", "coupled", "next", "error", "steps", "not_tapped", "output", "notes",
    }  # fmt: skip
    assert found["next"] is None


# ------------------------------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("then", "verdict"),
    [
        ("tap('embeddings', (x + where).double())", "wrong dtype"),
        ("tap('embeddings', (x + where).long())", "wrong dtype"),
        ("tap('embeddings', (x + where)[0])", "wrong shape"),
        ("tap('embeddings', x * float('nan'))", "wrong values"),
    ],
    ids=["double", "integers", "shape", "nan"],
)
def test_a_matter_of_verdicts_is_exit_1(checked: Checked, tmp_path: Path, then: str, verdict: str):
    said = checked(short(then), "--json", "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (said.code, said.err) == (1, "")
    assert [c["verdict"] for c in found["checkpoints"] if c["name"] == "embeddings"] == [verdict]
    assert verdict in said.out


# ---------------------------------------------------------------------------------------- accidents


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def forward(:\n", "line 1, column 13: invalid syntax (the line is `def forward(:`)"),
        ("x = 1\n", "defines no function `forward(token_ids, mask, weights, config, tap)`"),
        ("\0", "is no Python file"),
        ("def forward(a, b, c, d, e): pass\n", "has to be forward(token_ids, mask, weights, config, tap)"),
        ("def forward(*a, **b): pass\n", "has to be forward(token_ids, mask, weights, config, tap)"),
        ("1 / 0\n", "mine.py, line 1: ZeroDivisionError: division by zero (the line is `1 / 0`)"),
        (short("raise ValueError('what?')"), "in forward: ValueError: what? (the line is `raise ValueError("),
        (short("x @ x"), "in forward: RuntimeError"),
        (short("exit()"), "in forward: it called exit()"),
        (short("import sys; sys.exit(3)"), "in forward: it called exit(3)"),
        (short("import os; os._exit(3)"), "its process ended with exit 3 before it was done"),
        (short("import os; os._exit(0)"), "its process ended with exit 0 before it was done"),
        (short("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), "it crashed (signal SIGSEGV)"),
        (short("raise KeyboardInterrupt"), "KeyboardInterrupt"),
        (short("tap('wte', x)"), "tap('wte', …) for the second time"),
        (short("tap('embedings', x)"), "no checkpoint of this name; did you mean 'embeddings'?"),
        (short("config.n_layers"), "no attribute 'n_layers'; did you mean 'n_layer'?"),
        (short("tap('embeddings', 3.5)"), "tap('embeddings', …) was given a float; it takes a tensor"),
        (short("tap('embeddings', x.tolist())"), "was given a list; it takes a tensor"),
        (short("tap('embeddings', x.to_sparse())"), "was given a sparse_coo tensor"),
        (short("tap(x, 'embeddings')"), "takes the name first"),
        (short("return 'done'"), "forward returned a str; it has to return the model's answer, a tensor"),
        (short("return [1, 2]"), "forward returned a list"),
        (short("import transformers"), "a rebuild cannot import transformers: it is held against it"),
        (short("from transformers import GPT2Model"), "a rebuild cannot import transformers"),
        (short("x = torch.load('nothing.pt')"), "FileNotFoundError"),
        (ELSEWHERE, "Tensor on device meta is not on the expected device cpu"),
    ],
    ids=[
        "syntax", "no forward", "zero byte", "another forward", "whatever", "at import", "raises",
        "torch raises", "exit",
        "sys.exit", "os._exit 3", "os._exit 0", "crash", "interrupt", "twice", "unknown name",
        "unknown field", "a float", "a list", "sparse", "turned round", "a string", "list returned",
        "transformers", "from transformers", "no such file", "another device",
    ],
)  # fmt: skip
def test_an_accident_is_one_line(refused: Callable[..., str], source: str, said: str):
    line = refused(source)
    assert said in line
    if source.startswith("\nimport torch") and "for the second time" not in said:
        assert "the last checkpoint that passed is wpe" in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"def forward(): pass\n\n# na\xefve\n", "mine.py is not UTF-8 (byte 25); save it as UTF-8"),
        (b"# -*- coding: latin-1 -*-\n\ndef forward(): pass  # na\xefve\n", ""),
        (b"\xef\xbb\xbfdef forward(): pass  # na\xc3\xafve\n", ""),
        (b"# -*- coding: klingon -*-\n", "mine.py is no Python file (unknown encoding: klingon)"),
    ],
)
def test_a_file_is_text_as_python_reads_it(source: bytes, said: str, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_bytes(source)
    if not said:
        assert learner_of(file).source == source
        return
    with pytest.raises(InputError) as refusal:
        learner_of(file)
    assert str(refusal.value) == said


FAILS = "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "defines no function `forward(token_ids, mask, weights, config, tap)`"),
        (FAILS, "line 3: Odd (the line is `raise Odd`)"),
        (
            short("return torch.zeros(1).expand(10**13)"),
            "it asked for too much memory, more than the limit of 4096 MB",
        ),
    ],
    ids=["an empty file", "an error without words", "an answer of nothing but a shape"],
)
def test_an_odd_accident_is_one_line(refused: Callable[..., str], source: str, said: str):
    assert said in refused(source)


def test_more_memory_than_any_machine_has_is_no_limit(checked: Checked):
    assert checked(short(), "--memory", 10**20).code == 1


@pytest.mark.parametrize("seconds", ["inf", "1e308", "1e10"])
def test_more_time_than_the_system_counts_is_no_limit(checked: Checked, seconds: str):
    said = checked(short(), "--seconds", seconds)
    assert (said.code, said.err) == (1, "")


def test_a_result_never_takes_the_place_of_what_is_read(bench: Bench, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(short(), encoding="utf-8")
    for command in (["check", file, "--model", MODEL], ["recheck", file], ["find", file, "--model", MODEL]):
        said = bench.run(*command, "--json", "./mine.py", folder=tmp_path)
        assert (said.code, said.out) == (2, "")
        assert "--json mine.py: that is the file that is read" in said.err
        assert file.read_text(encoding="utf-8") == short()


def test_what_was_right_before_an_accident_is_not_lost(checked: Checked):
    said = checked(short("import os; os.abort()"), "--json", "-")
    found = json.loads(said.out)
    assert said.code == 2
    assert [c["name"] for c in found["checkpoints"] if c["verdict"] == "bit-identical"] == ["wte", "wpe"]
    assert "crashed" in found["error"]


def test_a_forgotten_return_is_told_from_an_empty_step(refused: Callable[..., str]):
    line = refused(changed("    return F.softmax(scores, dim=-1)", "    F.softmax(scores, dim=-1)"))
    assert "probabilities returned nothing; is a `return` missing?" in line


def test_a_loop_without_an_end_is_stopped(refused: Callable[..., str]):
    assert "stopped after 1 s (--seconds)" in refused(short("while True: pass"), "--seconds", "1")


@pytest.mark.parametrize(
    "start",
    ["import subprocess; subprocess.Popen(['sleep', '300'])", "import os; os.fork() or os.setsid()"],
    ids=["a program", "a daemon"],
)
def test_no_other_process_is_started(refused: Callable[..., str], start: str):
    assert "it starts or calls another program" in refused(short(start))


def test_a_loop_while_it_is_read_is_stopped(refused: Callable[..., str]):
    assert "stopped after 1 s" in refused("while True: pass", "--seconds", "1")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit to memory holds on Linux only")
@pytest.mark.parametrize(
    "hungry",
    [
        "torch.ones(2_000_000_000)",
        "[bytearray(10_000_000) for _ in range(1000)]",
        "tap('embeddings', torch.zeros(1).expand(900_000_000))",
    ],
    ids=["torch", "python", "tapped"],
)
def test_eating_memory_is_stopped(refused: Callable[..., str], hungry: str):
    assert "too much memory, more than the limit of 700 MB (--memory)" in refused(
        short(f"y = {hungry}"), "--memory", "700"
    )


def test_global_state_is_the_files_own_affair(checked: Checked):
    """In a process of its own nothing that it changes reaches the comparison."""
    vandal = (
        "torch.set_default_dtype(torch.float64)\ntorch.set_num_threads(1)\ntorch.set_grad_enabled(True)\n"
        "torch.equal = torch.allclose = lambda *a, **k: True\ntorch.Tensor.all = lambda *a, **k: True\n"
        "tap('embeddings', x)"
    )
    said = checked(short(vandal), "--json", "-")
    found = json.loads(said.out)
    assert found["environment"]["dtype"] == "float32"
    assert [c["verdict"] for c in found["checkpoints"]][2] == "wrong values"


@pytest.fixture
def official_file(checked: Checked, bench: Bench) -> Path:
    if not (files := sorted((bench.store / ".captures").glob("*.safetensors"))):
        checked(short())
        files = sorted((bench.store / ".captures").glob("*.safetensors"))
    return files[0]


@pytest.mark.parametrize(
    "reading",
    [
        "open({file!r}, 'rb').read()",
        "__import__('os').open({file!r}, 0)",
        "__import__('safetensors').safe_open({file!r}, 'pt')",
        "__import__('safetensors.torch').torch.load_file({file!r})",
        "__import__('os').listdir({folder!r})",
        "list(__import__('pathlib').Path({folder!r}).iterdir())",
        "open('other.safetensors', 'rb')",
    ],
    ids=["open", "os.open", "safe_open", "load_file", "listdir", "iterdir", "another file"],
)
@pytest.mark.parametrize("caught", [False, True], ids=["", "swallowed"])
def test_reading_official_results_is_refused(
    refused: Callable[..., str], official_file: Path, reading: str, caught: bool
):
    line = reading.format(file=str(official_file), folder=str(official_file.parent))
    then = f"try:\n    y = {line}\nexcept Exception: pass" if caught else f"y = {line}"
    said = refused(short(then))
    assert "where official results are kept; compute it instead" in said or "one file of tensors" in said


def test_the_weight_file_may_be_read(checked: Checked):
    file = str(MODEL / "model.safetensors")
    reading = f"from safetensors.torch import load_file; x = load_file({file!r})['wte.weight']"
    assert checked(short(reading)).err == ""


def test_writing_into_the_weights_is_said(checked: Checked):
    said = checked(short("weights['wte.weight'].mul_(2)"))
    assert "your file wrote into the weights in memory: wte.weight" in said.out


def test_files_that_are_not_there(bench: Bench, tmp_path: Path):
    for name in ("nothing.py", "."):
        said = bench.run("check", name, "--model", MODEL, folder=tmp_path)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    (tmp_path / "mine.py").write_text(short(), encoding="utf-8")
    said = bench.run("check", "mine.py", "--model", MODEL, "--token-ids", "99999", folder=tmp_path)
    assert (said.code, said.out) == (2, "")
    assert "outside the vocabulary" in said.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_terabyte_where_the_file_should_be(bench: Bench, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.py")
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(2**40)
    for name, words in (("pipe.py", "is a pipe or a device"), ("huge.py", "has more than 5,000,000 bytes")):
        said = bench.run("check", name, "--model", MODEL, folder=tmp_path)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert words in said.err


def test_nothing_is_left_behind(checked: Checked, tmp_path: Path):
    checked(SOLVED)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]  # no byte code, no results


# ----------------------------------------------------------------------------------- a step that cannot be


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            '@step("lm_head", "ln_f")',
            '@step("lm_head", "ln_g")',
            "asks for 'ln_g', no checkpoint of this run; did you mean 'ln_f'?",
        ),
        (
            '@step("lm_head", "ln_f")',
            '@step("lm_head", "ln_f", "wte", "wpe")',
            "names 3 inputs, but head takes 2",
        ),
        (
            '@step("lm_head", "ln_f")',
            '@step("lm_haed", "ln_f")',
            "@step('lm_haed', …): there is no checkpoint of this name; did you mean 'lm_head'?",
        ),
    ],
    ids=["input", "count", "name"],
)
def test_a_step_that_cannot_be_tried_says_why(checked: Checked, before: str, after: str, said: str):
    found = checked(changed(before, after))
    assert said in found.out + found.err


# --------------------------------------------------------------------------------------- watching it


def test_watch_checks_again_and_ends_cleanly(tmp_path: Path, bench: Bench):
    file = tmp_path / "mine.py"
    file.write_text(short(), encoding="utf-8")
    command = [sys.executable, "-m", "llm_rebuild", "check", str(file), "--model", str(MODEL), "--watch"]
    environment = os.environ | {"LLM_REBUILD_STORE": str(bench.store), "COLUMNS": "100"}
    err = (tmp_path / "err").open("w")
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
    try:
        wait_for(tmp_path / "out", "2 of 72")
        wait_for(tmp_path / "err", "Ctrl+C ends it")
        file.write_text(short("tap('embeddings', x + where)"), encoding="utf-8")
        wait_for(tmp_path / "out", "3 of 72")
        file.write_text("def forward(:", encoding="utf-8")
        wait_for(tmp_path / "err", "line 1, column 13")
        file.unlink()
        wait_for(tmp_path / "err", "is not there; waiting for it")
        file.write_text(short() + "\n", encoding="utf-8")
        wait_for(tmp_path / "out", "2 of 72", times=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert (tmp_path / "err").read_text().endswith("llm-rebuild: stopped\n")
        assert "Traceback" not in (tmp_path / "err").read_text()
    finally:
        process.kill()
        process.wait()
        err.close()


def wait_for(file: Path, words: str, times: int = 1, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while file.read_text(encoding="utf-8").count(words) < times:
        assert time.monotonic() < end, file.read_text(encoding="utf-8")
        time.sleep(0.05)


def test_ctrl_c_stops_the_file_too(tmp_path: Path, bench: Bench):
    (tmp_path / "mine.py").write_text(
        short(f"import os\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\nwhile True: pass"),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "llm_rebuild", "check", "mine.py", "--model", str(MODEL)]
    environment = os.environ | {"LLM_REBUILD_STORE": str(bench.store)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    (tmp_path / "pid").touch()
    end = time.monotonic() + 60
    while not (tmp_path / "pid").read_text(encoding="utf-8") and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "llm-rebuild: stopped\n")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text(encoding='utf-8')}").exists()


# -------------------------------------------------------------------------------- a new Python, not a copy


def test_it_works_without_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench):
    """As on systems that have no fork server, and from Python."""
    from llm_rebuild.process import fork_server
    from llm_rebuild.verify import ask
    from llm_rebuild.workbench.check import check_file
    from llm_rebuild.workbench.session import Limits

    monkeypatch.setattr(fork_server, "COPIES", False)
    monkeypatch.setenv("LLM_REBUILD_STORE", str(bench.store))
    (tmp_path / "mine.py").write_text(SOLVED, encoding="utf-8")
    threads = torch.get_num_threads()
    found = check_file(tmp_path / "mine.py", ask(MODEL, "The baker of Oru"))
    assert found.exact
    assert torch.get_num_threads() == threads
    assert found.file == "mine.py"
    (tmp_path / "mine.py").write_text("print('x' * 9000); 1 / 0", encoding="utf-8")
    found = check_file(tmp_path / "mine.py", ask(MODEL, "The baker of Oru"))
    assert "ZeroDivisionError" in str(found.error)
    assert (len(found.output), found.lost) == (4000, 5001)
    (tmp_path / "mine.py").write_text("while True: pass", encoding="utf-8")
    found = check_file(tmp_path / "mine.py", ask(MODEL, "The baker of Oru"), limits=Limits(seconds=2))
    assert "stopped after 2 s" in str(found.error)


def test_a_mask_that_was_not_expanded_is_not_said_to_hold_another_number(checked: Checked):
    causal = """
    places = torch.arange(token_ids.shape[1])
    lowest = torch.finfo(torch.float32).min
    tap("embeddings", x + where)
    tap("mask", torch.where(places <= places[:, None], 0.0, {})[None, None])
"""
    said = checked(SHORT.format(then=causal.format("lowest"))).out
    assert "mask-padding-missing" in said
    assert "another number" not in said
    assert "another number" in checked(SHORT.format(then=causal.format("-7e20"))).out


def test_what_a_check_asks_twice_is_computed_once(tmp_path: Path, bench: Bench):
    counted = """
from llm_rebuild.diagnosis import explain
from llm_rebuild.workbench import runs
for module, name in (runs, "world_of"), (explain, "exact"):
    def said(*given, name=name, function=getattr(module, name), **named):
        print(name, file=sys.stderr)
        return function(*given, **named)
    setattr(module, name, said)
"""
    (tmp_path / "mine.py").write_text(changed("return product * power", "return product"), encoding="utf-8")
    variables = {"LLM_REBUILD_STORE": str(bench.store), warm.ARRANGED: counted}
    ended = warm.run("check", "mine.py", "--model", MODEL, folder=tmp_path, **variables)
    assert sorted(ended.stderr.split()) == ["exact", "exact", "world_of"]  # of the pass, and of the steps
