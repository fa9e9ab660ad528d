import os
import zipfile

import pytest
from IPython.display import HTML

from moviegen.config import ConfigError
from moviegen.report import archive, publish
from moviegen.report.pages import sampling
from tests.report.making import sampled, write_executed


def test_it_holds_the_site_and_the_same_site_gives_the_same_bytes(params, tmp_path):
    write_executed(params, "sampling", sampling.clips(sampled(params), None, "unseen"))
    site = publish.publish(params).parent
    (site / "media" / ".half-copied.mp4").write_bytes(b"x")
    first = archive.archive(params).read_bytes()
    for place, path in enumerate(sorted(site.rglob("*"), reverse=True)):
        os.utime(path, (1e9 + place, 1e9 + place))
    assert archive.archive(params).read_bytes() == first
    with zipfile.ZipFile(archive.archive(params)) as made:
        made.extractall(tmp_path / "elsewhere")
    there = tmp_path / "elsewhere" / "moviegen-tiny"
    files = {path.relative_to(site): path for path in site.rglob("*") if path.is_file() and path.name[0] != "."}
    assert files and {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == set(files)
    assert all((there / name).read_bytes() == path.read_bytes() for name, path in files.items())


def test_another_site_gives_other_bytes(params):
    write_executed(params, "data", HTML("<p>one</p>"))
    publish.publish(params)
    first = archive.archive(params).read_bytes()
    write_executed(params, "data", HTML("<p>two</p>"))
    publish.publish(params)
    assert archive.archive(params).read_bytes() != first


def test_nothing_published_is_nothing_to_archive(params):
    with pytest.raises(ConfigError, match="make report"):
        archive.archive(params)
