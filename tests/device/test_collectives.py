"""What is asked of HCCL on cards: stand-ins that do what MindSpore documents, in one process, against NumPy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from moviegen.device import collectives
from moviegen.device.collectives import AllToAll, GroupGather, sum_shard
from moviegen.device.world import World

GROUP = (2, 3, 4)  # of a job of six: neither the first ranks nor all
RNG = np.random.default_rng(0)


class Job:
    """All ranks' tensors, and the collectives of one rank that see them."""

    def __init__(self, tensors):
        self.tensors, self.rank, self.groups = tensors, 0, {}

    def members(self, group):
        return self.groups[group] if group else list(self.tensors)

    def all_to_all(self, split_count, split_dim, concat_dim, group=None):
        ranks = self.members(group)
        assert split_count == len(ranks)

        def exchange(x):
            np.testing.assert_array_equal(x.asnumpy(), self.tensors[self.rank])
            parts = [np.split(self.tensors[rank], split_count, split_dim)[ranks.index(self.rank)] for rank in ranks]
            return ms.Tensor(np.concatenate(parts, concat_dim))

        return exchange

    def all_gather(self, group=None):
        ranks = self.members(group)

        def gather(x):
            np.testing.assert_array_equal(x.asnumpy()[0], self.tensors[self.rank])
            return ms.Tensor(np.concatenate([self.tensors[rank][None] for rank in ranks]))

        return gather

    def reduce_scatter(self):
        ranks = self.members(None)

        def reduce(x):
            np.testing.assert_array_equal(x.asnumpy(), self.tensors[self.rank])
            return ms.Tensor(np.split(sum(self.tensors.values()), len(ranks))[ranks.index(self.rank)])

        return reduce


@pytest.fixture
def job_of(monkeypatch):
    """A job on cards whose ranks have these tensors."""

    def make(tensors):
        job = Job(tensors)
        monkeypatch.setattr(collectives, "target", lambda: "Ascend")
        monkeypatch.setattr(collectives, "create_group", job.groups.__setitem__)
        monkeypatch.setattr(collectives, "_created", set())
        for name, stand_in in (("AlltoAll", job.all_to_all), ("AllGather", job.all_gather)):
            monkeypatch.setattr(ops, name, stand_in)
        monkeypatch.setattr(ops, "ReduceScatter", job.reduce_scatter)
        return job

    return make


@pytest.mark.parametrize(("split", "join", "shape"), [(1, 2, (2, 6, 4, 5)), (2, 1, (2, 2, 12, 5))])
def test_all_to_all_swaps_heads_for_tokens_within_its_group(job_of, split, join, shape):
    tensors = {rank: RNG.standard_normal(shape).astype(np.float32) for rank in range(6)}
    job = job_of(tensors)
    for place, job.rank in enumerate(GROUP):
        found = AllToAll(GROUP, job.rank, split, join).construct(ms.Tensor(tensors[job.rank])).asnumpy()
        own = slice(place * shape[split] // 3, (place + 1) * shape[split] // 3)
        parts = [tensors[rank][:, own] if split == 1 else tensors[rank][:, :, own] for rank in GROUP]
        np.testing.assert_array_equal(found, np.concatenate(parts, join))
    assert job.groups == {"ranks 2 to 4": [2, 3, 4]}  # made once


def test_gathering_is_of_the_group(job_of):
    tensors = {rank: RNG.standard_normal((2, 3)).astype(np.float32) for rank in range(6)}
    job = job_of(tensors)
    for job.rank in GROUP:
        found = GroupGather(GROUP).construct(ms.Tensor(tensors[job.rank])).asnumpy()
        np.testing.assert_array_equal(found, [tensors[rank] for rank in GROUP])


def test_each_rank_gets_its_part_of_a_sum(job_of):
    tensors = {rank: RNG.integers(0, 9, 12).astype(np.float32) for rank in range(6)}
    job = job_of(tensors)
    for job.rank in range(6):
        found = sum_shard(World(job.rank, 6))(ms.Tensor(tensors[job.rank])).asnumpy()
        np.testing.assert_array_equal(found, sum(tensors.values())[2 * job.rank : 2 * job.rank + 2])
