"""`python -m moviegen archive`: the published site in one file that opens from disk; the same site, the same bytes."""

from __future__ import annotations

import shutil
import zipfile
from argparse import Namespace
from pathlib import Path

from moviegen.config import Params, outputs_folder
from moviegen.report.sections import published_site
from moviegen.runs.files import replacing

MADE = (1980, 1, 1, 0, 0, 0)  # of every file, as a zip file's times begin there: when one was written is no content
MODE = 0o100644 << 16  # a file that all may read


def main(params: Params, options: Namespace) -> None:
    """Writes the archive and says where."""
    print(f"archive: {archive(params)}")


def archive(params: Params) -> Path:
    """Writes `outputs/<scale>/moviegen-<scale>.zip`, with all files of the site in a folder of that name.

    Raises:
        ConfigError: nothing is published.
    """
    site = published_site(params)
    name = f"moviegen-{params.scale}"
    files = {path.relative_to(site).as_posix(): path for path in site.rglob("[!.]*") if path.is_file()}
    target = outputs_folder(params) / f"{name}.zip"
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for inside, path in sorted(files.items()):
            member = zipfile.ZipInfo(f"{name}/{inside}", MADE)
            member.create_system, member.external_attr, member.compress_type = 3, MODE, zipfile.ZIP_DEFLATED
            with path.open("rb") as source, made.open(member, "w") as packed:
                shutil.copyfileobj(source, packed)
    return target
