"""The sample set: a virtual camera moves over the photographs inside scikit-image, and shots of a film.

Every rendered clip is a `Shot` (photographs, a motion, a size, a file), in which the camera glides from one `View` to
another. Everything follows from the seed: the same seed gives the same bytes.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from functools import partial
from itertools import product
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from tqdm import tqdm

from moviegen.data import film
from moviegen.data.assets import FILM
from moviegen.data.videos import Codec, write_video
from moviegen.device.limits import cores
from moviegen.launch.pool import map_unordered
from moviegen.runs.files import replacing, write_csv, write_text

TIME_LIMIT = 600.0  # seconds that a clip may take, on whatever machine
FPS, FRAMES = 12, 40  # as generated clips are shown at tiny: side by side they move alike
CODECS: dict[str, Codec] = {".avi": "mpeg4", ".mp4": "libx264"}
SAMPLE_TXT = """\
Sample set of the MindSpore Movie Gen Report, version 2, seed {seed}.
A virtual camera moves over one or two of the {photographs} photographs that ship inside scikit-image
(skimage/data/README.txt says where they come from); nothing in these scenes moves by itself.{film}
The set has the layout and file formats of UCF-101 and mixkit, so that the report runs its real code on any machine.

UCF-101: 320x240, 12 fps. Over photographs a class is a camera motion, and train and test share no photograph{classes}.
mixkit:  H.264 in 16:9, 9:16 and 1:1, up to 1080p, 12 fps, captions in video_caption_{{train,val}}.csv;
         validation pairs a known photograph with a motion that training shows over others only{scenes}.
"""
FILM_TXT = {
    "film": f"""
Shots of the film Big Buck Bunny, {FILM.attribution}, {FILM.licence}, are beside them.""",
    "classes": """. Over
         the film a class is what is done in a shot, and a group is a shot""",
    "scenes": """, and
         shows scenes of the film that training does not""",
}

# Photograph (a function of skimage.data) -> how a caption names it.
SUBJECTS = {
    "chelsea": "a tabby cat with green eyes looking past the viewer",
    "coins": "rows of ancient Greek coins on a dark cloth",
    "brick": "a wall of narrow grey bricks",
    "hubble_deep_field": "hundreds of distant galaxies in a black sky",
    "retina": "the orange disc of a human retina with branching blood vessels",
    "moon": "the grey surface of the moon with its craters",
    "grass": "a lawn of tangled grass seen from above",
    "astronaut": "a smiling astronaut in an orange space suit",
    "coffee": "a red cup of espresso on a wooden table",
    "camera": "a man in a dark coat filming with a camera on a tripod",
    "gravel": "a bed of small grey stones",
    "immunohistochemistry": "brown and blue stained tissue under a microscope",
    "stereo_motorcycle": "a red motorcycle parked in a garage",
    "rocket": "a white rocket on its launch pad at dusk",
    "page": "a printed page of a textbook",
    "text": "handwritten formulas on a sheet of paper",
}
# Group number - 1 -> the photographs that only clips of this group show.
GROUPS = tuple(tuple(SUBJECTS)[start : start + 4] for start in range(0, len(SUBJECTS), 4))
TEST_GROUP, SIDES = 4, ("train", "test")  # the group that is held out, and where the others and it lie


@dataclass(frozen=True)
class View:
    """Where the camera looks, in terms that keep it inside the photograph."""

    x: float  # 0 to 1: from the left-most to the right-most position it can take
    y: float  # 0 to 1: from the top-most to the bottom-most
    zoom: float  # 1 and more: 1 shows as much as fits upright
    angle: float = 0.0  # degrees by which the camera is turned counter-clockwise


Move = tuple[View, View]


@dataclass(frozen=True)
class Motion:
    """A camera move: how its first and last view are drawn, and its caption, with {0} (and {1}) for the subjects."""

    caption: str
    draw: Callable[[np.random.Generator], Move]
    backwards: bool = False
    photographs: int = 1
    exposures: int = 1  # sub-frame looks averaged into one frame: more than one is motion blur


def _pan(rng: np.random.Generator) -> Move:
    x, y, zoom = rng.uniform([0, 0.2, 1.5], [0.15, 0.8, 1.9])
    return View(x, y, zoom), View(x + 0.85, y, zoom)


def _drift(rng: np.random.Generator) -> Move:
    x, y, zoom = rng.uniform([0.3, 0.2, 1.5], [0.5, 0.8, 1.9])
    return View(x, y, zoom), View(x + 0.2, y, zoom)


def _zoom(rng: np.random.Generator) -> Move:
    x, y = rng.uniform(0.3, 0.7, 2)
    return View(x, y, rng.uniform(1, 1.1)), View(x, y, rng.uniform(2, 2.4))


def _rotate(rng: np.random.Generator) -> Move:
    (x, y), zoom = rng.uniform(0.4, 0.6, 2), rng.uniform(1.8, 2)  # room for 30 degrees in any photograph and size
    return View(x, y, zoom, rng.uniform(-30, -15)), View(x, y, zoom, rng.uniform(15, 30))


def _sweep(rng: np.random.Generator) -> Move:
    zoom, (top, bottom) = rng.uniform(2, 2.4), rng.uniform([0, 0.7], [0.3, 1])
    return View(0, top, zoom), View(1, bottom, zoom)


MOTIONS = {
    "PanLeft": Motion("The camera pans to the left across {0}.", _pan, backwards=True),
    "PanRight": Motion("The camera pans to the right across {0}.", _pan),
    "ZoomIn": Motion("The camera zooms in steadily on {0}.", _zoom),
    "ZoomOut": Motion("The camera starts close and zooms out to show {0}.", _zoom, backwards=True),
    "RotateLeft": Motion("The camera turns counter-clockwise over {0}.", _rotate),
    "RotateRight": Motion("The camera turns clockwise over {0}.", _rotate, backwards=True),
    "CutBetween": Motion("The camera drifts over {0}. Then the view cuts to {1}.", _drift, photographs=2),
    "MotionBlur": Motion("The camera sweeps over {0} so quickly that it blurs.", _sweep, exposures=6),
}
SIZES = ((640, 360), (360, 640), (480, 480))
FULL_HD = {"hubble_deep_field": (1920, 1080), "retina": (1080, 1920)}  # the photographs with enough pixels


@dataclass(frozen=True)
class Shot:
    """One clip to render. `size` is (width, height), `key` seeds its camera."""

    path: Path
    photographs: tuple[str, ...]
    motion: str
    size: tuple[int, int]
    key: int


def make_sample_set(
    folder: Path, shots: Sequence[film.Shot] = (), clips: Path = Path(), seed: int = 0, progress: bool = True
) -> None:
    """Make the sample set in `folder`: `UCF-101/`, `mixkit/`, two caption lists and `SAMPLE.txt`.

    Takes under a minute and goes on where it was stopped: a file that exists is whole and is kept.

    Args:
        folder: where it goes.
        shots: of the film; none: photographs only.
        clips: where theirs lie, as `film.cut` left them, to be copied.
        seed: of the camera's motions.
        progress: whether a bar is shown.

    Raises:
        ValueError: `folder` holds a sample set of another kind, seed or version.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about_film = FILM_TXT if shots else dict.fromkeys(FILM_TXT, "")
    _write_notice(folder / "SAMPLE.txt", SAMPLE_TXT.format(seed=seed, photographs=len(SUBJECTS), **about_film))
    missing = [shot for shot in plan_shots(folder) if not shot.path.exists()]
    missing.sort(key=lambda shot: -shot.size[0] * shot.size[1])  # the longest first: no worker is left alone with one
    for shot in missing:
        shot.path.parent.mkdir(parents=True, exist_ok=True)
    with closing(map_unordered(partial(_write, seed), missing, TIME_LIMIT, max(1, round(cores())))) as written:
        for shot, failure in tqdm(written, "rendering the sample set", len(missing), unit="clip", disable=not progress):
            if failure:
                raise RuntimeError(f"{shot.path} could not be rendered: {failure.reason}")
    _copy(film.paths(clips, shots), film.paths(folder, shots))
    for split, rendered in (("train", train_shots), ("val", validation_shots)):
        of_photographs = [(shot.path.name, _caption(shot), "") for shot in rendered(folder / "mixkit")]
        of_film = [(shot.name, shot.caption, shot.paraphrase) for shot in shots if shot.split == split]
        write_csv(folder / f"video_caption_{split}.csv", ("video", "caption", "paraphrase"), of_film + of_photographs)


def _copy(there: Mapping[film.Shot, tuple[Path, Path]], here: Mapping[film.Shot, tuple[Path, Path]]) -> None:
    for shot, clips in here.items():
        for source, target in zip(there[shot], clips, strict=True):
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    shutil.copyfile(source, temporary)


def _write(seed: int, shot: Shot) -> None:
    """In a worker: renders and writes one clip."""
    write_video(shot.path, render(shot, seed), FPS, CODECS[shot.path.suffix])


def plan_shots(folder: Path) -> list[Shot]:
    """Every clip of the sample set, with a path under `folder`."""
    return [*_ucf101_shots(folder / "UCF-101"), *train_shots(folder / "mixkit"), *validation_shots(folder / "mixkit")]


def _ucf101_shots(folder: Path) -> Iterator[Shot]:
    """Each motion over one photograph (or pair) of each group, along two paths."""
    for (number, label), (group, pool), clip in product(enumerate(MOTIONS), enumerate(GROUPS, 1), (1, 2)):
        path = folder / SIDES[group == TEST_GROUP] / label / f"v_{label}_g{group:02d}_c{clip:02d}.avi"
        yield Shot(path, _names(pool, number, label), label, (320, 240), 100 * number + 10 * group + clip)


def train_shots(folder: Path) -> list[Shot]:
    """Each photograph with one motion, and the first eight with a second one."""
    return [_mixkit_shot(folder, number, shift) for shift, count in ((0, 16), (3, 8)) for number in range(count)]


def validation_shots(folder: Path) -> list[Shot]:
    """Six of the photographs with a motion that training shows over others only."""
    return [_mixkit_shot(folder, number, 5) for number in range(6)]


def _mixkit_shot(folder: Path, number: int, shift: int) -> Shot:
    """Photograph `number` with motion `number + shift`: different shifts below eight never repeat a pair."""
    label = tuple(MOTIONS)[(number + shift) % len(MOTIONS)]
    names = _names(tuple(SUBJECTS), number, label)
    size = FULL_HD.get(names[0], SIZES[number % 3]) if shift == 0 else SIZES[(number + 1) % 3]
    return Shot(folder / f"{'-'.join(names)}-{label.lower()}.mp4", names, label, size, 1000 + 100 * shift + number)


def _names(pool: tuple[str, ...], first: int, label: str) -> tuple[str, ...]:
    """As many photographs of `pool` as the motion films, from `first` on, around the end."""
    return tuple(pool[(first + i) % len(pool)] for i in range(MOTIONS[label].photographs))


def _write_notice(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{path.parent} holds a sample set of another seed or version: delete it, or name another one")
    write_text(path, text)


def _caption(shot: Shot) -> str:
    return MOTIONS[shot.motion].caption.format(*map(SUBJECTS.get, shot.photographs))


def render(shot: Shot, seed: int) -> np.ndarray:
    """The frames of a shot: uint8 (T, H, W, 3)."""
    motion, rng = MOTIONS[shot.motion], np.random.default_rng([seed, shot.key])
    takes = []
    for name in shot.photographs:
        first, last = motion.draw(rng)
        move = (last, first) if motion.backwards else (first, last)
        takes.append(_film(photograph(name), move, FRAMES // len(shot.photographs), shot.size, motion.exposures))
    return np.concatenate(takes)


def photograph(name: str) -> Image.Image:
    """The photograph as RGB; scikit-image finds it inside its own wheel and checks its hash."""
    image = getattr(skimage.data, name)()
    return Image.fromarray(image[0] if isinstance(image, tuple) else image).convert("RGB")  # a stereo pair: the left


def _film(image: Image.Image, move: Move, frames: int, size: tuple[int, int], exposures: int) -> np.ndarray:
    """Frames (T, H, W, 3) along `move`; a frame is the mean of `exposures` looks, shutter open until the next frame."""
    shares = np.linspace(0, 1, frames * exposures)
    eased = (shares**2 * (3 - 2 * shares)).reshape(frames, exposures)  # starts and stops softly
    frames_seen = np.empty((frames, size[1], size[0], 3), np.uint8)
    for number, moments in enumerate(eased):
        looks = [np.asarray(look(image, between(move, moment), size)) for moment in moments]
        frames_seen[number] = looks[0] if exposures == 1 else np.rint(np.mean(looks, axis=0, dtype=np.float32))
    return frames_seen


def between(move: Move, share: float) -> View:
    """Return the view `share` in [0, 1] of the way from the first to the last."""
    return View(*(a + share * (b - a) for a, b in zip(astuple(move[0]), astuple(move[1]), strict=True)))


def look(image: Image.Image, view: View, size: tuple[int, int]) -> Image.Image:
    """What the camera sees: `size` (width, height), resampled from inside `image` at sub-pixel positions."""
    left, top, right, bottom, scale = frame_in_photograph(image.size, view, size)
    if not view.angle:
        return image.resize(size, Image.Resampling.BICUBIC, (left, top, right, bottom))
    # Scale the surroundings of the view first, which antialiases; turning them then needs no filter of its own.
    around = round((right - left) * scale), round((bottom - top) * scale)
    scaled = image.resize(around, Image.Resampling.BICUBIC, (left, top, right, bottom))
    c, s = cos(radians(view.angle)), sin(radians(view.angle))
    x0, y0 = (around[0] - c * size[0] - s * size[1]) / 2, (around[1] + s * size[0] - c * size[1]) / 2
    return scaled.transform(size, Image.Transform.AFFINE, (c, s, x0, -s, c, y0), Image.Resampling.BICUBIC)


def frame_in_photograph(photograph: tuple[int, int], view: View, size: tuple[int, int]) -> tuple[float, ...]:
    """The upright box around what the camera sees, in photograph pixels, and how many output pixels one of them is."""
    scale = view.zoom * max(size[0] / photograph[0], size[1] / photograph[1])
    c, s = abs(cos(radians(view.angle))), abs(sin(radians(view.angle)))
    width, height = (c * size[0] + s * size[1]) / scale, (s * size[0] + c * size[1]) / scale
    left, top = view.x * (photograph[0] - width), view.y * (photograph[1] - height)
    return left, top, min(left + width, photograph[0]), min(top + height, photograph[1]), scale  # min: rounding
