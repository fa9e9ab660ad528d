"""What a stage reads at its start, what a caption takes on the disk, how often clips are seen, and what is compiled."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moviegen.config import SIZES, Params, Text, by_graph, latent_size
from moviegen.config.shapes import ASPECT_RATIOS, make_buckets
from moviegen.data import index
from moviegen.data.embeddings import save_embedding
from moviegen.data.latents import MEND, check_latents, open_latents
from moviegen.plan.storage import embedding_file_bytes
from moviegen.proofs.proof import Proof
from moviegen.runs.arrays import save_npz
from moviegen.train.turns import Turns

CLIPS = (100, 400, 1600)  # of a cache
WORDS = 40  # tokens of a caption of two sentences
RANKS, EPOCHS = 8, 50
BUCKETS = make_buckets((256, 448), (64, 128, 256), ASPECT_RATIOS, 16)  # of 5B's second stage
SMALL_BUCKETS = make_buckets((96, 160), (1, 16), ASPECT_RATIOS, 16)
KIB = 2**10


def proofs(params: Params, folder: Path) -> Iterator[Proof]:
    """All of this topic.

    Args:
        params: tiny's, of which nothing is used: all sizes are chosen here.
        folder: for what is written.
    """
    del params
    yield from caption_proofs(folder)
    yield from frequency_proofs()
    for clips in CLIPS:
        yield from start_proofs(folder, clips)
    yield graph_proof()


def caption_proofs(folder: Path) -> Iterator[Proof]:
    """The files of one caption through the three published encoders: of a short one, and of the longest."""
    encoders = Text().encoders
    before = sum(encoder.max_tokens * (4 * encoder.width + 9) for encoder in encoders.values())  # float32, filled up
    for words in (WORDS, max(encoder.max_tokens for encoder in encoders.values())):
        measured = predicted = 0
        for name, encoder in encoders.items():
            tokens, path = min(words, encoder.max_tokens), folder / f"{name}-{words}.npz"
            text_emb = np.zeros((encoder.max_tokens, encoder.width), np.float32)
            keep = np.arange(encoder.max_tokens) < tokens
            save_embedding(path, text_emb, keep, np.zeros(encoder.max_tokens, np.int64))
            measured += path.stat().st_size
            predicted += embedding_file_bytes(encoder, tokens)
            path.unlink()
        yield Proof(
            f"A caption takes its own tokens in float16 on the disk, not {before / KIB:,.0f} KiB",
            f"KiB of the three files of a caption of {words} tokens at the published widths",
            measured / KIB,
            predicted / KIB,
            predicted / KIB,
            predicted / KIB,
        )


def frequency_proofs() -> Iterator[Proof]:
    """Clips of 5B's buckets, of which one holds half of all and the smallest a clip alone, as eight ranks see them."""
    counts = {bucket: max(1, 200 >> place) for place, bucket in enumerate(BUCKETS)}
    turns = Turns(counts, 1, RANKS, [0])
    while len(turns.epoch_ends) < EPOCHS:
        turns(turns.epoch_ends[-1] if turns.epoch_ends else 0)
    seen = turns.times_seen(turns.epoch_ends[EPOCHS - 1])
    times = np.concatenate(list(seen.values()))
    bound = max(map(turns.longest_wait, counts))
    made = f"{len(times)} clips in {len(counts)} buckets of 1 to {max(counts.values())}, {RANKS} ranks, {EPOCHS} epochs"
    yield Proof(
        "No clip is seen more often than another because its bucket is small",
        f"most times minus least times that a clip is seen: {made}; filling batches up, it would be "
        f"{EPOCHS * (RANKS - 1)}",
        float(times.max() - times.min()),
        None,
        0,
        bound,
    )
    yield Proof(
        "A clip is seen once an epoch", f"most times that a clip is seen: {made}", float(times.max()), EPOCHS, 0, EPOCHS
    )


def start_proofs(folder: Path, clips: int) -> Iterator[Proof]:
    """What starting reads of a cache of so many clips, in a process of its own."""
    place = folder / f"cache-{clips}"
    found = measured("cache", str(place), str(clips))
    for who, count in (("rank 0", found["first"]), ("any other rank", found["other"])):
        yield Proof(
            "Starting reads one index, not every file on every rank",
            f"files of a cache of {clips:,} clips that {who} opens at its start; without an index {found['files']:,}",
            count,
            1,
            1,
            1,
        )
    yield Proof(
        "Starting takes less time with an index than by the files' headers",
        f"seconds of rank 0 with an index over those by headers, {clips:,} clips: {found['index_seconds']:.3f} s and "
        f"{found['header_seconds']:.3f} s",
        found["index_seconds"] / found["header_seconds"],
        None,
        0,
        1,
    )


def graph_proof() -> Proof:
    """The loss of a small transformer on a batch of each bucket, in a process of its own."""
    found, planned = measured("graphs"), len(by_graph(dict.fromkeys(SMALL_BUCKETS, 1)))
    return Proof(
        "A stage compiles a graph for each number of tokens, as its plan says, not for each bucket",
        f"graphs compiled of a loss that {len(SMALL_BUCKETS)} buckets were put through",
        found["graphs"],
        planned,
        planned,
        planned,
    )


def measured(*words: str) -> dict[str, Any]:
    """What a process of this module finds."""
    command = [sys.executable, "-m", "moviegen.proofs.start", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def read_at_start(folder: Path, clips: int) -> dict[str, Any]:
    """Files opened and seconds taken to look at a cache of so many clips, which is made first."""
    values, bucket, names = np.zeros((16, 1, 2, 2), np.float32), folder / "1x16x16", {}
    for number in range(clips):
        path = bucket / f"{number}.npz"
        save_npz(path, latent_mean=values, latent_std=values)
        index.note(folder, 0, path, values)
        names[path] = path.name
    opened: list[str] = []
    sys.addaudithook(lambda event, facts: opened.append(str(facts[0])) if event == "open" else None)

    def look(is_first: bool) -> tuple[int, float]:
        opened.clear()
        started = time.perf_counter()
        cache = open_latents(folder, is_first)
        check_latents(cache, [path for path in names if cache.has(path)])
        return len([file for file in opened if file.startswith(str(folder))]), time.perf_counter() - started

    files, header_seconds = look(True)
    index.join(folder, names, "latent_mean", MEND)
    first, index_seconds = look(True)
    other, _ = look(False)
    return {
        "files": files,
        "first": first,
        "other": other,
        "header_seconds": header_seconds,
        "index_seconds": index_seconds,
    }


def compiled_graphs() -> dict[str, Any]:
    """How many graphs a loss compiles of a batch of each bucket."""
    from moviegen import device

    device.start(0)
    import mindspore as ms

    from moviegen.dit.model import DiT
    from moviegen.flow.path import FlowMatchingLoss

    sizes = {"max_size": (2, 12, 12), "text_widths": (8, 0, 0), "num_layers": 1}
    tokens = DiT(SIZES["smoke"].model_copy(update=sizes)).by_tokens()
    loss = FlowMatchingLoss(tokens)
    for bucket in SMALL_BUCKETS:
        latent = np.zeros((1, 16, *latent_size(*bucket)), np.float32)
        text = np.zeros((1, 4, 8), np.float32), np.ones((1, 4), bool)
        inputs = tokens.tokens(latent), tokens.tokens(latent), np.full(1, 0.5, np.float32), tokens.places(latent.shape)
        loss(*(ms.Tensor(array) for array in (*inputs, *text)))
    return {"graphs": len(loss.compile_cache)}


def main(words: list[str]) -> None:
    """`cache FOLDER CLIPS` or `graphs`; prints JSON."""
    found = read_at_start(Path(words[1]), int(words[2])) if words[0] == "cache" else compiled_graphs()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
