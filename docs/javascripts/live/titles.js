// What people call each model, and its folder. Written by `python -m tools.live`.

export const MODELS = {"MiniLM": "minilm", "GPT-2": "gpt2", "T5": "t5-small", "Llama": "llama"};
