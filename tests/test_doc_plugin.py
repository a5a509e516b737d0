"""The doc plugin: no kind of snippet escapes it, and it does what it says."""

# ruff: noqa: E501 — the pages are strings
from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch  # imported here, once: pytester forgets what a run inside it imports

from llm_rebuild.copies import hub as fetching
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from tests import doc_plugin
from tools import fences, portable

FIXTURE = Path(__file__).parent / "fixtures" / "escaping_snippets.md"
CASE = re.compile(r"^=====  (runs|refused): (.+)$", re.M)


def cases() -> list[tuple[str, str, str]]:
    _, *parts = CASE.split(FIXTURE.read_text(encoding="utf-8"))
    return list(zip(parts[0::3], parts[1::3], parts[2::3], strict=True))


@pytest.fixture
def pages(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with the doc plugin and no pages yet, where outputs are compared."""
    monkeypatch.setattr(portable, "in_force", lambda: True)
    pytester.makeini("[pytest]\nstrict = true\n")
    pytester.path.joinpath("mkdocs.yml").write_text("site_name: x\n")
    return pytester


def run(pages: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pages.runpytest_inprocess(
        "-p", "tests.doc_plugin", "--codeblocks", "-p", "no:cacheprovider", *args
    )


def page(pages: pytest.Pytester, text: str, name: str = "page.md") -> Path:
    path = pages.path / name
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------- nothing escapes


def test_no_kind_of_snippet_escapes(pages: pytest.Pytester) -> None:
    """Each case of the fixture has a fault in it. Each must be found, as a failure or as a refusal."""
    page(pages, "1 / 0\n", "part.py")
    page(pages, "first = 1\n# --8<-- [start:second]\n1 / 0\n# --8<-- [end:second]\n", "sections.py")
    folder = pages.mkdir("pages")
    (pages.path / "fence.md").write_text("```python\n1 / 0\n```\n")
    expected = {}
    for number, (kind, name, text) in enumerate(cases()):
        (folder / f"{number:03d}.md").write_text(f"# {name}\n\n{text}", encoding="utf-8")
        expected[f"pages/{number:03d}.md"] = (kind, name)

    reports = dict.fromkeys(expected, "nothing")
    recorder = pages.inline_run(
        "-p",
        "tests.doc_plugin",
        "--codeblocks",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
        "pages",
    )
    for report in recorder.getreports(["pytest_collectreport", "pytest_runtest_logreport"]):
        file = report.nodeid.partition("::")[0]
        if isinstance(report, pytest.CollectReport) and report.failed:
            reports[file] = "refused"
            assert re.match(rf"{re.escape(file)}:\d+: ", str(report.longrepr)), report.longrepr
        elif report.failed:
            reports[file] = "runs"
        elif report.skipped:
            reports[file] = "skipped"

    wrong = [f"{expected[path]} → {reports[path]}" for path in expected if expected[path][0] != reports[path]]
    assert not wrong
    assert len(expected) >= 100


def test_a_good_page_passes_and_each_fence_is_a_test(pages: pytest.Pytester) -> None:
    page(
        pages,
        "# x\n\n```python\nx = 1\n```\n\nProse.\n\n``` { .py .annotate }\nprint(x + 1)\n```\n\n```text\n2\n```\n\n"
        "```sh\necho one\n```\n\n```text\none\n```\n\n```console\n$ make course\n```\n\n```json\n{}\n```\n",
    )
    result = run(pages, "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["page.md::line 3 PASSED*", "page.md::line 9 PASSED*", "page.md::line 17 PASSED*"]
    )


def test_the_readme_is_a_page(pages: pytest.Pytester) -> None:
    page(pages, "```python\n1 / 0\n```\n", "README.md")
    run(pages).assert_outcomes(failed=1)


def test_without_the_engine_nothing_starts(pages: pytest.Pytester) -> None:
    page(pages, "```python\n1 / 0\n```\n")
    result = pages.runpytest_inprocess("-p", "tests.doc_plugin")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--codeblocks*"])


def test_where_the_engine_reads_other_blocks_than_the_site(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("```python\nx = 1\n```\n")
    good = fences.read_page(path)
    assert not doc_plugin.engine_problems(path, good)
    good.fences[0].code = "x = 2\n"
    assert doc_plugin.engine_problems(path, good)[0].line == 1
    good.fences.clear()
    assert doc_plugin.engine_problems(path, good)[0].line == 1


# --------------------------------------------------------------------------------------------- the namespace


def test_one_namespace_a_page_in_a_real_main_module(pages: pytest.Pytester) -> None:
    code = [
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass Box:\n    size: Int\n",
        "import inspect\nimport pickle\n\n\ndef double(x: Int):\n    return x * 2\n\n\nbox = pickle.loads(pickle.dumps(Box(3)))",
        "assert double(box.size) == 6\nassert __name__ == '__main__'\nassert pickle.loads(pickle.dumps(double)) is double",
        "print(inspect.getsource(double))",
    ]
    shown = "def double(x: Int):\n    return x * 2"
    text = "\n\n".join(f"```python\n{part}\n```" for part in code) + f"\n\n```text\n{shown}\n```\n"
    page(pages, text)
    page(pages, "```python\nassert 'Box' not in globals()\n```\n", "zz.md")
    run(pages).assert_outcomes(passed=5)


def test_an_indented_fence_has_the_page_s_lines(pages: pytest.Pytester) -> None:
    page(pages, "!!! note\n\n    ```python\n    x = 1\n\n    if x:\n        1 / 0\n    ```\n")
    result = run(pages)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["page.md:7: ZeroDivisionError*", ">*7 |     1 / 0", '*File "page.md", line 7, in <module>', "*~~^~~"]
    )


def test_a_failure_shows_traceback_source_and_output(pages: pytest.Pytester) -> None:
    page(pages, "```python\ndef f(d):\n    return d['k']\n```\n\n```python\nprint('so far')\nf({})\n```\n")
    result = run(pages)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "page.md:8: KeyError: 'k'",
            "*7 | print('so far')",
            ">*8 | f({})",
            "Traceback*",
            '  File "page.md", line 8, in <module>',
            '  File "page.md", line 3, in f',
            "    return d['k']",
            "*Captured stdout*",
            "so far",
        ]
    )
    assert "doc_plugin" not in result.stdout.str()


def test_a_failure_in_an_included_file_shows_its_lines(pages: pytest.Pytester) -> None:
    page(pages, "x = 0\n1 / x\n", "part.py")
    page(pages, '```python\n--8<-- "part.py"\n```\n')
    result = run(pages)
    result.stdout.fnmatch_lines(["page.md:1: ZeroDivisionError*", ">*2 | 1 / x"])


def test_behind_a_failure_the_page_stops_and_says_where(pages: pytest.Pytester) -> None:
    page(
        pages,
        "```python\nprint(1)\n```\n\n```python\n1 / 0\n```\n\n```python\nx = 1\n```\n\n```sh\ntrue\n```\n",
    )
    result = run(pages)
    result.assert_outcomes(failed=4)  # the first for its output, which stops nothing
    result.stdout.fnmatch_lines(
        [
            "page.md:6: ZeroDivisionError*",
            "page.md:9: not run, because the fence on line 5 failed:",
            "    page.md:6: ZeroDivisionError*",
            "page.md:13: not run, because the fence on line 5 failed:",
        ]
    )


def test_one_fence_by_its_id_runs_those_before_it(pages: pytest.Pytester) -> None:
    page(pages, "```python\nx = 1\n```\n\n```python\nx += 1\n```\n\n```python\nassert x == 2\n```\n")
    run(pages, "page.md::line 9").assert_outcomes(passed=1)
    run(pages, "-k", "line and 9").assert_outcomes(passed=1, deselected=2)
    page(pages, "```python\n1 / 0\n```\n\n```python\nx = 2\n```\n")
    result = run(pages, "page.md::line 5")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["page.md:5: not run, because the fence on line 1 failed:", "*ZeroDivisionError*"]
    )


def test_in_another_order_each_fence_still_runs_once(pages: pytest.Pytester) -> None:
    page(
        pages,
        "```python\nruns = 0\n```\n\n```python\nruns += 1\n1 / (runs - 1)\n```\n\n```python\nx = 1\n```\n",
    )
    pages.makeconftest("def pytest_collection_modifyitems(items):\n    items.reverse()\n")
    run(pages).assert_outcomes(passed=1, failed=2)


# ------------------------------------------------------------------------------------------------- the state


STATE = """\
```python
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

assert torch.initial_seed() == 0
assert torch.get_default_dtype() == torch.float32
assert torch.get_num_threads() == 2
assert torch.is_grad_enabled()
for name, value in {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COLUMNS": "80", "NO_COLOR": "1"}.items():
    assert os.environ[name] == value
assert os.environ["TERM"] == "dumb"
assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
assert not list(Path.cwd().iterdir())
assert "LEFT_BEHIND" not in os.environ
assert "left_behind" not in sys.modules
numbers = (random.random(), float(np.random.rand()), float(torch.rand(())))
assert numbers == (0.8444218515250481, 0.5488135039273248, 0.49625658988952637)
```

```python
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.set_grad_enabled(False)
torch.set_printoptions(precision=2)
os.environ["LEFT_BEHIND"] = "1"
os.environ["HOME"] = "/nowhere"
Path("left_behind.py").write_text("x = 1")
```

```python
import left_behind

assert torch.get_default_dtype() == torch.float64
assert not torch.is_grad_enabled()
assert Path("left_behind.py").exists() and left_behind.x == 1
sys.stdout = None
```

```sh
echo "$COLUMNS"
ls *.py
command -v python
```
"""


def test_each_page_begins_in_the_same_state_and_leaves_none(pages: pytest.Pytester) -> None:
    text = STATE + f"\n```text\n80\nleft_behind.py\n{Path(sys.executable).parent / 'python'}\n```\n"
    page(pages, text, "a.md")
    page(pages, text, "b.md")
    before = dict(os.environ)
    torch.manual_seed(99)
    torch.rand(1)
    state, threads, cwd, main = (
        torch.get_rng_state(),
        torch.get_num_threads(),
        Path.cwd(),
        sys.modules["__main__"],
    )
    result = run(pages)
    result.assert_outcomes(passed=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert Path.cwd() == cwd
    assert sys.modules["__main__"] is main
    assert "left_behind" not in sys.modules
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"
    }


# ------------------------------------------------------------------------------------------------- the output


def test_what_is_printed_by_print_by_children_and_by_c_is_the_output(pages: pytest.Pytester) -> None:
    page(
        pages,
        "```python\nimport os\nimport subprocess\nimport sys\n\nprint('é first  ')\nsubprocess.run(['echo', 'second'])\n"
        "os.write(1, b'third\\n')\nprint('to stderr', file=sys.stderr)\nkept = sys.stdout\nprint()\n```\n\n"
        "```text\né first\nsecond\nthird\n```\n\n```python\nprint('fourth', file=kept)\n```\n\n```text\nfourth\n```\n",
    )
    run(pages).assert_outcomes(passed=2)


def test_a_wrong_output_is_shown_as_a_difference(pages: pytest.Pytester) -> None:
    page(pages, "```python\nprint('same')\nprint('new')\n```\n\n```text\nsame\nold\n```\n")
    result = run(pages)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["page.md:6: not what the fence on line 1 printed", "--- page.md:6 shows", "+++ page.md:1 printed",
         " same", "-old", "+new", "*--update-output*"]
    )  # fmt: skip


def test_a_hidden_fence_may_print_and_its_output_may_be_shown(pages: pytest.Pytester) -> None:
    page(pages, "<!--\n```python\nprint('set up')\n```\n-->\n\nProse.\n\n```python\nx = 1\n```\n")
    run(pages).assert_outcomes(passed=2)
    page(pages, "<!--\n```python\nprint('a table')\n```\n-->\n\n```text\nanother table\n```\n")
    run(pages).assert_outcomes(failed=1)


def test_update_output_writes_every_output_of_a_page(pages: pytest.Pytester) -> None:
    old = (
        "# x\n\n```python\nprint('a')\nprint()\nprint('b')\n```\n\n```text title=\"Out\"\nold\n```\n\n!!! note\n\n"
        "    ```python\n    print('one')\n    print()\n    print('  two')\n    ```\n\n    ```text\n    old\n    older\n"
        "    ```\n\nProse.\n\n```sh\necho three\n```\n\nMore.\n\n```python\nprint('```')\n```\n\n```text\nx\n```\n"
    )
    new = (
        "# x\n\n```python\nprint('a')\nprint()\nprint('b')\n```\n\n```text title=\"Out\"\na\n\nb\n```\n\n!!! note\n\n"
        "    ```python\n    print('one')\n    print()\n    print('  two')\n    ```\n\n    ```text\n    one\n\n      two\n"
        "    ```\n\nProse.\n\n```sh\necho three\n```\n\n```text\nthree\n```\n\nMore.\n\n```python\nprint('```')\n```\n\n"
        "````text\n```\n````\n"
    )
    path = page(pages, old)
    run(pages).assert_outcomes(failed=4)
    assert path.read_text() == old
    result = run(pages, "--update-output")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["page.md: 4 outputs rewritten"])
    assert path.read_text() == new
    run(pages).assert_outcomes(passed=4)
    run(pages, "--update-output").assert_outcomes(passed=4)
    assert path.read_text() == new


def test_update_output_keeps_windows_line_ends_and_does_not_hide_a_failure(pages: pytest.Pytester) -> None:
    path = pages.path / "page.md"
    path.write_bytes(
        b"```python\r\nprint(1)\r\n```\r\n\r\n```text\r\n2\r\n```\r\n\r\n```python\r\n1 / 0\r\n```\r\n"
    )
    run(pages, "--update-output").assert_outcomes(passed=1, failed=1)
    assert path.read_bytes().startswith(b"```python\r\nprint(1)\r\n```\r\n\r\n```text\r\n1\r\n```\r\n")
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")


def test_update_output_leaves_a_text_that_nothing_printed(pages: pytest.Pytester) -> None:
    path = page(pages, "```python\nx = 1\n```\n\n```text\na tree\n```\n")
    run(pages, "--update-output").assert_outcomes(failed=1)
    assert "a tree" in path.read_text()


def test_a_shell_fence_shows_its_status_and_what_it_said(pages: pytest.Pytester) -> None:
    page(pages, "```sh\necho trouble >&2\nexit 3\n```\n")
    result = run(pages)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["page.md:1: exit status 3", "*trouble*"])


# -------------------------------------------------------------------------------------------------- the cost


def test_a_page_of_many_fences_costs_little(pages: pytest.Pytester) -> None:
    """200 fences: well under 10 ms each, on a machine that does other things as well."""
    page(pages, "\n".join(f"```python\nprint({n})\n```\n\n```text\n{n}\n```\n" for n in range(200)))
    start = time.perf_counter()
    run(pages, "-q").assert_outcomes(passed=200)
    seconds = time.perf_counter() - start
    print(f"200 fences: {seconds:.2f} s")
    assert seconds < 2 * 10


# ------------------------------------------------------------------------------------------------ the models

USES_GPT2 = """\
```python
from llm_rebuild.copies import local_copy

print(local_copy.get("gpt2").source)
```

```text
miniature
```
"""


def test_outputs_are_compared_only_with_the_kernels_that_made_them(
    pages: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "in_force", lambda: False)
    path = page(pages, "```python\nprint(0.1 + 0.2)\n```\n\n```text\n0.3\n```\n")
    result = run(pages, "--update-output")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["page.md: every fence ran, and no output was compared*"])
    assert "0.3\n" in path.read_text(encoding="utf-8")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty store, and neither the hub nor the package registry."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def a_real_copy(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on every model is a real one from the hub."""

    def get(name: str, **options: object) -> LocalCopy:
        return LocalCopy(name, folder, "hub", "607a30d")

    monkeypatch.setattr(local_copy, "get", get)


@pytest.mark.usefixtures("no_network")
def test_a_page_that_needs_a_model_is_skipped_by_name_where_it_is_not_to_be_had(
    pages: pytest.Pytester,
) -> None:
    page(pages, "---\nneeds: minilm\n---\n\n```python\n1 / 0\n```\n\n```sh\nexit 1\n```\n")
    page(pages, "<!-- needs: gpt2 -->\n# x\n\n```python\n1 / 0\n```\n", "README.md")
    page(pages, "```python\nx = 1\n```\n", "zz.md")
    result = run(pages, "-rs")
    result.assert_outcomes(skipped=3, passed=1)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*page.md needs the real minilm: minilm is not in the store*`llm-rebuild download minilm`*",
            "SKIPPED*README.md needs the real gpt2: gpt2 is not in the store*`llm-rebuild download gpt2`*",
        ]
    )


def test_a_page_that_needs_a_model_runs_where_it_is(
    pages: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_real_copy(monkeypatch, pages.path)
    page(pages, "---\nneeds: [minilm, gpt2]\n---\n\n```python\n1 / 0\n```\n")
    run(pages).assert_outcomes(failed=1)


def test_a_copy_that_is_there_and_broken_is_a_failure_and_no_skip(
    pages: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "store" / "minilm").mkdir(parents=True)
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    page(pages, "---\nneeds: minilm\n---\n\n```python\nx = 1\n```\n")
    result = run(pages)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*page.md needs the real minilm: *provenance.json*"])


@pytest.mark.usefixtures("no_network")
def test_numbers_are_compared_on_the_copy_that_made_them(pages: pytest.Pytester) -> None:
    page(pages, f"---\nnumbers: gpt2 miniature\n---\n\n{USES_GPT2}")
    result = run(pages)
    result.assert_outcomes(passed=1)
    assert "were made on" not in result.stdout.str()
    page(pages, f"---\nnumbers: gpt2 miniature\n---\n\n{USES_GPT2}".replace("\nminiature", "\nhub"))
    run(pages).assert_outcomes(failed=1)


def test_numbers_are_not_compared_on_another_copy_and_the_summary_says_so(
    pages: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_real_copy(monkeypatch, pages.path)
    path = page(pages, f"---\nnumbers: t5-small real, gpt2 miniature\n---\n\n{USES_GPT2}")
    text = path.read_text()
    for options in ([], ["--update-output"]):
        result = run(pages, *options)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            ["page.md: its outputs were made on gpt2 miniature, and gpt2 is the real one from the hub here*"]
        )
    assert path.read_text() == text
    page(pages, "---\nnumbers: gpt2 miniature\n---\n\n```python\nprint(1)\n1 / 0\n```\n")
    run(pages).assert_outcomes(failed=1)  # it runs all the same


@pytest.mark.usefixtures("no_network")
def test_numbers_of_the_real_model_are_not_compared_on_the_miniature(pages: pytest.Pytester) -> None:
    page(pages, f"---\nnumbers: gpt2 real\n---\n\n{USES_GPT2}".replace("\nminiature", "\nhub"))
    result = run(pages)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["page.md: its outputs were made on gpt2 real, and gpt2 is the miniature*"])


def test_a_page_goes_to_no_hub_and_no_registry(
    pages: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the environment around the tests says, a page's `get` goes straight to the miniature."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    def check_hub(*args: object) -> None:
        raise AssertionError("a page asked the hub")

    monkeypatch.setattr(fetching, "check_hub", check_hub)
    page(pages, f"{USES_GPT2}\n```python\nimport os\n\nassert os.environ['PIP_NO_INDEX'] == '1'\n```\n")
    run(pages).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "head",
    [
        "---\nneeds: minillm\n---\n",
        "---\nneeds:\n---\n",
        "---\nneed: minilm\n---\n",
        "---\nNeeds: minilm\n---\n",
        "---\nneeds: {minilm: 1}\n---\n",
        "---\nnumbers: gpt2\n---\n",
        "---\nnumbers: miniature\n---\n",
        "---\nnumbers: gpt2 miniatur\n---\n",
        "---\nnumbers: gpt miniature\n---\n",
        "---\nnumbers: [gpt2 miniature, t5]\n---\n",
        "---\n- needs\n---\n",
        "---\nneeds: [minilm\n---\n",
        "# x\n<!-- needs: minilm -->\n",
        "<!-- needs: mini -->\n",
        "---\ntitle: x\n---\n<!-- numbers: gpt2 miniature -->\n",
    ],
)
def test_front_matter_that_would_be_ignored_is_refused(pages: pytest.Pytester, head: str) -> None:
    page(pages, f"{head}\n```python\nx = 1\n```\n")
    result = run(pages)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["page.md:[1-9]: *"])


def test_front_matter_that_only_the_site_reads(pages: pytest.Pytester) -> None:
    page(pages, "---\ntitle: x\nhide:\n  - toc\n---\n\n```python\nx = 1\n```\n")
    run(pages).assert_outcomes(passed=1)
