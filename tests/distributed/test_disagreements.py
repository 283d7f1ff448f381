"""Ranks whose calls differ, in order, mask, gradients or placement: an error on each, or the right answer."""

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist

import clearhead
from clearhead import distributed, masks
from clearhead.errors import ClearheadError, DtypeError, OptionError, RanksError, ShapeError

from .world import world

B, H, L, D, E = 2, 4, 12, 5, 7


def tensors(heads=H, length=L):
    generator = torch.Generator().manual_seed(11)
    shapes = (B, H, length, D), (B, heads, length, D), (B, heads, length, E)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def close(ours, theirs, name):
    scale = 1 + theirs.abs().max()
    assert (ours - theirs).abs().max() <= 64 * torch.finfo(theirs.dtype).eps * scale, name


def own_part(tensor, lengths, rank):
    return tensor.narrow(-2, sum(lengths[:rank]), lengths[rank])


def masks_of_few_rows(rank, size):
    """A rank with one row or none passes the mask of its rows; a mask of one row for all is not cut."""
    for lengths in ([4, 1, 0], [1, 1, 1], [0, 1, 0]):
        q, k, v = tensors(length=sum(lengths))
        rows = torch.rand(len(range(sum(lengths))), sum(lengths), generator=torch.Generator().manual_seed(2)) > 0.3
        for mask in (rows, rows[:1]):
            own = own_part(mask, lengths, rank) if mask is rows else mask
            out = distributed.attention(*(own_part(tensor, lengths, rank) for tensor in (q, k, v)), own)
            close(distributed.gather(out), clearhead.attention(q, k, v, mask), lengths)


@pytest.mark.slow
def test_a_rank_with_one_row_or_none_passes_its_own_mask():
    world(3, masks_of_few_rows)


DIFFERENT_MASKS = {
    "slopes": lambda rank: masks.alibi(torch.full((H,), 0.5 + rank)),
    "table": lambda rank: masks.relative(torch.full((H, 3), 0.5 + rank)),
    "documents": lambda rank: masks.document(torch.arange(L) // (3 + rank)) & masks.causal(),
    "many documents": lambda rank: masks.document((torch.arange(2**12) == 2**11) * (1 + rank)),
    "entries": lambda rank: masks.from_dense(torch.ones(L, L, dtype=torch.bool).tril(rank)),
    "a number inside": lambda rank: ~(masks.prefix(2 + rank) | masks.causal()),
}


def different_masks(rank, size):
    for name, mask in DIFFERENT_MASKS.items():
        q, k, v = tensors(length=2**12 if name == "many documents" else L)
        own = [distributed.shard(tensor) for tensor in (q, k, v)]
        with pytest.raises(RanksError, match="differ in their mask"):
            distributed.attention(*own, mask(rank))
        distributed.attention(*(tensor[:, :, :3] for tensor in own), masks.causal())  # they can go on
    table = torch.zeros(H, 3, requires_grad=True)
    with pytest.raises(OptionError, match="requires a gradient"):
        distributed.attention(*own, masks.relative(table) & masks.causal())
    with pytest.raises(OptionError if rank else RanksError, match=r"torch\.func" if rank else "refused"):
        (torch.vmap(distributed.attention) if rank else distributed.attention)(*own)
    with pytest.raises(ClearheadError, match="meta" if rank else "refused"):
        distributed.attention(*(tensor.to("meta") if rank else tensor for tensor in own))


def test_masks_are_compared_by_their_content():
    world(2, different_masks)


def gradients_of_some(rank, size):
    """Each rank needs the gradient of another tensor, and one loss has no lse in it."""
    whole = [tensor.requires_grad_() for tensor in tensors()]
    out, lse = clearhead.attention(*whole, return_lse=True)
    expected = torch.autograd.grad(out.square().sum() + lse[:, :, : L // size].sum(), whole)
    for algorithm in ("ring", "heads"):
        own = [distributed.shard(tensor.detach()) for tensor in whole]
        learning = own[rank].requires_grad_()
        out, lse = distributed.attention(*own, algorithm=algorithm, return_lse=True)
        loss = out.square().sum() + (lse.sum() if rank == 0 else 0)
        loss.backward()
        close(learning.grad, distributed.shard(expected[rank]), algorithm)
        assert all(tensor.grad is None for place, tensor in enumerate(own) if place != rank)


@pytest.mark.slow
def test_ranks_may_need_gradients_of_different_tensors():
    world(2, gradients_of_some)


def orders(rank, size):
    own = [distributed.shard(tensor).requires_grad_() for tensor in tensors()]
    _, matrix = distributed.attention(*own, return_matrix=True)
    calls = {
        "attention": lambda: distributed.attention(*own),
        "entropy": matrix.entropy,
        "gather": lambda: distributed.gather(own[0]),
        "A @ X": lambda: matrix @ torch.ones(L // size, 1),
        "rollout": lambda: distributed.rollout([matrix]) @ torch.ones(L // size, 1),
        "backward of attention": lambda: distributed.attention(*own).sum().backward(),
    }
    for one, other in pairwise(calls):
        mine, theirs = (one, other) if rank == 0 else (other, one)
        if "backward" in other and rank == 1:
            out = distributed.attention(*own)
            with pytest.raises(RanksError, match="but rank 0 calls attention"):
                out.sum().backward()
        elif "backward" in other:
            distributed.attention(*own)
            with pytest.raises(RanksError, match="this rank calls attention, but rank 1 calls backward of attention"):
                distributed.attention(*own)
        else:
            with pytest.raises(RanksError, match=f"this rank calls {mine}, but rank {1 - rank} calls {theirs}"):
                calls[mine]()
        close(matrix.entropy(), matrix.entropy(), "they can go on")
    first, second = (distributed.attention(*own).sum() for _ in range(2))
    with pytest.raises(RanksError, match="Call backward in the same order"):
        (first if rank else second).backward()
    with pytest.raises(RanksError, match="computes rollout with sizes"):
        distributed.rollout([matrix] * (1 + rank)) @ torch.ones(L // size, 1)
    query, keys = own[0][:, :, : (5, 6)[rank]], [tensor[:, :, : (6, 5)[rank]] for tensor in own[1:]]
    _, uneven = distributed.attention(query, *keys, return_matrix=True)
    with pytest.raises(ShapeError, match="the ranks' rows and keys have different positions"):
        distributed.rollout([uneven])


def test_calls_in_another_order_are_named():
    world(2, orders)


def parts_of_different_tensors(rank, size):
    for wrong in (torch.zeros(2, 3, 5), torch.zeros(2, 3, 4).double()):
        with pytest.raises(RanksError, match="of another shape, dtype or placement"):
            distributed.gather(wrong if rank else torch.zeros(2, 3, 4))
    with pytest.raises(OptionError if rank else RanksError, match="sideways" if rank else "refused"):
        distributed.gather(torch.zeros(2, 3, 4), placement="sideways" if rank else "contiguous")
    with pytest.raises(IndexError if rank else RanksError):
        distributed.gather(torch.zeros(2, 3, 4), 7 if rank else -2)
    own = [distributed.shard(tensor) for tensor in tensors()]
    _, matrix = distributed.attention(*own, return_matrix=True)
    with pytest.raises(DtypeError, match=r"mean_distance got 0\.5, expected a whole number"):
        matrix.mean_distance(offset=0.5)
    with pytest.raises(OptionError if rank else RanksError, match="63 bits" if rank else "refused"):
        matrix.mass_within(2**70 if rank else 1)

    def where(batch, rows, keys):
        if rank:
            raise ZeroDivisionError("mine")
        return rows[:, None] == keys

    with pytest.raises(ZeroDivisionError if rank else RanksError, match="mine"):
        matrix.mass_where(where)
    assert distributed.gather(torch.full((1, 1), rank)).flatten().tolist() == list(range(size))


def test_wrong_arguments_of_one_rank_end_the_call_on_all():
    world(3, parts_of_different_tensors)


def products(rank, size):
    """The gradients of A @ X and A.mT @ Y with respect to X and Y equal those of the whole matrix."""
    q, k, v = tensors()
    _, whole = clearhead.attention(q, k, v, is_causal=True, return_matrix=True)
    own = [distributed.shard(tensor, placement="zigzag") for tensor in (q, k, v)]
    _, matrix = distributed.attention(*own, is_causal=True, placement="zigzag", return_matrix=True)
    dense = whole.to_dense()
    for name, left, right in (("A @ X", dense, matrix), ("A.mT @ Y", dense.mT, matrix.mT)):
        columns = torch.randn(1, 1, L, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        columns.requires_grad_()
        (left @ columns).square().sum().backward()
        part = distributed.shard(columns.detach(), placement="zigzag").requires_grad_()
        (right @ part).square().sum().backward()
        close(part.grad, distributed.shard(columns.grad, placement="zigzag"), name)
    with pytest.raises(RanksError, match="A @ X with sizes"):
        matrix @ torch.ones(L // size, 1, requires_grad=rank == 0)


def test_products_are_differentiable_in_their_columns():
    world(2, products)


def placements(rank, size):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "sequence"))
    nameless = init_device_mesh("cpu", (2, 2))
    q, k, v = tensors(heads=2)
    sinks = torch.linspace(-1, 1, H, dtype=torch.float64)

    def put(tensor, placed, on=mesh):
        return distribute_tensor(tensor, on, placed)

    for on in (mesh, nameless):
        for other in (Shard(0), Shard(1), Replicate()):
            placed = [other, Shard(2)]
            whole = [tensor.clone().requires_grad_() for tensor in (q, k, v, sinks)]
            expected = clearhead.attention(*whole[:3], enable_gqa=True, sinks=whole[3])
            expected.square().sum().backward()
            given = [put(tensor, placed, on).requires_grad_() for tensor in (q, k, v)]
            given.append(put(sinks, [Shard(0) if other == Shard(1) else Replicate(), Replicate()], on).requires_grad_())
            out = distributed.attention(*given[:3], enable_gqa=True, sinks=given[3])
            out.square().sum().backward()
            close(out.full_tensor(), expected, other)
            for ours, theirs in zip(given, whole, strict=True):
                close(ours.grad.full_tensor(), theirs.grad, (other, tuple(theirs.shape)))

    own = [Replicate(), Shard(2)]
    query, key, value = (put(tensor, own) for tensor in (q, k, v))
    partial = DTensor.from_local(value.to_local(), mesh, [Partial(), Shard(2)], run_check=False)
    by_heads = put(q, [Shard(1), Shard(2)])
    widths = [put(tensor, [Shard(3), Shard(2)]) for tensor in (q, k, v)]
    call = {"enable_gqa": True}
    for wrong, options, match in (
        ((by_heads, key, value), {}, r"key has placements \(Replicate\(\), .* on the mesh .* Shard key as query"),
        ((query, key, partial), {}, "value has placements"),
        ((query, key.to_local(), value), {}, "key is a plain tensor"),
        ((query.to_local(), key, value), {"mesh": mesh["sequence"]}, "key is a DTensor and query is not"),
        (widths, {}, "each rank has a part of every number"),
        ((query, key, value), {"mesh": mesh["data"]}, "Leave mesh out"),
        ((query, key, value), {"sinks": put(sinks, [Shard(0), Replicate()])}, "sinks has placements"),
    ):
        with pytest.raises(OptionError, match=match):
            distributed.attention(*wrong, **call, **options)
    with pytest.raises(DtypeError, match="is a DTensor"):
        distributed.gather(query, mesh=mesh["sequence"])
    dist.barrier()


@pytest.mark.slow
def test_every_placement_is_right_or_refused():
    world(4, placements)
