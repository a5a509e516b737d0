"""The picture of a block of today, of the miniature."""

from __future__ import annotations

from math import prod

from llm_rebuild import anatomy
from llm_rebuild.copies.local_copy import LocalCopy
from tools.figures.drawing import Drawing, shape
from tools.figures.gpt2 import GPT2_PROMPT


def llama_block(copy: LocalCopy) -> str:
    """The live page: one block, its checkpoints with their shapes, along the residual stream."""
    model = anatomy.describe(copy)
    c = model.config
    n = len(copy.tokenizer().encode(GPT2_PROMPT).ids)
    sizes = {
        "batch": 1, "token": n, "query": n, "key": n, "width": c.hidden_size, "wide": c.intermediate_size,
        "head": c.num_attention_heads, "heads": c.num_attention_heads, "head width": c.head_width,
        "kv head": c.kv_heads, "kv heads": c.kv_heads,
    }  # fmt: skip

    def of(name: str) -> str:
        found = next(p for p in model.checkpoints if p.name == f"model.layers.0.{name}")
        axes = found.shape.strip("[]").split(", ")
        return shape(*(prod(sizes[word] for word in axis.split(" × ")) for axis in axes))

    d = Drawing(720, 1010, f"One block of a Llama, its checkpoints with their shapes for {n} tokens.")
    stream = 56

    def step(x: float, y: float, name: str, words: str, kind: str = "surface", w: float = 190) -> None:
        d.step(x, y, words, of(name), kind, w)

    def plus(y: float, name: str) -> None:
        d.plus(stream, y)
        d.text(stream + 20, y + 46, name, at="start", size=13, mono=True, kind="good")

    d.text(20, 20, f"input of the block  {shape(1, n, c.hidden_size)}", at="start", bold=True)
    d.line(f"M{stream} 30V640", "good")
    d.line(f"M{stream} 670V924", "good")
    d.line(f"M{stream} 954V990", "good")
    d.line(f"M{stream} 61H310", "good")
    step(410, 36, "input_layernorm", "RMSNorm", w=196)
    for x, letter in ((200, "q"), (410, "k"), (620, "v")):
        d.line(f"M410 86V100H{x}V114" if x != 410 else "M410 86V114")
        step(x, 116, f"self_attn.{letter}_proj", f"{letter}_proj", "accent")
    for x, part in ((200, "query"), (410, "key")):
        d.line(f"M{x} 166V190")
        step(x, 192, f"self_attn.{part}", f"{part}, turned by its place", part, w=200)
    d.text(620, 186, f"{c.num_attention_heads} heads of queries share", size=13)
    d.text(620, 204, f"{c.kv_heads} of keys and values", size=13)
    d.line("M200 242V258H296V274")
    d.line("M410 242V258H314V274")
    step(305, 276, "self_attn.product", "product: query · key", w=250)
    d.line("M305 326V342")
    step(305, 344, "self_attn.scaled", f"scaled: × 1/√{c.head_width}", w=250)
    d.line("M305 394V410")
    step(305, 412, "self_attn.scores", "scores: + causal mask", w=250)
    d.line("M305 462V478")
    step(305, 480, "self_attn.probs", "probs: softmax", "warm", w=250)
    d.line("M430 505H474")
    d.line("M620 212V478")
    step(596, 480, "self_attn.head_context", "head_context: probs · value", w=240)
    d.line("M596 530V546")
    step(596, 548, "self_attn.context", "context: heads merged", w=240)
    d.line("M596 598V655H342")
    step(250, 630, "self_attn.o_proj", "o_proj", "accent", w=180)
    d.line("M160 655H72")
    plus(655, "self_attn.residual")
    d.line(f"M{stream} 741H108", "good")
    step(192, 716, "post_attention_layernorm", "RMSNorm", w=164)
    d.line("M274 741H306")
    d.line("M290 741V819H306")
    step(396, 716, "mlp.gate_proj", "gate_proj", "accent", w=176)
    d.line("M484 741H516")
    step(606, 716, "mlp.act_fn", "SiLU: how far it is open", w=180)
    step(396, 794, "mlp.up_proj", "up_proj", "accent", w=176)
    d.line("M484 819H516")
    d.line("M606 766V792")
    step(606, 794, "mlp.gated", "one times the other", w=180)
    d.line("M606 844V939H494")
    step(406, 914, "mlp.down_proj", "down_proj", "accent", w=172)
    d.line("M320 939H72")
    plus(939, "")
    d.text(stream + 20, 974, "mlp.residual", at="start", size=13, mono=True, kind="good")
    d.text(stream, 1004, "to the next block", at="start", size=13)
    return d.svg()


FIGURES = (llama_block,)
OF = {"llama": FIGURES}
