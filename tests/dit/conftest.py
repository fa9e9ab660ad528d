import pytest

from moviegen.config import DiTConfig


@pytest.fixture(scope="session")
def small():
    return DiTConfig(
        width=16, ffn_width=24, num_heads=2, num_layers=1, max_size=(1, 2, 3), latent_channels=4,
        text_widths=(6, 5, 4), frequency_width=8,
    )  # fmt: skip
