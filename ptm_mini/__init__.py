"""ptm_mini: prompts that make a frozen audio-visual transformer robust to missing and damaged modalities.

Reading order, each file using only those before it:
config, overrides, command, files -> audio, image, layers -> encoder, fusion, prompts, degrade -> model, manifest, data
-> evaluate, checkpoint, report -> data_prep, eval.py, train.py.
"""
