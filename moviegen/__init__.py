"""Movie Gen in MindSpore, laid out as the paper's table of contents.

============================  ==========================================================
paper section                 file
============================  ==========================================================
3.1.1 Temporal Autoencoder    `tae/` (layers, model, weights)
3.1.2 Flow matching           `flow.py`
3.1.3 Backbone                `dit/` (layers, model)
3.1.4 Text embeddings         `text.py`
3.1.5 Spatial upsampling      not part of this report
3.1.6 Scaling and efficiency  `parallel/` (launch, mesh, collectives), `plan.py`
3.2   Training                `train/` (loop, optim, checkpoint; tae, dit), `precompute.py`
3.2.1 Data                    `data/` (videos, datasets, samples)
3.4.2 Inference               `schedule.py`, `sample.py`
3.5   Evaluation              `evaluate.py`
                              `config.py` every parameter, `device.py` CPU or Ascend,
                              `runs.py` what a run leaves on disk, `report/` notebooks to HTML
============================  ==========================================================

Importing the package imports nothing heavy: MindSpore is loaded by `moviegen.device` alone.
"""

from moviegen import device  # noqa: F401 - prepares the environment before any module below imports MindSpore
