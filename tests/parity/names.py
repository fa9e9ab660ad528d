"""What both sides of a comparison call the same: PyTorch's side, and MindSpore's, which does not import PyTorch."""

START, WEIGHTS, RECORD = "start.safetensors", "weights.safetensors", "training.json"


def torch_name(name: str) -> str:
    """`encoder.norm_out.gamma` -> `encoder.norm_out.weight`."""
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")
