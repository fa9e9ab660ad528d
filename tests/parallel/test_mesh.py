import pytest

from moviegen.parallel.mesh import Mesh
from moviegen.parallel.ulysses import check_heads, padded


@pytest.mark.parametrize(("size", "shards"), [(1, 1), (4, 1), (4, 2), (4, 4), (12, 3)])
def test_groups_divide_the_ranks_and_each_shares_one_batch(size, shards):
    meshes = [Mesh(rank, size, shards) for rank in range(size)]
    for mesh in meshes:
        assert mesh.shard_group[mesh.shard_rank] == mesh.rank
        assert {meshes[rank].data_rank for rank in mesh.shard_group} == {mesh.data_rank}
        assert [meshes[rank].shard_rank for rank in mesh.shard_group] == list(range(shards))
    assert {mesh.data_rank for mesh in meshes} == set(range(size // shards))
    assert all(mesh.data_size == size // shards for mesh in meshes)


def test_impossible_divisions_are_refused():
    with pytest.raises(ValueError, match="6 workers cannot form groups of 4"):
        Mesh(0, 6, 4)
    with pytest.raises(ValueError, match="16 attention heads cannot be divided over 3"):
        check_heads(16, 3)


@pytest.mark.parametrize(("count", "shards", "wanted"), [(6, 4, 8), (8, 4, 8), (1, 4, 4), (73_728, 8, 73_728)])
def test_tokens_are_padded_to_a_multiple(count, shards, wanted):
    assert padded(count, shards) == wanted
