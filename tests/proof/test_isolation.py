"""What is official and reaches a rebuild is named; what is bridged is said; what is neither is left alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm_rebuild import verify
from llm_rebuild.cli import main as cli
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import Rebuild, rebuild_for
from llm_rebuild.models import minilm as model
from llm_rebuild.models.part import Batch
from llm_rebuild.process import fork_server
from llm_rebuild.proof import isolation
from llm_rebuild.proof.isolation import Isolated, Leak, run_watched
from llm_rebuild.verify.official import Official
from tests import tiny_bert

NAME = "encoder.layer.0.output.LayerNorm"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return tiny_bert.copy(tiny_bert.write(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def truth(tiny: LocalCopy) -> verify.Capture:
    return verify.capture(tiny, ["a b c d e", "f g"])


@pytest.fixture
def rebuild(tiny: LocalCopy) -> Rebuild:
    return rebuild_for(tiny.config)


def whole(rebuild: Rebuild):
    """The rebuild as it stands."""

    def forward(token_ids, mask, weights, tap):
        return model.forward(Batch(token_ids, mask), rebuild.part(weights, tap))

    return forward


def second_block_from(rebuild: Rebuild, x: Tensor | Callable[[], Tensor]):
    """A rebuild that is stuck in block 0 and goes on with `x`."""

    def forward(token_ids, mask, weights, tap):
        start = x if isinstance(x, Tensor) else x()
        start = start.reshape(2, -1, 16)
        part = rebuild.part(weights, tap)
        added = model.make_mask(mask, start, part) if start.shape[1] == mask.shape[1] else None
        model.block(start, added, part.at("encoder.layer.1"))

    return forward


def floats_of(integers: Tensor) -> Tensor:
    return integers.clone().view(torch.float32)


def kinds(run: Isolated) -> list[tuple[str, str]]:
    return [(leak.kind, leak.name) for leak in run.leaks]


@pytest.mark.parametrize("texts", [["a b c d e"], ["a b c d e", "f g"]], ids=["plain", "padded"])
def test_a_clean_rebuild_has_no_leaks(tiny: LocalCopy, rebuild: Rebuild, texts: list[str]):
    truth = verify.capture(tiny, texts)
    run = run_watched(whole(rebuild), tiny.weights(), truth)
    assert run.leaks == ()
    assert verify.judge(run.tensors, truth).exact


def test_the_real_rebuild_has_no_leaks(minilm: LocalCopy):
    truth = verify.capture(minilm, ["A first text.", "Another."])
    run = run_watched(whole(rebuild_for(minilm.config)), minilm.weights(), truth)
    assert run.leaks == ()
    assert verify.judge(run.tensors, truth).exact


@pytest.mark.parametrize(
    "disguise",
    [
        lambda x: x,
        lambda x: x.clone(),
        lambda x: x.reshape(-1),
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        lambda x: x.flip(0).flip(0),
        lambda x: x[:, :3],
        lambda x: x[:, :3].clone(),
        lambda x: torch.from_numpy(x.numpy().copy()),
        lambda x: torch.tensor(x.tolist()),
        lambda x: partial(floats_of, x.view(torch.int32).clone()),
    ],
    ids=[
        "itself",
        "clone",
        "reshaped",
        "transposed and back",
        "permuted",
        "permuted and back",
        "flipped and back",
        "slice",
        "cloned slice",
        "through numpy",
        "through a list",
        "as integers of the same bits",
    ],
)
def test_an_official_tensor_is_named_in_any_disguise(tiny: LocalCopy, truth, rebuild: Rebuild, disguise):
    run = run_watched(second_block_from(rebuild, disguise(truth[NAME].tensor)), tiny.weights(), truth)
    assert kinds(run) == [("interim tensor", NAME)]
    assert f"the official {NAME} went into the rebuild" in str(run.leaks[0])


def test_one_that_is_fetched_during_the_run_is_named(tiny: LocalCopy, truth, rebuild: Rebuild):
    run = run_watched(second_block_from(rebuild, lambda: truth[NAME].tensor), tiny.weights(), truth)
    assert kinds(run) == [("interim tensor", NAME)]


@pytest.mark.parametrize("how", ["safetensors", "torch", "bytes"])
def test_one_that_is_read_from_a_file_during_the_run_is_named(
    tiny: LocalCopy, truth, rebuild: Rebuild, tmp_path: Path, how: str
):
    x = truth[NAME].tensor
    torch.save(x, tmp_path / "x.pt")
    save_file({"x": x}, tmp_path / "x.safetensors")
    raw = torch.frombuffer(bytearray(x.numpy().tobytes()), dtype=torch.uint8)
    read = {
        "safetensors": lambda: load_file(tmp_path / "x.safetensors")["x"],
        "torch": lambda: torch.load(tmp_path / "x.pt", weights_only=True),
        "bytes": lambda: raw.view(torch.float32).view(x.shape),
    }
    run = run_watched(second_block_from(rebuild, read[how]), tiny.weights(), truth)
    assert kinds(run) == [("interim tensor", NAME)]


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_bridged_one_is_no_leak_and_the_report_says_coupled(
    tiny: LocalCopy, truth, rebuild: Rebuild, when: str
):
    x = truth.bridge(NAME) if when == "before" else lambda: truth.bridge(NAME)
    run = run_watched(second_block_from(rebuild, x), tiny.weights(), truth)
    assert run.leaks == ()
    report = verify.judge(run.tensors, truth)
    assert report.coupled == (NAME,)
    assert f"coupled at {NAME}" in str(report)
    assert report.to_json()["coupled"] == [NAME]


def test_a_bridged_one_under_its_other_name_is_no_leak(tiny: LocalCopy, rebuild: Rebuild):
    """Without padding `scores` holds the numbers of `scaled`. Who bridged the one has not taken the other."""
    truth = verify.capture(tiny, ["a b c d e"])
    scores = truth.bridge("encoder.layer.0.attention.self.scores")

    def forward(token_ids, mask, weights, tap):
        tap("encoder.layer.0.attention.self.probs", torch.softmax(scores, dim=-1))

    assert run_watched(forward, tiny.weights(), truth).leaks == ()


def test_bridging_one_does_not_excuse_another(tiny: LocalCopy, truth, rebuild: Rebuild):
    truth.bridge("embeddings.sum")
    run = run_watched(second_block_from(rebuild, truth[NAME].tensor), tiny.weights(), truth)
    assert kinds(run) == [("interim tensor", NAME)]


def test_live_weights_are_named(tiny: LocalCopy, truth, rebuild: Rebuild):
    live = dict(Official(tiny.folder).model.named_parameters())

    def forward(token_ids, mask, weights, tap):
        x = live["embeddings.word_embeddings.weight"][token_ids]
        tap("embeddings.word_embeddings", x)
        query = x @ live["encoder.layer.0.attention.self.query.weight"].T
        return query + live["encoder.layer.0.attention.self.query.bias"]

    run = run_watched(forward, tiny.weights(), truth)
    assert kinds(run) == [
        ("live weight", "embeddings.word_embeddings.weight"),
        ("live weight", "encoder.layer.0.attention.self.query.weight"),
        ("live weight", "encoder.layer.0.attention.self.query.bias"),
    ]
    assert "did not come from the weight file" in str(run.leaks[0])


def test_no_false_alarm_for_constants_and_for_numbers_of_its_own(tiny: LocalCopy, truth, rebuild: Rebuild):
    own = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(5))
    constants = [
        torch.zeros(2, 7, 16),
        torch.ones(16),
        torch.tensor(0.25),
        torch.arange(12.0),
        torch.tensor(range(2 * 7 * 16)),
        truth["mask"].tensor,  # 0 and the lowest float: anybody's mask has these numbers
        torch.tensor([[0.0, torch.finfo(torch.float32).min]]).expand(8, 2),
    ]

    def forward(token_ids, mask, weights, tap):
        whole(rebuild)(token_ids, mask, weights, tap)
        for constant in (*constants, own):
            constant + 1

    assert run_watched(forward, tiny.weights(), truth).leaks == ()


def test_a_leak_is_told_once(tiny: LocalCopy, truth):
    x = truth[NAME].tensor

    def forward(token_ids, mask, weights, tap):
        x + 1, x * 2, x - 3

    assert run_watched(forward, tiny.weights(), truth).leaks == (Leak("interim tensor", NAME, "add"),)


# ----------------------------------------------------------------------------- one memory, two names


@pytest.mark.parametrize(
    "window",
    [
        lambda x: x,
        lambda x: x.transpose(1, 2),
        lambda x: x[:, 2:],
        lambda x: torch.from_numpy(x.numpy()[:, 3:]),  # another storage, as torch sees it
    ],
    ids=["itself", "transposed", "slice", "slice through numpy"],
)
def test_a_rebuilt_tensor_in_an_official_ones_memory_is_refused_by_both_names(truth, window):
    rebuilt = {"embeddings.sum": window(truth.tensors[NAME])}
    with pytest.raises(InputError, match=f"rebuilt embeddings.sum lies in .* the official {NAME}: "):
        verify.judge(rebuilt, truth)


def test_two_rebuilt_tensors_may_be_views_of_one(tiny: LocalCopy, truth, rebuild: Rebuild):
    tensors = dict(run_watched(whole(rebuild), tiny.weights(), truth).tensors)
    path = "encoder.layer.0.attention.self"
    assert verify.compare(tensors[f"{path}.context"], truth[f"{path}.context"])
    whole_of = torch.cat([tensors["embeddings.sum"].flatten(), tensors["embeddings.LayerNorm"].flatten()])
    one, other = whole_of.reshape(2, *tensors["embeddings.sum"].shape)
    tensors |= {"embeddings.sum": one, "embeddings.LayerNorm": other}
    assert verify.judge(tensors, truth).exact


def test_everything_from_the_bridge_on_is_marked(tiny: LocalCopy, truth, rebuild: Rebuild):
    run = run_watched(whole(rebuild), tiny.weights(), truth)
    assert not any(v.coupled for v in verify.judge(run.tensors, truth).verdicts)
    truth.bridge(NAME)
    report = verify.judge(run.tensors, truth)
    before = list(truth).index(NAME)
    assert [v.coupled for v in report.verdicts] == [n >= before for n in range(len(truth))]
    assert [c["coupled"] for c in report.to_json()["checkpoints"]] == [v.coupled for v in report.verdicts]
    shown = str(report).splitlines()
    assert sum("bit-identical, coupled" in line for line in shown) == len(truth) - before
    assert shown[-1].endswith(f"bit-identical, {len(truth) - before} coupled (tiny, eager attention)")
    missing = verify.judge({}, truth)
    assert not any(v.coupled for v in missing.verdicts)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.5 * x,
        lambda x: 1 - x,
        lambda x: x.tanh(),
        lambda x: x.half().float(),
        lambda x: x.clamp(min=0),
        lambda x: x * x,
        torch.nn.functional.gelu,
    ],
    ids=["scaled", "mirrored", "tanh", "rounded", "relu", "squared", "gelu"],
)
def test_a_function_of_an_official_tensor_is_named(tiny: LocalCopy, truth, rebuild: Rebuild, function):
    run = run_watched(second_block_from(rebuild, function(truth[NAME].tensor)), tiny.weights(), truth)
    assert run.leaks == (Leak("interim tensor", NAME, run.leaks[0].operation, derived=True),)
    assert f"a function of the official {NAME} went into the rebuild" in str(run.leaks[0])


def test_a_function_of_a_bridged_tensor_is_no_leak(tiny: LocalCopy, truth, rebuild: Rebuild):
    scaled = 0.5 * truth.bridge(NAME)
    assert run_watched(second_block_from(rebuild, scaled), tiny.weights(), truth).leaks == ()


# ------------------------------------------------------------------------------ a process of its own


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have the process of the rebuild import a copy of the package in which minilm.py is changed."""
    package = Path(model.__file__).parents[1]

    def change(before: str, after: str) -> None:
        shutil.copytree(package, tmp_path / "llm_rebuild", ignore=shutil.ignore_patterns("miniatures"))
        file = tmp_path / "llm_rebuild" / "models" / "minilm.py"
        source = file.read_text(encoding="utf-8")
        assert before in source
        file.write_text(source.replace(before, after), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)  # which the process gets as its own path
        monkeypatch.setattr(fork_server, "COPIES", False)  # where the package is loaded already

    return change


@pytest.mark.parametrize(("name", "attention"), [("gpt2", "sdpa"), ("t5-small", "eager")])
def test_isolated_gives_the_same_bits_and_the_report_says_so(name: str, attention: str):
    copy = LocalCopy(name, MINIATURES / name, "miniature")
    options = {"texts": ["the cook has a lamp", "the baker"], "attention": attention, "coverage": False}
    here = verify.prove(copy, **options)
    apart = isolation.prove_isolated(copy, **options)
    assert list(apart.rebuilt) == list(here.rebuilt)
    assert all(torch.equal(tensor, apart.rebuilt[key]) for key, tensor in here.rebuilt.items())
    assert (apart.report.isolated, apart.report.leaks, apart.report.exact) == (True, (), True)
    assert "0 leaks" in " ".join(str(apart.report).split())
    assert (here.report.to_json()["isolated"], here.report.to_json()["leaks"]) == (False, None)
    assert (apart.report.to_json()["isolated"], apart.report.to_json()["leaks"]) == (True, [])


@pytest.mark.parametrize("module", ["transformers", "llm_rebuild.verify.official"])
def test_a_rebuild_that_imports_something_official_is_refused(tiny: LocalCopy, changed, module: str):
    changed("    x = word + token_type", f"    import {module}\n    x = word + token_type")
    with pytest.raises(InputError, match=r"^the rebuild imports [\w.]+, which a rebuild has to do without$"):
        isolation.prove_isolated(tiny, ["a b c"], coverage=False)


def test_another_file_of_tensors_is_refused(tiny: LocalCopy, truth, changed, tmp_path: Path):
    truth.save(tmp_path / "truth.safetensors")
    load = f"safe_open({str(tmp_path / 'truth.safetensors')!r}, 'pt').get_tensor('checkpoint/{NAME}')"
    changed("    x = word + token_type", f"    from safetensors import safe_open\n    x = {load} + 0")
    with pytest.raises(InputError, match=r"^it reads truth.safetensors; a rebuild reads one file of tensors"):
        isolation.prove_isolated(tiny, ["a b c d e", "f g"], coverage=False)


@pytest.mark.parametrize(
    "use",
    ["x = stolen + 0", "part.tap('word_and_type', stolen); x = word + token_type"],
    ids=["in a sum", "tapped"],
)
def test_official_numbers_that_come_in_by_another_way_are_named(
    tiny: LocalCopy, truth, changed, tmp_path: Path, use: str
):
    (tmp_path / "raw").write_bytes(truth[NAME].tensor.numpy().tobytes())
    raw = f"bytearray(open({str(tmp_path / 'raw')!r}, 'rb').read())"
    stolen = f"torch.frombuffer({raw}, dtype=torch.float32).view(2, 7, 16)"
    changed("    x = word + token_type", f"    stolen = {stolen}\n    {use}")
    report = isolation.prove_isolated(tiny, ["a b c d e", "f g"], coverage=False).report
    assert len(report.leaks) == 1
    assert f"the official {NAME} went into the rebuild" in report.leaks[0]
    assert not report.passed
    assert report.leaks[0] in " ".join(str(report).split())


def test_a_process_that_dies_ends_in_one_line(tiny: LocalCopy, changed):
    changed("    x = word + token_type", "    import os\n    os.kill(os.getpid(), 9)")
    with pytest.raises(InputError, match="ended by signal SIGKILL, as happens when memory runs out"):
        isolation.run_apart(verify.ask(tiny, ["a"]))


def test_a_rebuild_that_fails_there_is_no_input_error(tiny: LocalCopy, changed):
    changed("    x = word + token_type", "    x = word @ token_type")
    with pytest.raises(RuntimeError, match="failed in its process"):
        isolation.run_apart(verify.ask(tiny, ["a"]))


def test_the_command_line(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path))
        monkeypatch.setattr("sys.argv", ["llm-rebuild", "verify", str(tiny.folder), *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    code, out, _ = run("--text", "a b", "--isolated", "--exact")
    assert code == 0
    assert "isolated: the rebuild ran in a process of its own" in out
    code, _, err = run("--steps", "2", "--isolated")
    assert (code, err) == (2, "llm-rebuild: --isolated serves a single pass; leave --steps out\n")
