"""`python -m moviegen data assets`: what others made and packages of the Python index carry, for parameters to name."""

from __future__ import annotations

import argparse

from moviegen.config import ASSET, Params
from moviegen.data import assets


def main(params: Params, options: argparse.Namespace) -> None:
    """Fetches what is not there, cuts the film where the parameters have it, and says how it is used."""
    for asset in assets.ASSETS:
        assets.fetch(asset)
        print(f"{asset.what}: {asset.licence}, {asset.attribution}: {asset.folder}")
    assets.provide(params)
    print(f"parameters name them {ASSET}<folder>; hashes, licences and attributions: {assets.record()}")
