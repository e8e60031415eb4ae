"""Golden arrays for porters: a small model's weights, inputs and every intermediate, from files to a training step.

python -m ptm_mini.golden golden.npz

docs/porting.md says in which order to build, which arrays to feed and to compare, and within which tolerance.
"""
