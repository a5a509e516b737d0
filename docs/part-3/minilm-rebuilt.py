# %% [markdown]
# # MiniLM, rebuilt
#
# The whole path in one notebook, without the explanations: from a sentence to its embedding, from the
# weight file alone, every step compared with the official model. It is executed each time this site is
# built, and the build fails if one number differs. The explanations are in
# [MiniLM, block by block](../minilm/).

# %%
import torch
from torch.nn import functional as F

from llm_rebuild.copies import local_copy
from llm_rebuild.verify import capture, judge

minilm = local_copy.get("minilm", say=lambda line: None)
print("the miniature" if minilm.source == "miniature" else f"revision {minilm.revision}")
config = minilm.config
weights = minilm.weights()
truth = capture(minilm, ["Open-source LLMs rock.", "They do."])  # the only time the official model runs
token_ids, mask = truth.inputs.token_ids, truth.inputs.mask
mine = {}  # the name of each checkpoint, and the tensor rebuilt for it

# %% [markdown]
# ## The parts that repeat

# %%
eps, heads = config["layer_norm_eps"], config["num_attention_heads"]


def linear(name, x):
    mine[name] = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return mine[name]


def layer_norm(name, x):
    mine[name] = F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)
    return mine[name]


def split_heads(x):
    """[batch, token, width] -> [batch, head, token, head width]"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


# %% [markdown]
# ## From ids to the input of block 0

# %%
rows = {
    "word_embeddings": token_ids,
    "token_type_embeddings": torch.zeros_like(token_ids),
    "position_embeddings": torch.arange(token_ids.shape[1])[None],
}
for table, ids in rows.items():
    mine[f"embeddings.{table}"] = F.embedding(ids, weights[f"embeddings.{table}.weight"])
word, token_type, position = (mine[f"embeddings.{table}"] for table in rows)
mine["embeddings.word_and_type"] = word + token_type
mine["embeddings.sum"] = mine["embeddings.word_and_type"] + position
x = layer_norm("embeddings.LayerNorm", mine["embeddings.sum"])

batch, tokens = token_ids.shape
may_look = mask.bool()[:, None, None, :].expand(batch, 1, tokens, tokens)
mine["mask"] = torch.where(may_look, 0.0, torch.finfo(torch.float32).min)

# %% [markdown]
# ## The blocks

# %%
for i in range(config["num_hidden_layers"]):
    block = f"encoder.layer.{i}"
    here = f"{block}.attention.self"
    query, key, value = (split_heads(linear(f"{here}.{part}", x)) for part in ("query", "key", "value"))
    mine[f"{here}.product"] = query @ key.transpose(-1, -2)
    mine[f"{here}.scaled"] = mine[f"{here}.product"] * query.shape[-1] ** -0.5
    mine[f"{here}.scores"] = mine[f"{here}.scaled"] + mine["mask"]
    mine[f"{here}.probs"] = F.softmax(mine[f"{here}.scores"], dim=-1)
    mine[f"{here}.head_context"] = mine[f"{here}.probs"] @ value
    mine[f"{here}.context"] = mine[f"{here}.head_context"].transpose(1, 2).flatten(start_dim=2)

    here = f"{block}.attention.output"
    mine[f"{here}.residual"] = linear(f"{here}.dense", mine[f"{block}.attention.self.context"]) + x
    x = layer_norm(f"{here}.LayerNorm", mine[f"{here}.residual"])

    wide = linear(f"{block}.intermediate.dense", x)
    mine[f"{block}.intermediate.intermediate_act_fn"] = F.gelu(wide)
    narrow = linear(f"{block}.output.dense", mine[f"{block}.intermediate.intermediate_act_fn"])
    mine[f"{block}.output.residual"] = narrow + x
    x = layer_norm(f"{block}.output.LayerNorm", mine[f"{block}.output.residual"])

# %% [markdown]
# ## The pooler, and the sentence embedding

# %%
mine["pooler.activation"] = torch.tanh(linear("pooler.dense", x[:, 0]))

real = mask.unsqueeze(-1).expand(x.shape).float()
mine["sentence.masked"] = x * real
mine["sentence.sum"] = mine["sentence.masked"].sum(dim=1)
mine["sentence.count"] = real.sum(dim=1).clamp(min=1e-9)
mine["sentence.mean"] = mine["sentence.sum"] / mine["sentence.count"]
length = torch.linalg.vector_norm(mine["sentence.mean"], dim=1, keepdim=True)
mine["sentence.embedding"] = mine["sentence.mean"] / length

# %% [markdown]
# ## The verdict
#
# Every checkpoint, against the official tensor of the same name.

# %%
report = judge(mine, truth)
print(report)
assert report.exact

# %%
similarity = float(mine["sentence.embedding"][0] @ mine["sentence.embedding"][1])
print(f"similarity of the two sentences: {similarity:.3f}")
print("never read:", weights.unread())
