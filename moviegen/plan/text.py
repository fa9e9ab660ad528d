"""What encoding captions takes, by counting: of the encoders that README names, which params files know by their width.

On a card weights and activations are in half precision, but for attention's scores. A pass is of `BATCH` captions, each
filled up to `max_tokens`. Norms, biases and tables of positions, a thousandth of the weights or less, are left out.

Letters: L tokens of a caption, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import TextEncoder
from moviegen.plan.flops import Flops
from moviegen.plan.memory import FLOAT32, HALF, Memory

BATCH = 8  # captions of a pass; `text.encoders.BATCH`
ENCODING = "in a layer of the encoder"


@dataclass(frozen=True)
class TextTower:
    """An encoder's sizes.

    Attributes:
        name: as it is published.
        rows: of its table of tokens.
        width: D.
        inner: of queries, keys and values.
        hidden: of the feed-forward network.
        gated: that has three matrices, not two.
    """

    name: str
    rows: int
    layers: int
    heads: int
    width: int
    inner: int
    hidden: int
    gated: bool

    @property
    def weights(self) -> int:
        """Numbers of the table and of the layers' matrices."""
        matrices = 4 * self.width * self.inner + (2 + self.gated) * self.width * self.hidden
        return self.rows * self.width + self.layers * matrices

    def flops(self, tokens: int) -> Flops:
        """Of one caption of L tokens."""
        return self.layers * Flops(
            projections=2 * tokens * 4 * self.width * self.inner,
            attention=2 * 2 * tokens**2 * self.inner,
            feed_forward=2 * tokens * (2 + self.gated) * self.width * self.hidden,
        )


# By place and width, from the config.json of each.
TOWERS = {
    ("ul2", 4096): TextTower("google/ul2", 32_128, 32, 16, 4096, 4096, 16_384, gated=True),
    ("ul2", 384): TextTower("all-MiniLM-L6-v2", 30_522, 6, 12, 384, 384, 1536, gated=False),
    ("metaclip", 1280): TextTower("metaclip-2-worldwide-giant", 901_629, 32, 20, 1280, 1280, 5120, gated=False),
    ("metaclip", 1024): TextTower("metaclip-h14-fullcc2.5b", 49_408, 24, 16, 1024, 1024, 4096, gated=False),
    ("byt5", 1472): TextTower("google/byt5-small", 384, 12, 6, 1472, 384, 3584, gated=True),
}


def tower_of(place: str, encoder: TextEncoder) -> TextTower | None:
    """The encoder of that width in one of the three places; None: its sizes are not known here."""
    return TOWERS.get((place, encoder.width))


def encoding_memory(tower: TextTower, tokens: int, is_card: bool = False) -> Memory:
    """A card that encodes a batch: the weights, and of the layer at work scores and their softmax or the hidden layer.

    Scores, the bias that is added to them, their sum and its softmax are (B, heads, L, L) float32; of gate and up both
    and their product.
    """
    element = HALF if is_card else FLOAT32
    scores = FLOAT32 * BATCH * tower.heads * tokens**2
    hidden = element * BATCH * tokens * tower.hidden
    wide = element * BATCH * tokens * tower.width
    live = max(4 * scores + 4 * wide, (3 if tower.gated else 2) * hidden + scores + 2 * wide)
    largest = ("attention's scores (B, heads, L, L)", scores) if scores > hidden else ("its hidden layer", hidden)
    return Memory(ENCODING, {"weights": element * tower.weights, "live block": live}, largest)
