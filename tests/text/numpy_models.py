"""T5 and BERT encoders and CLIP's text tower for one text, in float64 NumPy, token by token where that is plainer."""

import math

import numpy as np


def t5_encoder(arrays, config, ids):
    """Last hidden state (n, D) of a text of n tokens without padding."""
    get = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    eps = config.get("layer_norm_epsilon", 1e-6)
    heads, width = config["num_heads"], config["d_kv"]
    table = get["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias = np.array([[table[bucket(key - query, 32, 128)] for key in range(len(ids))] for query in range(len(ids))])
    x = get["shared.weight"][list(ids)]
    for index in range(config["num_layers"]):
        layer = f"encoder.block.{index}.layer.0."
        normed = root_mean_square(x, get[layer + "layer_norm.weight"], eps)
        q, k, v = (normed @ get[f"{layer}SelfAttention.{name}.weight"].T for name in "qkv")
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            mixed.append(softmax(q[:, part] @ k[:, part].T + bias[:, :, head]) @ v[:, part])
        x = x + np.concatenate(mixed, 1) @ get[layer + "SelfAttention.o.weight"].T
        layer = f"encoder.block.{index}.layer.1."
        normed = root_mean_square(x, get[layer + "layer_norm.weight"], eps)
        dense = {name: get.get(f"{layer}DenseReluDense.{name}.weight") for name in ("wi", "wi_0", "wi_1", "wo")}
        if config["feed_forward_proj"] == "relu":
            hidden = relu(normed @ dense["wi"].T)
        else:
            hidden = ACTIVATIONS[config["feed_forward_proj"]](normed @ dense["wi_0"].T) * (normed @ dense["wi_1"].T)
        x = x + hidden @ dense["wo"].T
    return root_mean_square(x, get["encoder.final_layer_norm.weight"], eps)


def layers(arrays, eps):
    """The arrays in float64, and the affine map and the layer norm of a name among them."""
    get = {name: np.asarray(array, np.float64) for name, array in arrays.items()}

    def affine(x, name):
        return x @ get[name + ".weight"].T + get[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(1, keepdims=True)
        scale = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
        return centred / scale * get[name + ".weight"] + get[name + ".bias"]

    return get, affine, norm


def clip_tower(arrays, config, ids):
    """Last hidden state (n, D) of a text of n tokens, each of which sees itself and those before it."""
    get, dense, norm = layers(arrays, config["layer_norm_eps"])
    heads, n = config["num_attention_heads"], len(ids)
    activation = ACTIVATIONS[config["hidden_act"]]
    x = get["embeddings.token_embedding.weight"][list(ids)] + get["embeddings.position_embedding.weight"][:n]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{index}."
        normed = norm(x, layer + "layer_norm1")
        q, k, v = (dense(normed, f"{layer}self_attn.{name}_proj") for name in "qkv")
        width, mixed = q.shape[1] // heads, np.zeros_like(q)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for place in range(n):
                seen = slice(0, place + 1)
                weights = softmax(q[place, part] @ k[seen, part].T / math.sqrt(width))
                mixed[place, part] = weights @ v[seen, part]
        x = x + dense(mixed, layer + "self_attn.out_proj")
        x = x + dense(activation(dense(norm(x, layer + "layer_norm2"), layer + "mlp.fc1")), layer + "mlp.fc2")
    return norm(x, "final_layer_norm")


def bert_encoder(arrays, config, ids):
    """Last hidden state (n, D) of a text of n tokens without padding."""
    get, dense, norm = layers(arrays, config["layer_norm_eps"])
    words, places, types = (get[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
    x = norm(words[list(ids)] + places[: len(ids)] + types[0], "embeddings.LayerNorm")
    activation = ACTIVATIONS[config["hidden_act"]]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}."
        q, k, v = (dense(x, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        parts = np.split(np.arange(q.shape[1]), config["num_attention_heads"])
        mixed = [softmax(q[:, part] @ k[:, part].T / math.sqrt(len(part))) @ v[:, part] for part in parts]
        x = norm(
            x + dense(np.concatenate(mixed, 1), layer + "attention.output.dense"), layer + "attention.output.LayerNorm"
        )
        hidden = activation(dense(x, layer + "intermediate.dense"))
        x = norm(x + dense(hidden, layer + "output.dense"), layer + "output.LayerNorm")
    return x


def bucket(distance, num_buckets, max_distance):
    """T5's bucket in whole numbers: the k-th range past the single distances begins where
    (distance / exact) ** ranges reaches (max_distance / exact) ** k."""
    side = num_buckets // 2
    exact = side // 2
    ranges, size = side - exact, abs(distance)
    found = size
    if size >= exact:
        begun = (k for k in range(ranges) if size**ranges * exact**k >= max_distance**k * exact**ranges)
        found = exact + max(begun)
    return found + (side if distance > 0 else 0)


def softmax(x):
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def root_mean_square(x, weight, eps):
    return x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * weight


def relu(x):
    return np.maximum(x, 0)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_new(x):
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


def silu(x):
    return x / (1 + np.exp(-x))


ACTIVATIONS = {
    "relu": relu, "gated-gelu": gelu_new, "gelu_new": gelu_new, "gated-silu": silu, "quick_gelu": quick_gelu,
    "gelu": gelu,
}  # fmt: skip
