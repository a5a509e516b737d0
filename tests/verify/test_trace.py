"""A trace holds everything that was computed, as it was when it was computed."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.trace import trace
from tests.models import small

IDS = [[5, 17, 3, 44, 9], [11, 5, 8]]


@pytest.fixture(scope="module", params=["bert", "gpt2", "t5"])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    config = {"bert": small.BERT, "gpt2": small.GPT2, "t5": small.T5}[request.param]
    return small.model(tmp_path_factory.mktemp("models") / request.param, config)


@pytest.fixture(scope="module")
def taken(copy: LocalCopy) -> Trace:
    return trace(copy, token_ids=IDS)


@pytest.fixture(scope="module")
def truth(copy: LocalCopy) -> Capture:
    return verify.capture(copy, token_ids=IDS)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "gpt2", small.GPT2)


class Counting(TorchDispatchMode):
    """An independent count of floating results that are no views and no copies."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[torch.Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and not name.startswith(("_unsafe_view", "clone", "empty", "new_empty")):
            outputs = result if isinstance(result, tuple | list) else (result,)
            self.results += [o.clone() for o in outputs if torch.is_tensor(o) and o.is_floating_point()]
        return result


def test_everything_that_is_computed_is_there_in_order(copy: LocalCopy, taken: Trace):
    question, official = verify.ask(copy, token_ids=IDS), Official(copy.folder)
    with Counting() as counting:
        official.run(question)
    computed = [entry.value for entry in taken.computed() if entry.operation != "clone"]
    assert len(computed) == len(counting.results) > 40
    assert all(torch.equal(a.flatten(), b.flatten()) for a, b in zip(computed, counting.results, strict=True))


def test_every_checkpoint_is_an_entry_with_its_numbers(truth: Capture, taken: Trace):
    names = taken.names()
    assert [name for name in truth if name not in names] == []
    assert all(torch.equal(taken[name].value, truth.tensors[name]) for name in truth)
    assert list(taken.checkpoints) == list(truth)
    marked = {entry.checkpoint for entry in taken if entry.checkpoint}
    assert marked <= set(truth)
    assert {taken[name].number for name in marked} == set(taken.checkpoints.values())


def test_names_say_where_and_how_often(gpt2: LocalCopy):
    taken = trace(gpt2, token_ids=IDS)
    probs = taken["h.1.attn.softmax[0]"]
    assert (probs.call, probs.operation) == (("softmax", "h.1.attn", 0), "_softmax")
    assert probs.checkpoint == "h.1.attn.probs"
    assert probs.value.shape == (2, 4, 5, 5)
    assert [taken.nodes[n].checkpoint for n in probs.inputs] == ["h.1.attn.scores"]
    assert [taken[f"h.0.mlp.act.mul[{n}]"].call[2] for n in range(4)] == [0, 1, 2, 3]
    assert [m.name for m in taken["h.0.mlp.c_proj"].returned] == ["h.0.mlp.c_proj", "h.0.mlp"]
    assert "h.0.attn.resid_dropout" not in taken.names()  # it hands on what it was given
    assert len({entry.name for entry in taken}) == len(list(taken))
    with pytest.raises(InputError, match=r"has no tensor 'h\.9'"):
        taken["h.9"]


def test_a_view_says_what_it_shows_and_is_not_copied(gpt2: LocalCopy):
    taken = trace(gpt2, token_ids=IDS)
    keys = taken["h.0.attn.split[0].1"]
    shown = taken.nodes[keys.base]
    assert shown.name == "h.0.attn.c_attn.addmm[0]"
    assert torch.equal(keys.value, taken["h.0.attn.c_attn"].value[..., 24:48])
    storages = {e.value.untyped_storage().data_ptr() for e in (keys, shown)}
    assert len(storages) == 1


def test_the_model_is_left_as_it_was(gpt2: LocalCopy):
    question, official = verify.ask(gpt2, token_ids=IDS), Official(gpt2.folder)
    before = official.run(question)["logits"]
    taken = trace(question, official=official)
    assert torch.equal(taken["lm_head"].value, before)
    assert torch.equal(official.run(question)["logits"], before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in official.model.modules())


class InPlace(torch.nn.Module):
    """Writes into what it computed, whole and in part, and goes on with both."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        doubled.add_(1)
        part = doubled[:, :2]
        part.mul_(10)
        turned = doubled.transpose(1, 2)
        filled = torch.empty_like(x)
        filled.copy_(turned.transpose(1, 2))
        torch._foreach_mul_([filled], 3)  # returns nothing, only writes
        return filled - x


def test_what_is_overwritten_later_is_kept_as_it_was(gpt2: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    official = Official(gpt2.folder)
    official.model.transformer.ln_f = InPlace()
    seen: list[torch.Tensor] = []
    official.model.transformer.ln_f.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    taken = trace(gpt2, token_ids=IDS, official=official)
    (x,) = seen
    assert torch.equal(taken["ln_f.mul[0]"].value, x * 2)
    assert torch.equal(taken["ln_f.add[0]"].value, x * 2 + 1)
    assert torch.equal(taken["ln_f.mul[1]"].value, (x * 2 + 1)[:, :2] * 10)
    answer = x * 2 + 1
    answer[:, :2] *= 10
    assert torch.equal(taken["ln_f.transpose[0]"].value, answer.mT)
    assert torch.equal(taken["ln_f._foreach_mul[0]"].value, answer * 3)
    assert torch.equal(taken["ln_f.sub[0]"].value, answer * 3 - x)
    assert taken["ln_f.sub[0]"].inputs[0] == taken["ln_f._foreach_mul[0]"].number
    assert "ln_f.empty_like[0]" not in taken.names()


class Doubling(torch.nn.Module):
    """Writes into what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2) + 0


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_checkpoint_that_is_overwritten_later_is_captured_as_it_was(gpt2: LocalCopy, use_cache: bool):
    question, official = verify.ask(gpt2, token_ids=IDS, use_cache=use_cache), Official(gpt2.folder)
    name = f"h.{small.GPT2['n_layer'] - 1}.mlp.residual"
    last = verify.capture(question, official=official)[name].tensor
    official = Official(gpt2.folder)
    official.model.transformer.ln_f = Doubling()
    truth = verify.capture(question, official=official)
    assert torch.equal(truth[name].tensor, last)
    assert torch.equal(truth["ln_f"].tensor, 2 * last)


def test_a_name_is_in_the_trace_that_has_it(gpt2: LocalCopy):
    traced = trace(gpt2, token_ids=IDS)
    assert {"h.0.attn.softmax[0]", "h.0.attn.probs"} <= traced.names().keys()
    assert "h.0.attn.nonsense" not in traced.names()
    with pytest.raises(KeyError):
        traced["h.0.attn.nonsense"]
