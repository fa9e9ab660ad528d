"""What a file is that cannot be read as what its name says: a pointer, a web page, a pickle, nothing at all."""

from __future__ import annotations

from pathlib import Path

FETCH_AGAIN = "fetch it again where it is published, logged in and with its licence accepted if it asks for that"
PICKLE = "a PyTorch pickle, which can run code when it is opened: save it with safetensors.torch.save_file first"
# beginnings in lower case -> what such a file is, and what to do
BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer and not the file itself: run `git lfs pull` in its folder",
    b"<!doctype": f"a web page, saved in the place of the file: {FETCH_AGAIN}",
    b"<html": f"a web page, saved in the place of the file: {FETCH_AGAIN}",
    b"<?xml": f"a message of the server, saved in the place of the file: {FETCH_AGAIN}",
    b"\x80\x02": PICKLE,
    b"\x80\x04": PICKLE,
    b"gguf": "a GGUF file of quantised weights: take the safetensors of float32, bfloat16 or float16",
    b"\x89hdf": "an HDF5 file of Keras or TensorFlow: take the safetensors",
    b"\x1f\x8b": "packed with gzip: unpack it first",
}
HEAD_BYTES = 256  # read of a file: among those of a file of weights are some that no text holds


def what_it_is(path: Path) -> str | None:
    """What a file that cannot be read is and what to do, to follow "FILE is"; None where that is not known."""
    if path.is_dir():
        return "a folder: name the file inside it"
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which is not there: {FETCH_AGAIN}"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        beginning = file.read(HEAD_BYTES)
    if not beginning:
        return f"empty: {FETCH_AGAIN}"
    plain = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if plain.startswith(b"pk\x03\x04") and path.suffix != ".npz":
        return f"a zip archive, as PyTorch writes: perhaps {PICKLE}"
    return next((kind for start, kind in BEGINNINGS.items() if plain.startswith(start)), None)


def what_weights_are(path: Path) -> str | None:
    """`what_it_is` of a file of weights, which is no text either."""
    if known := what_it_is(path):
        return known
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(HEAD_BYTES).decode("utf-8", "replace")
    if all(letter.isprintable() or letter.isspace() for letter in text.removesuffix("\ufffd")):
        return f"a text, {text[:80]!r}: {FETCH_AGAIN}"
    return None
