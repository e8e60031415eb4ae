"""What training and answering cost, for every method on one backbone of random weights and inputs, measured in one run.

python -m ptm_mini.cost                                                       # tiny, a few minutes on a core
python -m ptm_mini.cost --preset base --batch 2 --repeats 2 --serving 1       # CAV-MAE's size; 5 GB, 4 minutes

A training step: how many numbers learn; bytes of them, 4 each; multiplications and additions (Gop, 1e9) in matrix products and
convolutions; the median time; bytes at its peak, as autograd keeps them (step MB) and as the system sees them (process MB, on
Linux). limit: the operations that are left when whatever comes before all that learns is kept. Rows named
"kept" are steps on such tokens, for a head and prompts that enter late.

An epoch: the seconds of its steps, for --samples, in two protocols: all methods on all data, and as in the paper all but full
fine-tuning on 30% of them. Reading and damaging samples, keeping tokens and validation are not in it: `s/epoch` of a run is
measured with the first two, and `eval.py RUN --curves` shows what accuracy its seconds brought.

docs/cost.md explains each column.
"""
