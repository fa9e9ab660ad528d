"""Words that these pages use, for a reader who has not met them."""

from __future__ import annotations

import html

from IPython.display import HTML

from moviegen.report.tables import table

TERMS = {
    "AdamW": "The rule by which weights are changed: it follows running means of each gradient and of its square, "
    "its two moments.",
    "Attention": "The layer in which every token looks at the others and takes from each as much as it finds relevant.",
    "bf16": "bfloat16, a number of half the size of a float32 with as wide a range and fewer digits. Cards compute "
    "faster with it.",
    "Bucket": "Clips of one length, height and width. A batch is of one bucket.",
    "FlashAttention": "Attention computed piece by piece, so that the table of all pairs of tokens is never written "
    "to memory. The result is the same.",
    "Flow matching": "Training a network to say in which direction noise must move to become data.",
    "Guidance": "Going further in the direction in which the caption changes the prediction than the network itself "
    "says.",
    "Latent": "What the autoencoder makes of a clip: far fewer numbers, from which its decoder makes the clip again. "
    "The transformer works on latents only.",
    "Logit-normal": "A distribution of numbers between the ends of the path that favours its middle: what a normal "
    "number becomes by the logistic function.",
    "LPIPS": "A distance between pictures by the features that a trained network sees in them. It agrees with people "
    "better than a comparison of pixels does.",
    "MindSpore": "The framework in which all networks here are written, as others are in PyTorch. It runs on CPUs "
    "and on Ascend cards.",
    "Micro-batch": "What a card works on at once. An update of the weights may sum the gradients of several.",
    "msrun": "MindSpore's command that starts one process for each card and lets them find each other.",
    "PSNR, SSIM": "How near a restored picture is to its original: by the squared error, in decibels, and by local "
    "structure. More is better.",
    "Rank": "One of the processes that train together, each on its card, also called a worker.",
    "Recompute": "Not keeping what a layer computed for the backward pass but computing it again there: less memory, "
    "more arithmetic.",
    "Shard": "The part of something that one rank holds: of a clip's tokens, or of the training state.",
    "Token": "A small square of a latent frame as one vector: what a word is to a language model.",
    "Ulysses": "A way for several ranks to share the tokens of one clip: for attention they swap tokens for heads, "
    "so that each has all tokens of some heads.",
    "Velocity": "The direction and the speed in which a noisy latent must move to become a clip: what the "
    "transformer predicts.",
    "ZeRO": "Dividing what ranks would all hold alike, the optimizer's state, the gradients and the weights, over "
    "them.",
}


def glossary() -> HTML:
    """All of them in the order of the alphabet; each can be linked to."""
    rows = [
        {"word": f'<b id="{anchor(term)}">{html.escape(term)}</b>', "what it means here": TERMS[term]}
        for term in sorted(TERMS, key=str.lower)
    ]
    return table(rows, "Words of these pages", raw=("word",))


def anchor(term: str) -> str:
    """The id of a term's place on the page: `word-flow-matching`."""
    return "word-" + "-".join(term.lower().replace(",", "").split())
