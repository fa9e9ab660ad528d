"""Movie Gen in MindSpore, laid out as the paper's table of contents.

============================  ==========================================================
paper section                 where
============================  ==========================================================
3.1.1 Temporal Autoencoder    `tae/` (layers, model, losses, tiling, weights)
3.1.2 Flow matching           `flow.py`
3.1.3 Backbone                `dit/` (layers, model, positions, weights)
3.1.4 Text embeddings         `text/` (t5, clip, tokenise, encode, stand_ins)
3.1.5 Spatial upsampling      not part of this report
3.1.6 Scaling and efficiency  `parallel/` (launch, mesh, ulysses, zero), `plan.py`
3.2   Training                `train/` (loop, step, optim, checkpoint; tae, dit), `precompute.py`
3.2.1 Data                    `data/` (videos, buckets, datasets, samples)
3.4.2 Inference               `schedule.py`, `sample.py`, `generate.py`
3.5   Evaluation              `evaluate.py`, `retrieval.py`, `schedule_error.py`
                              `config/` every parameter, `device/` CPU or Ascend,
                              `programs.py` and `runs.py` what runs and what it leaves,
                              `report/` notebooks to HTML
============================  ==========================================================

Importing the package imports nothing heavy: MindSpore is loaded by `moviegen.device` alone.
"""

from moviegen import device  # noqa: F401 - prepares the environment before any module below imports MindSpore
