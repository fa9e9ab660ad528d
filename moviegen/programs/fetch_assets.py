"""`python -m moviegen data assets`: what others made and packages of the Python index carry, for parameters to name."""

from __future__ import annotations

import argparse

from moviegen.config import Params
from moviegen.data import assets, film
from moviegen.runs.arrays import save_arrays
from moviegen.tae.lpips import arrays_of_flax

LPIPS = "lpips-vgg16.safetensors"


def main(params: Params, options: argparse.Namespace) -> None:
    """Fetches what is not there, and says by which parameters it is used."""
    movie, encoder, perceptual = map(assets.fetch, (assets.FILM, assets.ENCODER, assets.PERCEPTUAL))
    clips = film.cut(movie / assets.FILM.members[0].name, movie / "clips", film.shots())
    weights = perceptual / LPIPS
    if not weights.is_file():
        save_arrays(weights, arrays_of_flax(perceptual / assets.PERCEPTUAL.members[0].name))
    print(f"clips of {assets.FILM.what}, {assets.FILM.attribution}: --data.root {clips}")
    print(f"{assets.ENCODER.what}: --text.ul2.width 384 --text.ul2.folder {encoder}")
    print(f"{assets.PERCEPTUAL.what}: --tae.loss.lpips_checkpoint {weights}")
    print(f"licences and attributions: {assets.record()}")
