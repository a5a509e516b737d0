"""How the embedded miniatures are made and measured: one small trained model per architecture.

`train_minilm`, `train_gpt2`, `train_t5` and `train_llama` each write a folder in the layout of a hub copy.
Their text comes from the grammars in `paraphrases`, `world` and `number_words`; nothing is read from outside.
`evaluate` measures the shipped files again, `model_cards` puts the figures on their page.
"""
