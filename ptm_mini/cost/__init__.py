"""What training and answering cost, for every method on one backbone of random weights and inputs, measured in one run.

python -m ptm_mini.cost                                                         tiny, a few minutes on a core
python -m ptm_mini.cost --preset base --batch 2 --repeats 3 --serving 1         CAV-MAE's size; needs 12 GB

A training step: how many numbers learn; bytes of four situations' worth of them; multiplications and additions (Gop, 1e9) in
matrix products and convolutions; the median time; bytes at its peak, as autograd keeps them (step MB) and as the system sees
them (process MB, on Linux). limit: the operations that are left when whatever comes before all that learns is kept. Rows named
"kept" are steps on such tokens, for a head and prompts that enter late. Seconds an epoch, and to an accuracy, are no part of
this: they need a set, and train.py.
"""
