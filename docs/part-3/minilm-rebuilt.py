# %% [markdown]
# # MiniLM, rebuilt
#
# The whole path in one notebook: from a sentence to its embedding, executed each time this site is built. These are the versions it ran with.

# %%
import torch

import llm_rebuild

print("llm_rebuild", llm_rebuild.__version__)
print("torch", torch.__version__)
