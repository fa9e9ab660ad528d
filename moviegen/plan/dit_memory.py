"""What a card holds at the fullest moment of a training step of the transformer, by counting; see `memory`.

A step is fullest at one of four moments, `MOMENTS`. Two forms are counted. On a card: half precision, FlashAttention,
MindSpore's other operators; at `jit_level` O1 those that work element by element are fused, and vectors repeated over
the tokens are not stored. On CPU: compiled operators in float32. Tests hold the first against MindSpore's own graphs,
compiled in a card's form, the second against what processes grow by.

Letters: D model width, F feed-forward width, L layers, B samples, N tokens, n those of this card, M text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.config import Bucket, DiTConfig, Launch, Params, Recipe, visual_tokens
from moviegen.plan.flops import ADALN_VECTORS, parameter_count, position_count, recomputed_blocks
from moviegen.plan.memory import (
    BACK,
    FIRST,
    FLOAT32,
    LAST,
    MOMENTS,
    PATCH_WIDTH,
    UPDATE,
    Memory,
    Types,
    state_bytes,
)

SOFTMAX_COPIES = 8  # FlashAttention keeps each row's maximum and sum as often, in float32


@dataclass(frozen=True)
class MicroBatch:
    """One card's micro-batch.

    Attributes:
        samples: B.
        tokens, own: N of each sample, and n of them on this card.
        text: M.
        text_bytes: of one sample's embeddings as they come.
        cards: of the job; alone, a card divides nothing (ZeRO 0).
        recomputed: how many of the L blocks; 0 on CPU, where it frees nothing (see `_recomputed`).
        keeps_attention: those leave attention out.
        types: bytes of a number that is held; of an activation as of the arithmetic.
        is_card: not the CPU's compiled form.
        repeats: vectors (B, 1, D) are stored over all tokens before they meet them (`ExpandRows` at jit_level O0).
        averages: the weights' average is held here, as on CPU; beside a card it is on the host.
    """

    config: DiTConfig
    samples: int
    tokens: int
    own: int
    text: int
    text_bytes: int
    cards: int
    zero_stage: int
    micro_batches: int
    recomputed: int
    keeps_attention: bool
    types: Types
    is_card: bool
    repeats: bool
    averages: bool

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return self.types.arithmetic

    @property
    def wide(self) -> int:
        """Bytes of one activation of D numbers a token, (B, n, D)."""
        return self.samples * self.own * self.config.width * self.element

    @property
    def stream(self) -> int:
        """Bytes of the sum of the blocks' outputs, (B, n, D) float32, or of its gradient."""
        return FLOAT32 * self.samples * self.own * self.config.width

    @property
    def feed_forward(self) -> int:
        """Bytes of one activation of F numbers a token, (B, n, F)."""
        return self.samples * self.own * self.config.ffn_width * self.element

    @property
    def context(self) -> int:
        """Bytes of the projected text, (B, M, D)."""
        return self.samples * self.text * self.config.width * self.element

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of one block: eight of D x D, three of D x F."""
        return 8 * self.config.width**2 + 3 * self.hidden

    @property
    def hidden(self) -> int:
        """Numbers in one matrix of the feed-forward network."""
        return self.config.width * self.config.ffn_width

    @property
    def total(self) -> int:
        """Numbers in all weights."""
        return parameter_count(self.config) + position_count(self.config)

    @property
    def largest_weight(self) -> int:
        """Numbers in the largest weight: the shared modulation's, (6 D, D), or the feed-forward network's."""
        return max(ADALN_VECTORS * self.config.width**2, self.hidden)


def training_memory(params: Params, stage: int, clip: Bucket) -> Memory:
    """A card at the fullest moment of a stage's training step on clips of one bucket; images have one frame."""
    return recipe_memory(
        params.dit_config(stage), params.recipes[stage], params.launch_of(stage), params.text.lengths, clip
    )


def fullest(params: Params, stage: int) -> tuple[Bucket, Memory]:
    """The bucket of a stage that needs most, of the media that it trains on."""
    recipe = params.recipes[stage]
    seen = [clip for clip in recipe.dataset.buckets if clip.frames > 1 or recipe.sees_images]
    needs = {clip: training_memory(params, stage, clip) for clip in seen}
    return max(needs.items(), key=lambda need: need[1].total)


def recipe_memory(
    config: DiTConfig, recipe: Recipe, launch: Launch, text_lengths: tuple[int, ...], clip: Bucket
) -> Memory:
    """What a recipe asks of each of the cards of a job; see `training_memory`."""
    micro = micro_batch(config, recipe, launch, text_lengths, clip)
    return max(moments(micro), key=lambda memory: memory.total)


def moments(micro: MicroBatch) -> list[Memory]:
    """A card at each of MOMENTS."""
    return [Memory(moment, _parts(micro, moment), _largest(micro)) for moment in MOMENTS]


def micro_batch(
    config: DiTConfig, recipe: Recipe, launch: Launch, text_lengths: tuple[int, ...], clip: Bucket
) -> MicroBatch:
    """One card's micro-batch of a recipe; on CPU bfloat16 is how products round, and activations are float32."""
    settings, model, batch = recipe.train.settings, recipe.model, recipe.dataloader.batch_size
    is_card, shards = launch.device == "Ascend", recipe.train.sequence_parallel.shards
    tokens = visual_tokens(*clip)
    lengths = zip(text_lengths, config.embedding_widths, strict=True)
    return MicroBatch(
        config=config,
        samples=batch.samples(clip),
        tokens=tokens,
        own=-(-tokens // shards),
        text=sum(text_lengths),
        text_bytes=FLOAT32 * sum(length * width for length, width in lengths),
        cards=launch.worker_num,
        zero_stage=settings.zero_stage if launch.worker_num > 1 else 0,
        micro_batches=settings.gradient_accumulation_steps,
        recomputed=_recomputed(config, model.recompute_every_nth_block, is_card),
        keeps_attention=model.not_recompute_fa,
        types=Types.of(settings, launch),
        is_card=is_card,
        repeats=is_card and launch.jit_level == "O0",
        averages=recipe.train.ema is not None and not is_card,
    )


def _recomputed(config: DiTConfig, every_nth: int, is_card: bool) -> int:
    """Blocks whose activations are forgotten.

    On CPU none are: compiled operators are Cells with a gradient of their own, and such a gradient reads what the first
    forward pass made, not what is computed again.
    """
    return recomputed_blocks(config, every_nth) if is_card else 0


def _parts(micro: MicroBatch, moment: str) -> dict[str, int]:
    state = state_bytes(micro.config, micro.cards, micro.zero_stage, micro.micro_batches, micro.types)
    counted = {
        "weights": state.parameters,
        "gradient sums": state.gradients,
        "optimizer": state.optimizer,
        "average": _share(micro, FLOAT32 * micro.total) if micro.averages else 0,
        "gradients": _gradients(micro, moment),
        "reduce buffers": _reduce_buffers(micro, moment),
        "weight casts": _weight_casts(micro, moment),
        "gathered weights": _gathered_weights(micro, moment),
    }
    if moment == UPDATE:
        return counted
    return counted | {
        "block inputs": _block_inputs(micro, moment),
        "activations": _activations(micro, moment),
        "attention": _attention(micro, moment),
        "live block": {FIRST: _live_forward, LAST: _live_at_turn, BACK: _live_back}[moment](micro),
        "positions": _positions(micro, moment),
        "text": _text(micro, moment),
        "ends": _ends(micro),
    }


# ---- weights


def _gradients(micro: MicroBatch, moment: str) -> int:
    """Gradients of one micro-batch that are not yet in the sums.

    With more micro-batches each is added to its sum and forgotten; on its way is one of D F numbers, in the
    arithmetic's type and in float32. With one micro-batch they wait for the norm of all, ZeRO 1 to 3's as this rank's
    parts. At the update one after the other is multiplied by the clipping factor into another tensor.
    """
    if moment == FIRST:
        return 0
    held = _share(micro, micro.types.gradient * micro.total) if micro.micro_batches == 1 else 0
    if moment == UPDATE:
        return held + (_share(micro, 4 * FLOAT32 * micro.largest_weight) if micro.is_card else 0)
    if moment == BACK and held and not micro.zero_stage:
        return held
    on_the_way = (FLOAT32 + micro.element) * micro.hidden
    if moment == LAST or not held:
        return on_the_way
    return on_the_way + _share(micro, micro.types.gradient * (micro.config.num_layers - 1) * micro.matrices)


def _reduce_buffers(micro: MicroBatch, moment: str) -> int:
    """What gradients are summed over the ranks in: `SumPart` flattens each, and cuts it again where it pads it.

    During the backward pass one of D F numbers is on its way. At the update of more micro-batches ZeRO 0 has the sums
    of all ranks beside its own, ZeRO 1 this rank's parts of them.
    """
    if micro.cards == 1 or moment == FIRST:
        return 0
    in_update = micro.micro_batches > 1 and micro.zero_stage < 2  # `Finish` exchanges, not `Backward`
    if moment == UPDATE:
        return _share(micro, FLOAT32 * micro.total) if in_update else 0
    return 0 if in_update else FLOAT32 * micro.hidden


def _weight_casts(micro: MicroBatch, moment: str) -> int:
    """Weights in the arithmetic's type, where they are held in float32 alone: ZeRO 0.

    Nothing holds a cast back, so all are made before the first block: of all weights but the tables of positions and
    the time-step's two layers. A block that is not recomputed keeps its own for the backward pass; one that is makes
    them again. The shared modulation's, (6 D, D), stays to the end.
    """
    if micro.element == FLOAT32 or micro.zero_stage or moment == UPDATE:
        return 0
    config, shared = micro.config, ADALN_VECTORS * micro.config.width**2
    everything = parameter_count(config) - config.frequency_width * config.width - config.width**2
    if moment == FIRST or (moment == LAST and not micro.recomputed):
        return micro.element * everything
    if moment == LAST:
        kept = config.num_layers - micro.recomputed
        return micro.element * ((kept + 1) * micro.matrices + shared)
    return micro.element * (micro.matrices + shared)


def _gathered_weights(micro: MicroBatch, moment: str) -> int:
    """What ZeRO gathers (`GatheredProduct`, `Whole`), in the arithmetic's type.

    ZeRO 3: a block's matrices are gathered when the block before it begins, so those of two are there; they are held
    until their layer has multiplied. Backward a recomputed block gathers its own when the gradient of what it gave is
    there; another each for its product, and gate's and up's are there at once. One more is whole and being cut to its
    length. ZeRO 1 and 2 at the update: a weight that is held whole, and its cut; 3: the largest that is no matrix.
    """
    if not micro.zero_stage:
        return 0
    if moment == UPDATE:
        if micro.zero_stage < 3:
            return 2 * micro.element * micro.largest_weight
        return 2 * FLOAT32 * micro.config.width * max(ADALN_VECTORS, *micro.config.max_size)
    if micro.zero_stage < 3:
        return 0
    if moment == FIRST:
        return micro.element * (min(2, micro.config.num_layers) * micro.matrices + micro.hidden)
    return micro.element * ((micro.matrices if micro.recomputed else 2 * micro.hidden) + micro.hidden)


def _share(micro: MicroBatch, size: int) -> int:
    """This rank's part of what ZeRO 1 to 3 divide."""
    return size // micro.cards if micro.zero_stage else size


# ---- activations


def _block_inputs(micro: MicroBatch, moment: str) -> int:
    """What recomputed blocks keep: their input, D in float32."""
    if moment == FIRST:
        return 0
    return micro.stream * (micro.recomputed if moment == LAST else min(1, micro.recomputed))


def _activations(micro: MicroBatch, moment: str) -> int:
    """What blocks that are not recomputed keep for the backward pass.

    On a card 15 D + 4 F: the input, the first norm before and after modulation, queries, keys, values, attention, its
    projection, the sum, the other attention's queries and attention, the sum, the second norm before and after
    modulation, the last projection; gate, its SiLU, up and their product. `repeats`: 4 D more, the two scales and the
    two gates. Two softmaxes' statistics, and text keys and values, 2 M D. Of input and sums it is what the norms and
    the queries read, in the arithmetic's type: no gradient asks for the float32 ones.

    On CPU 13 D + 3 F: norms are one operator each with their modulation, SiLU and product are one too.
    """
    if moment == FIRST:
        return 0
    blocks = micro.config.num_layers - micro.recomputed
    return _kept(micro) * (blocks if moment == LAST else min(1, blocks))


def _kept(micro: MicroBatch) -> int:
    """By one block that is not recomputed; see `_activations`."""
    wide = 15 + 4 * micro.repeats if micro.is_card else 13
    hidden = 4 if micro.is_card else 3
    return wide * micro.wide + hidden * micro.feed_forward + 2 * _statistics(micro) + 2 * micro.context


def _statistics(micro: MicroBatch) -> int:
    """What one attention keeps of its softmax: (B, heads, n, 8) float32 twice on a card, (B, heads, n) once on CPU."""
    numbers = micro.samples * micro.own * micro.config.num_heads
    return FLOAT32 * numbers * (2 * SOFTMAX_COPIES if micro.is_card else 1)


def _attention(micro: MicroBatch, moment: str) -> int:
    """What recomputed blocks keep of their two attentions where those are left out (`not_recompute_fa`).

    The outputs, 2 D, and the softmaxes' statistics.
    """
    if moment == FIRST or not micro.keeps_attention:
        return 0
    one = 2 * micro.wide + 2 * _statistics(micro)
    return one * (micro.recomputed if moment == LAST else min(1, micro.recomputed))


def _live_forward(micro: MicroBatch) -> int:
    """In the first block: the float32 sum, its norm, D, and gate, up and what becomes of them, 3 F.

    `repeats`: all 6 L + 2 vectors of modulation need the time alone, and are stored over all tokens before a block has
    done anything; five of the first block's are used by then.
    """
    rows = ADALN_VECTORS * micro.config.num_layers + 2 if micro.repeats else 0
    return micro.stream + (rows - 5 * micro.repeats + 1) * micro.wide + 3 * micro.feed_forward


def _live_at_turn(micro: MicroBatch) -> int:
    """At the last block, where the forward pass ends, beyond what `_kept` and the like count.

    Not recomputed: the last layer's sum in float32, and as its norm reads it, its norm and modulation, 3 D (`repeats`:
    5 D), or two gradients of F; on CPU 2 D or 2 F, and the keys and values that attention packs, 2 D.

    Recomputed: all that a block keeps, 15 D + 4 F, as soon as there is a gradient, in float32 and 2 D, that it could
    wait for; or, with the gradients of gate and up, 15 D + 6 F and the float32 gradient when the block's input is gone.
    `repeats`: 4 D or 3 D more. Attention that was kept, 2 D, is not there a second time. At ZeRO 3 no gradient of a
    weight is on its way by then; when one is, 4 F are gone.
    """
    if not micro.recomputed:
        if not micro.is_card:
            return 2 * micro.wide + max(2 * micro.wide, 2 * micro.feed_forward)
        return max(micro.stream + (3 + 2 * micro.repeats) * micro.wide, 2 * micro.feed_forward)
    text_and_softmax = 2 * micro.context + (0 if micro.keeps_attention else 2 * _statistics(micro))
    again = 2 * micro.keeps_attention
    early = micro.stream + (17 + 4 * micro.repeats - again) * micro.wide + 4 * micro.feed_forward
    late = (16 + 3 * micro.repeats - again) * micro.wide + 6 * micro.feed_forward
    most = max(early, late) + text_and_softmax
    if micro.zero_stage < 3:
        return most
    return most - min(4 * micro.feed_forward, (FLOAT32 + micro.element) * micro.hidden + _reduce_buffers(micro, LAST))


def _live_back(micro: MicroBatch) -> int:
    """At the first block, backward: as at the last, but that nothing follows it."""
    if not micro.recomputed:
        return 2 * micro.feed_forward
    return _live_at_turn(micro)


def _positions(micro: MicroBatch, moment: str) -> int:
    """Positions (B, n, D), which every block adds; backward their gradient, summed from block to block (`Fork`).

    Their float32 sums of three gathers, 4 (n, D), are made and forgotten before the first block; so are, at the end,
    those of their gradient.
    """
    return 0 if moment == LAST else micro.wide


def _text(micro: MicroBatch, moment: str) -> int:
    """Embeddings float32 and in the arithmetic's type, their projection before and after its norm, 2 (B, M, D); masks.

    On a card attention takes a mask (B, 1, n, M) of bytes (`_blocked`). All blocks' keys and values of the text can be
    computed at once, 2 L (B, M, D), and are; at ZeRO 3 those of two blocks, as others' matrices are not there. Backward
    a block leaves two gradients of the context, which are added to the sum of those before.
    """
    texts = micro.samples * micro.text_bytes
    casts = texts * micro.element // FLOAT32 if micro.is_card else 0
    masked = micro.is_card and not micro.config.attend_to_padding
    mask = micro.samples * micro.own * micro.text if masked else 0
    at_once = min(2, micro.config.num_layers) if micro.zero_stage == 3 else micro.config.num_layers
    more = {FIRST: 2 * at_once, LAST: 0, BACK: 3}[moment] * micro.context
    return texts + casts + 2 * micro.context + mask + more


def _ends(micro: MicroBatch) -> int:
    """Of 64 numbers a token: latent, noise, the error and its gradient, float32 and of all N; the input's own n."""
    numbers = micro.samples * PATCH_WIDTH
    return 4 * FLOAT32 * numbers * micro.tokens + micro.element * numbers * micro.own


def _largest(micro: MicroBatch) -> tuple[str, int]:
    """The largest single tensor."""
    tensors = {
        "a feed-forward activation (B, n, F)": micro.feed_forward,
        "positions in float32 (n, D)": FLOAT32 * micro.own * micro.config.width,
        "the shared modulation's weight or gradient (6 D, D)": FLOAT32 * micro.largest_weight,
        "attention's mask (B, 1, n, M)": micro.samples * micro.own * micro.text if micro.is_card else 0,
    }
    return max(tensors.items(), key=lambda tensor: tensor[1])
