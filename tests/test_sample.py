import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from moviegen import device, flow, schedule
from moviegen.sample import GuidedVelocity, euler, noise_for

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_euler_is_exact_where_the_velocity_is_constant(name):
    start, constant = RNG.standard_normal((2, 4)).astype(np.float32)
    end = euler(start, lambda x, t: constant, schedule.get(name, 10))
    np.testing.assert_allclose(end, start + constant, atol=1e-6)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_euler_steps_against_the_product_of_their_factors(name):
    times = schedule.get(name, 10)
    end = euler(np.ones(3), lambda x, t: -2 * x, times)
    np.testing.assert_allclose(end, np.prod(1 - 2 * np.diff(times)) * np.ones(3), rtol=1e-5)


def test_euler_is_of_first_order_and_asks_at_each_steps_start():
    errors = [abs(euler(np.zeros(1), lambda x, t: 3 * t**2, schedule.get("linear", n))[0] - 1) for n in (50, 100)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)
    asked = []
    euler(np.zeros(1), lambda x, t: asked.append(t) or x, np.array([0, 0.25, 1]))
    assert asked == [0, 0.25]


class Stub(nn.Cell):
    """Half the sum of its inputs' telling parts."""

    def construct(self, x, timestep, ul2, metaclip, byt5, keep):
        return x + timestep.reshape(-1, 1, 1, 1, 1) + ul2.reshape(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_moves_from_the_empty_captions_velocity_to_the_captions(guidance):
    device.start(0)
    x = RNG.standard_normal((1, 1, 1, 2, 2)).astype(np.float32)
    text = ms.Tensor([[[5.0]], [[2.0]]], ms.float32)  # the caption's first, then the empty one's
    out = GuidedVelocity(Stub(), guidance)(ms.Tensor(x), ms.Tensor([0.25, 0.25], ms.float32), text, text, text, text)
    conditioned, unconditioned = (x + flow.timestep(0.25) + value for value in (5, 2))
    np.testing.assert_allclose(out.asnumpy(), unconditioned + guidance * (conditioned - unconditioned), rtol=1e-5)


def test_a_seed_gives_the_same_start_whatever_was_drawn_before():
    first = noise_for(3, (2, 4))
    noise_for(4, (2, 4))
    np.testing.assert_array_equal(noise_for(3, (2, 4)), first)
    assert (noise_for(4, (2, 4)) != first).any()
