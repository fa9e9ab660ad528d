"""Numbers published by others, written down only here, and, of seconds a step, in `moviegen.plan.published`.

All without another source are from the original report, mindone's examples/moviegen/docs/report.md (MindSpore 2.3.1,
Ascend 910*, bf16).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TAEScore:
    """Reconstruction quality on the UCF-101 test split: 1 card, batch 1, 256x256x32."""

    opl: bool
    seconds_per_step: float
    psnr: float
    ssim: float


TAE_SCORES = (TAEScore(False, 2.18, 31.35, 0.92), TAEScore(True, 2.18, 31.17, 0.92))

# Support in the original report: accuracy verified on a small data set, supported but under verification, or to do.
VERIFIED, SUPPORTED, TO_DO = "accuracy verified", "supported", "to do"
SUPPORT_CLIPS = {1: "images", 2: "256 frames at 256 px", 3: "256 frames at 768 px"}
SUPPORT = {
    "1B": (VERIFIED, VERIFIED, VERIFIED),
    "5B": (VERIFIED, VERIFIED, SUPPORTED),
    "30B": (SUPPORTED, VERIFIED, TO_DO),
}

WRITTEN_SIZE = "256x455"  # height x width of stages 1 and 2
CARD_MEMORY_GB = 64  # one Ascend Atlas 800T A2 card
PARAMETERS = {"1B": "1 B", "5B": "5 B", "30B": "30 B"}
TAE_CLIP = "256x256x32"  # height x width x frames
SIGMA_MIN = 1e-5  # of the path from noise to data; paper, 3.1.2
# Of the autoencoder's training; batch, clip and precision are its table's
TAE_HYPERPARAMETERS = {
    "workers": "1",
    "batch": "1",
    "clip (HxWxT)": TAE_CLIP,
    "arithmetic": "bf16",
    "weight of the reconstruction": "1.0",
    "weight of LPIPS": "1.0",
    "weight of the KL divergence": "1e-06",
    "weight of the outlier penalty": "1.0 (paper: 1e5)",
    "r of the outlier penalty": "not said (paper: 3)",
    "optimizer": "AdamW",
    "learning rate": "1e-05",
}
# What its shell scripts of 5B say to msrun and to train.py, but for folders (section Detailed Training Scripts)
_EVERY_SCRIPT = {
    "bind_core": "True",
    "master_port": "8200",
    "worker_num": "8",
    "local_worker_num": "8",
    "env.mode": "0",
    "env.jit_level": "O1",
    "env.max_device_memory": "59GB",
    "env.distributed": "True",
    "dataset.deterministic_sample": "True",
    "train.ema": "",
    "train.optimizer.weight_decay": "0",
}
_VIDEO_SCRIPT = {
    "dataloader.batch_size.image_batch_size": "1",
    "dataloader.batch_size.video_batch_size": "1",
    "train.settings.zero_stage": "2",
    "train.settings.gradient_accumulation_steps": "5",
}
SCRIPTS = {
    1: {
        **_EVERY_SCRIPT,
        "model.recompute_every_nth_block": "",
        "dataloader.batch_size": "10",
        "train.settings.zero_stage": "3",
        "valid.dataset": "",
        "train.save.ckpt_save_policy": "latest_k",
        "train.steps": "2000",
    },
    2: {
        **_EVERY_SCRIPT,
        **_VIDEO_SCRIPT,
        "model.pretrained_model_path": "llama-5B-s2000.ckpt",
        "model.not_recompute_fa": "True",
        "train.lr_scheduler.lr": "0.0001",
        "train.steps": "40000",
    },
    3: {
        **_EVERY_SCRIPT,
        **_VIDEO_SCRIPT,
        "model.pretrained_model_path": "llama-5B-s40000.ckpt",
        "train.steps": "30000",
    },
}
ORIGINAL, PAPER, MOCHI = "the original report", "Movie Gen, arXiv:2410.13720", "Mochi 1's released implementation"
UCF101 = "https://www.crcv.ucf.edu/data/UCF101.php"


@dataclass(frozen=True)
class Fact:
    """Words of a notebook that state numbers which no parameter and no run of this report knows."""

    notebook: str
    words: str
    source: str


FACTS = (
    Fact("data", "13,320 short clips of 101 human actions", UCF101),
    Fact("data", "100 clips of up to 1080p", ORIGINAL),
    Fact("data", "splits clips 8:2", ORIGINAL),
    Fact("tae_training", "kernel 3, stride 1", ORIGINAL),
    Fact("tae_training", "a stride of 2", PAPER),
    Fact("tae_training", "kernel 3, stride 2", ORIGINAL),
    Fact("tae_training", "kernel 3 and stride 1", ORIGINAL),
    Fact("overview", "compresses videos 8x in time, height and width", PAPER),
    Fact("tae_evaluation", "1/12 of a squared grey level", "the mean squared error of rounding to whole levels"),
    Fact("tae_evaluation", "13,320 real clips", UCF101),
    Fact("tae_evaluation", "A frame of 576x1024", ORIGINAL),
    Fact("tae_evaluation", "in time 32 frames, decoded with 16 in common", PAPER),
    Fact("sampling", "a 1000-step linear schedule", PAPER),
    Fact("sampling", "50 such steps give videos of the quality of 1000 equal ones", PAPER),
    Fact("sampling", "the first 2.5% of the way", MOCHI),
    Fact("parallelism", "a speed-up of over 2x against 3D parallelism", ORIGINAL),
)
