"""The three text encoders (paper 3.1.4), what they make of captions, and `python -m moviegen text encode`."""

from moviegen.text.embeddings import ENCODERS, Embedding, caption_file, check_captions, load_embeddings, read_embeddings
from moviegen.text.encode import (
    check_origin,
    encode_captions,
    encode_run,
    main,
    origins,
    stage_embeddings,
    stage_folder,
)
from moviegen.text.pretrained import Pretrained, encoders
from moviegen.text.stand_ins import StandIn

__all__ = [
    "ENCODERS",
    "Embedding",
    "Pretrained",
    "StandIn",
    "caption_file",
    "check_captions",
    "check_origin",
    "encode_captions",
    "encode_run",
    "encoders",
    "load_embeddings",
    "main",
    "origins",
    "read_embeddings",
    "stage_embeddings",
    "stage_folder",
]
