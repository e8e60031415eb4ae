"""ptm_mini: prompts that make a frozen audio-visual transformer robust to missing and damaged modalities.

Reading order, each file using only those before it:
config -> audio, image, layers -> encoder, fusion, prompts, degrade -> model, manifest, data
-> evaluate, checkpoint, report -> train.py, eval.py.
"""
