"""Hugging Face folders of small encoders at random weights."""

import json

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from moviegen.config import TextEncoder

T5 = {
    "model_type": "t5", "vocab_size": 24, "d_model": 16, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 3,
    "feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-3,
}  # fmt: skip
BYT5 = T5 | {"vocab_size": 384, "d_model": 12, "feed_forward_proj": "gated-gelu"}
CLIP = {
    "model_type": "clip_text_model", "vocab_size": 24, "hidden_size": 16, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 7, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-3,
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 24, "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 12, "hidden_act": "gelu", "layer_norm_eps": 1e-3,
}  # fmt: skip
WORDS = ("a", "red", "car", "turns", "left", "dog", "runs", "läuft", "犬")


def t5_arrays(config, seed=0):
    """Weights under their names in the files of T5's encoder."""
    inner, width, ff = config["num_heads"] * config["d_kv"], config["d_model"], config["d_ff"]
    shapes = {"shared.weight": (config["vocab_size"], width), "encoder.final_layer_norm.weight": (width,)}
    for index in range(config["num_layers"]):
        block = f"encoder.block.{index}.layer."
        shapes |= {f"{block}0.SelfAttention.{name}.weight": (inner, width) for name in "qkv"}
        shapes |= {f"{block}0.SelfAttention.o.weight": (width, inner), f"{block}0.layer_norm.weight": (width,)}
        wide = ("wi",) if config["feed_forward_proj"] == "relu" else ("wi_0", "wi_1")
        shapes |= {f"{block}1.DenseReluDense.{name}.weight": (ff, width) for name in wide}
        shapes |= {f"{block}1.DenseReluDense.wo.weight": (width, ff), f"{block}1.layer_norm.weight": (width,)}
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, config["num_heads"])
    return random(shapes, seed)


def clip_arrays(config, seed=0):
    """Weights under their names in the files of CLIP's text tower, as transformers 5 writes it alone."""
    width, ff = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.token_embedding.weight": (config["vocab_size"], width),
        "embeddings.position_embedding.weight": (config["max_position_embeddings"], width),
        "final_layer_norm.weight": (width,),
        "final_layer_norm.bias": (width,),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{index}."
        for name, shape in (
            *((f"self_attn.{name}_proj", (width, width)) for name in ("q", "k", "v", "out")),
            ("mlp.fc1", (ff, width)), ("mlp.fc2", (width, ff)), ("layer_norm1", (width,)), ("layer_norm2", (width,)),
        ):  # fmt: skip
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
    return random(shapes, seed)


def bert_arrays(config, seed=0):
    """Weights under their names in the files of BERT's encoder."""
    width, ff = config["hidden_size"], config["intermediate_size"]
    rows = {"word": config["vocab_size"], "position": config["max_position_embeddings"], "token_type": 2}
    shapes = {f"embeddings.{name}_embeddings.weight": (count, width) for name, count in rows.items()}
    dense = {"intermediate.dense": (ff, width), "output.dense": (width, ff)}
    dense |= {f"attention.{name}": (width, width) for name in ("self.query", "self.key", "self.value", "output.dense")}
    norms = {"embeddings.LayerNorm": (width,)}
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}."
        norms |= {f"{layer}{name}.LayerNorm": (width,) for name in ("attention.output", "output")}
        shapes |= {f"{layer}{name}.weight": shape for name, shape in dense.items()}
        shapes |= {f"{layer}{name}.bias": shape[:1] for name, shape in dense.items()}
    for name, shape in norms.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape}
    return random(shapes, seed)


def random(shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.3
        centre = 1 if name.lower().endswith("norm.weight") or ("layer_norm" in name and name.endswith("weight")) else 0
        arrays[name] = (centre + scale * rng.standard_normal(shape)).astype(np.float32)
    return arrays


def write_folder(folder, config, arrays, shards=1):
    """`config.json` and safetensors, in so many files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(arrays, folder / "model.safetensors")
        return
    files = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    for n, file in enumerate(files):
        save_file({name: arrays[name] for name in sorted(arrays)[n::shards]}, folder / file)
    where = {name: files[n % shards] for n, name in enumerate(sorted(arrays))}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def write_tokeniser(folder, start=None, lowercase=True, words=WORDS):
    """A tokenizer of words: 0 padding, 1 the end of a text, 2 unknown, 3 the start where there is one, then words."""
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3} | {word: 4 + n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = f"{start} $A </s>" if start else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("</s>", 1), ("<s>", 3)])
    tokenizer.enable_truncation(4)  # files may ask for both: the parameters decide here
    tokenizer.enable_padding(length=6)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_ul2(folder, **keys):
    """A whole folder; returns the setting that names it."""
    write_folder(folder, T5, t5_arrays(T5), **keys)
    write_tokeniser(folder)
    return TextEncoder(width=16, max_tokens=8, folder=str(folder))


def write_bert(folder, arrays=None, **keys):
    """A whole folder for UL2's place; returns the setting that names it."""
    write_folder(folder, BERT, arrays or bert_arrays(BERT), **keys)
    write_tokeniser(folder, start="<s>")
    return TextEncoder(width=16, max_tokens=8, folder=str(folder))


def write_metaclip(folder, **keys):
    """A whole folder; returns the setting that names it."""
    write_folder(folder, CLIP, clip_arrays(CLIP), **keys)
    write_tokeniser(folder, start="<s>")
    return TextEncoder(width=16, max_tokens=10, folder=str(folder))


def write_byt5(folder, **keys):
    """A whole folder; returns the setting that names it."""
    write_folder(folder, BYT5, t5_arrays(BYT5), **keys)
    return TextEncoder(width=12, max_tokens=20, folder=str(folder))
