import re
from urllib.parse import unquote

import numpy as np

from moviegen.config import project_root
from moviegen.data.clips import Clip
from moviegen.report import media


def test_broken_and_missing_videos_leave_a_note(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert "cannot read video" in media.strip(Clip(tmp_path / "broken.mp4", frames=10), 3)
    assert "cannot read video" in media.strip(Clip(tmp_path / "missing.mp4", frames=10), 3)


def test_a_video_is_found_from_the_notebooks(tmp_path):
    player, notebooks = media.video(tmp_path / "a clip.mp4", "a <b>"), project_root() / "notebooks"
    address = re.search('src="(.*?)"', player)[1]
    assert notebooks.is_dir()
    assert " " not in address
    assert (notebooks / unquote(address)).resolve() == tmp_path / "a clip.mp4"
    assert "a &lt;b&gt;" in player


def test_what_is_seen_is_said_where_the_caption_does_not(tmp_path):
    frame = np.zeros((48, 80, 3), np.uint8)
    for piece, attribute in (
        (media.video(tmp_path / "a.mp4", "stage 3", 'a "cat"'), "aria-label"),
        (media.tile(frame, "stage 3", 'a "cat"'), "alt"),
    ):
        assert f'{attribute}="a &quot;cat&quot;"' in piece and "<figcaption>stage 3</figcaption>" in piece
