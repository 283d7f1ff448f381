"""Placement: which positions each rank holds."""

import pytest
import torch

from clearhead.distributed.placement import pieces, positions, split_evenly
from clearhead.distributed.ring import Merged
from clearhead.errors import OptionError, ShapeError


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("placement", ["contiguous", "zigzag"])
def test_every_position_is_held_once(placement, ranks):
    held = torch.cat([positions(own) for own in pieces(placement, [6] * ranks)])
    assert sorted(held.tolist()) == list(range(6 * ranks))


def test_zigzag_balances_the_work_of_a_causal_mask():
    work = [int((positions(own) + 1).sum()) for own in pieces("zigzag", [14] * 3)]
    assert len(set(work)) == 1


def test_split_evenly_equals_torchs_shard():
    from torch.distributed.tensor import Shard

    for length in (0, 1, 6, 7, 13):
        for ranks in (1, 2, 3, 5):
            parts, _ = Shard(0)._split_tensor(torch.zeros(length), ranks, with_padding=False)
            assert split_evenly(length, ranks) == [len(part) for part in parts]


def test_an_unknown_placement_and_odd_lengths_are_refused():
    with pytest.raises(OptionError, match=r"'striped' is unknown\. Use 'contiguous' or 'zigzag'"):
        pieces("striped", [4])
    with pytest.raises(ShapeError, match="hold 3, 3 positions; zigzag needs the same even number"):
        pieces("zigzag", [3, 3])


def test_merging_keeps_an_infinite_output():
    total = Merged(torch.zeros(1, 1, 2, 3), 5)
    total.add(slice(0, 2), torch.full((1, 1, 2, 5), torch.inf), torch.tensor([[[0.0, 1.0]]]))
    total.add(slice(0, 2), torch.zeros(1, 1, 2, 5), torch.tensor([[[-torch.inf, 2.0]]]))
    assert total.result(None)[0].isposinf().all()
