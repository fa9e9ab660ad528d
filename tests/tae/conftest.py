import pytest

from moviegen.config import TAEConfig


@pytest.fixture(scope="session")
def small():
    return TAEConfig(base_channels=4, channel_multipliers=(1, 1, 1, 2), num_res_blocks=1, num_groups=2)
