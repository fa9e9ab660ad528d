"""Benchmarks (`make bench`): time beside PyTorch as ratios measured in one run, layouts, memory.

================  ===============================================================
`__main__.py`     chooses, prints, writes outputs/bench/bench.json
`workers.py`      a process for each framework, which take turns
`tae.py`          the Temporal Autoencoder's rows
`ours.py`         what their MindSpore process times
`pytorch.py`      the same work in their PyTorch process
`dit.py`          the transformer's rows, and those of the sampler around it
`dit_ours.py`     what their MindSpore process times
`dit_pytorch.py`  the same work in their PyTorch process
`layouts.py`      the ways to write a temporal convolution in MindSpore
`memory.py`       peak memory of decoding, whole and in tiles
================  ===============================================================

Nothing here passes or fails by a time; that both sides compute the same is shown by `make parity`.
"""
