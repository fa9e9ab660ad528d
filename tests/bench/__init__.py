"""Benchmarks (`make bench`): time beside PyTorch as ratios measured in one run, layouts, memory.

================  ===============================================================
`__main__.py`     chooses, prints, writes outputs/bench/bench.json
`rows.py`         one line of a table, with the ratio that is aimed at
`workers.py`      a process for each framework, which take turns
`serving.py`      what those processes do
`tae.py`          the Temporal Autoencoder's rows
`ours.py`         what their MindSpore process times
`pytorch.py`      the same work in their PyTorch process
`dit.py`          the transformer's rows, and those of the sampler around it
`dit_ours.py`     what their MindSpore process times
`dit_pytorch.py`  the same work in their PyTorch process, eager and compiled
`step_memory.py`  peak memory of a training step, beside PyTorch's
`compiling.py`    seconds of compilation, by depth and of a report
`reading.py`      reading a training clip, beside bare decoding
`layouts.py`      the ways to write a temporal convolution in MindSpore
`memory.py`       peak memory of decoding, whole and in tiles
`recompute.py`    peak memory of a training step, blocks recomputed or not
`speed.py`        writes docs/speed.md's tables from bench.json
`profile.py`      writes docs/speed.md's profile by operator
================  ===============================================================

Nothing here passes or fails by a time; that both sides compute the same is shown by `make parity`.
"""
