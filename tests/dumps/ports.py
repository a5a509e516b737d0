"""Four ports of GPT-2, each under names and in layouts of its own, right or with one of the ten mistakes."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.dumps.files import read_dump, write_dump
from llm_rebuild.using.inputs import Inputs
from tests.dumps import port

REBUILD = Path(__file__).parents[2] / "docs" / "javascripts" / "rebuild"
# What port.py calls its tensors, and which checkpoints they are.
OF_MODEL = {"embedded": "embeddings", "last_norm": "ln_f", "logits": "lm_head"}
OF_BLOCKS = {
    "first_norm": "ln_1", "q": "attn.c_attn[0]", "k": "attn.c_attn[1]", "v": "attn.c_attn[2]",
    "scores": "attn.scores", "weights": "attn.probs", "context": "attn.context", "attended": "attn.c_proj",
    "middle": "attn.residual", "second_norm": "ln_2", "up": "mlp.c_fc", "bent": "mlp.act",
    "down": "mlp.c_proj", "out": "mlp.residual",
}  # fmt: skip


# The same tensors as somebody would call them who writes in Flax, and as an exporter calls them.
FLAX = {
    "embedded": "embed", "first_norm": "ln_1", "q": "attn/query", "k": "attn/key", "v": "attn/value",
    "scores": "attn/logits", "weights": "attn/weights", "context": "attn/context",
    "attended": "attn/c_proj", "middle": "attn/sum", "second_norm": "ln_2", "up": "mlp/c_fc",
    "bent": "mlp/gelu", "down": "mlp/c_proj", "out": "mlp/sum", "last_norm": "ln_f", "logits": "lm_head",
}  # fmt: skip
EXPORTED = {
    "embedded": "Add", "first_norm": "ln_1/LayerNormalization", "q": "attn/Transpose",
    "k": "attn/Transpose_1", "v": "attn/Transpose_2", "scores": "attn/Where", "weights": "attn/Softmax",
    "context": "attn/Reshape_4", "attended": "attn/c_proj/Gemm", "middle": "Add",
    "second_norm": "ln_2/LayerNormalization", "up": "mlp/c_fc/Gemm", "bent": "mlp/act/Mul_3",
    "down": "mlp/c_proj/Gemm", "out": "Add_1", "last_norm": "ln_f/LayerNormalization", "logits": "MatMul",
}  # fmt: skip


class Dump(NamedTuple):
    """What a port computed, by its own names, and what each is meant to be."""

    tensors: dict[str, Tensor]
    meant: dict[str, str]


Make = Callable[[LocalCopy, Inputs, str, Path], Dump]


def _named(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> Dump:
    """Tensors of port.py under other names."""
    meant = {rename(name): checkpoint for name, checkpoint in named_in_numpy(9).items() if name in tensors}
    return Dump({rename(name): tensor for name, tensor in tensors.items()}, meant)


def named_in_numpy(blocks: int) -> dict[str, str]:
    """What port.py calls its tensors, and which checkpoints they are meant to be."""
    inside = {f"block{n}/{own}": f"h.{n}.{name}" for n in range(blocks) for own, name in OF_BLOCKS.items()}
    return OF_MODEL | inside


def _model(copy: LocalCopy, array: Callable[[Any], Any], erf: Callable[[Any], Any]) -> port.Model:
    weights = {key.removeprefix("transformer."): array(t.numpy()) for key, t in copy.weights().peek().items()}
    return port.Model(weights, copy.config["n_head"], copy.config["n_layer"], erf)


def in_flax(name: str) -> str:
    """`block0/q` as `params/layers_0/attn/query`."""
    block, _, own = name.rpartition("/")
    return f"params/{block.replace('block', 'layers_') + '/' if block else ''}{FLAX[own]}"


def exported(name: str) -> str:
    """`block0/q` as `/transformer/h.0/attn/Transpose_output_0`."""
    block, _, own = name.rpartition("/")
    return f"/transformer/{block.replace('block', 'h.') + '/' if block else ''}{EXPORTED[own]}_output_0"


def numpy_port(copy: LocalCopy, inputs: Inputs, mistake: str, folder: Path) -> Dump:
    """Heads behind tokens, in a folder of npy files, which are read in the order of the alphabet."""
    shown: dict[str, Any] = {}
    read = inputs.token_ids.numpy(), inputs.mask.numpy()
    erf = np.vectorize(math.erf, otypes=[np.float32])
    port.run(np, read, _model(copy, np.asarray, erf), shown.__setitem__, mistake)
    arrays = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in sorted(shown.items())}
    return _named(arrays, str)


def jax_port(copy: LocalCopy, inputs: Inputs, mistake: str, folder: Path) -> Dump:
    """Compiled as one piece; queries, keys and values with their heads merged, the rest in names as Flax has
    them."""
    import jax
    import jax.numpy as jnp

    model = _model(copy, jnp.asarray, jax.scipy.special.erf)

    @jax.jit
    def run(ids: Any, mask: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        port.run(jnp, (ids, mask), model, shown.__setitem__, mistake)
        merged = {n: a.reshape(*a.shape[:2], -1) for n, a in shown.items() if re.search("/[qkv]$", n)}
        return shown | merged

    shown = run(jnp.asarray(inputs.token_ids.numpy()), jnp.asarray(inputs.mask.numpy()))
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in shown.items()}
    return _named(tensors, in_flax)


def onnx_port(copy: LocalCopy, inputs: Inputs, mistake: str, folder: Path) -> Dump:
    """torch's lines exported, and run by onnxruntime; queries, keys and values with their heads in front of
    the tokens."""
    import onnxruntime

    names: list[str] = []

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _model(copy, torch.tensor, torch.erf)
            for number, weight in enumerate(self.model.weights.values()):
                self.register_buffer(f"w{number}", weight)

        def forward(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
            shown: dict[str, Tensor] = {}
            port.run(torch, (ids, mask), self.model, shown.__setitem__, mistake)
            names[:] = shown
            return [t.transpose(1, 2) if re.search("/[qkv]$", n) else t for n, t in shown.items()]

    file, read = folder / f"port-{mistake or 'right'}.onnx", (inputs.token_ids, inputs.mask)
    program = torch.onnx.export(Module().eval(), read, dynamo=True, verbose=False)
    assert program is not None
    program.save(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = {one.name: t.numpy() for one, t in zip(session.get_inputs(), read, strict=True)}
    shown = dict(zip(names, map(torch.from_numpy, session.run(None, given)), strict=True))
    return _named(shown, exported)


def as_seen(meant: dict[str, str], mistake: str) -> dict[str, str]:
    """What a dump's names are by their numbers: exchanged, a key is the official value."""
    if mistake != "swapped-kv":
        return meant
    other = {"attn.c_attn[1]": "attn.c_attn[2]", "attn.c_attn[2]": "attn.c_attn[1]"}
    return {
        name: block + other.get(part, part)
        for name, checkpoint in meant.items()
        for block, part in [re.fullmatch(r"((?:h\.\d+\.)?)(.*)", checkpoint).groups()]  # type: ignore[union-attr]
    }


# ------------------------------------------------------------------------------------ JavaScript

# The same mistakes in the lines of docs/javascripts/rebuild/gpt2.js.
JAVASCRIPT = {
    "": ("", ""),
    "unscaled": ("query.shape.at(-1) ** -0.5 : 1", "1 : 1"),
    "wrong-root": ("query.shape.at(-1) ** -0.5", "part.config.n_embd ** -0.5"),
    "no-causal": ("key <= query + earlier && ", ""),
    "eps": ("config.layer_norm_epsilon", "config.layer_norm_epsilon * 100"),
    "erf-gelu": ("ACTIVATIONS[part.config.activation_function]", 'ACTIVATIONS["gelu"]'),
    "no-residual": (
        'x = add(x, feedForward(normed, part.at("mlp")))',
        'x = feedForward(normed, part.at("mlp"))',
    ),
    "swapped-kv": ("let [query, key, value]", "let [query, value, key]"),
    "positions": ("keys - tokens + i", "keys - tokens + i + 1"),
    "no-bias": (
        'conv1d(context, part.at("c_proj"))',
        'product(context, transposed(part.weights.get("c_proj.weight")))',
    ),
    "norm-late": ('normed = layerNorm(x, part.at("ln_2"), part.config.layer_norm_epsilon)', "normed = x"),
}


def javascript_port(copy: LocalCopy, inputs: Inputs, mistake: str, folder: Path) -> Dump:
    """The rebuild of the live pages under Node, which writes a safetensors file."""
    work = folder / f"javascript-{mistake or 'right'}"
    shutil.copytree(REBUILD, work)
    (work / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    source, (before, after) = (work / "gpt2.js").read_text(encoding="utf-8"), JAVASCRIPT[mistake]
    assert before in source
    (work / "gpt2.js").write_text(source.replace(before, after), encoding="utf-8")
    write_dump(inputs.tensors, work / "read.safetensors")
    script = Path(__file__).with_name("javascript_port.mjs")
    shutil.copy(script, work / script.name)
    files = [str((copy.folder / "config.json").resolve()), str(copy.weights_file.resolve())]
    asked = [*files, "read.safetensors", "dump.safetensors"]
    subprocess.run(["node", script.name, *asked], cwd=work, check=True, timeout=300)
    tensors = read_dump(work / "dump.safetensors")
    meant = {_in_javascript(name): name for name in json.loads((work / "names.json").read_text("utf-8"))}
    return Dump({_in_javascript(name): tensor for name, tensor in tensors.items()}, meant)


def _in_javascript(name: str) -> str:
    """`h.0.attn.c_attn` as somebody might write it there: `blocks[0].attn.cAttn`."""
    name = re.sub(r"^h\.(\d+)", r"blocks[\1]", name)
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


PORTS: dict[str, Make] = {
    "numpy": numpy_port,
    "jax": jax_port,
    "onnx": onnx_port,
    "javascript": javascript_port,
}
NEEDS = {"jax": ("jax",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
