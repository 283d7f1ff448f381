"""A sequence over 1 to 4 ranks gives the output, lse and gradients of one process."""

import os
import signal

import pytest
import torch

import clearhead
from clearhead import distributed, masks
from clearhead.errors import DtypeError, KernelError, OptionError, RanksError, ShapeError

from .cases import CASES, LENGTH, H, alone, tensors, together
from .world import world

ALGORITHMS = [("contiguous", "ring"), ("zigzag", "ring"), ("contiguous", "heads"), ("zigzag", "heads")]


def close(actual, expected, dtype):
    """Check that the difference is at most 32 roundings of the largest number."""
    finite = torch.where(expected == -torch.inf, 0, expected).double()
    assert torch.equal(actual == -torch.inf, expected == -torch.inf)
    error = (torch.where(actual == -torch.inf, 0, actual).double() - finite).abs().max()
    bound = 32 * torch.finfo(dtype).eps * max(1.0, float(finite.abs().max()))
    assert error <= bound, f"off by {error:.2g}, allowed {bound:.2g}"


def equals_one_process(rank, size, names, algorithms, dtypes):
    for name in names:
        for dtype in dtypes:
            expected, upstream = alone(name, dtype)
            for placement, algorithm in algorithms:
                if algorithm == "heads" and not (CASES[name].heads and H % size == 0 and size <= 2):
                    continue
                actual = together(name, dtype, placement, algorithm, upstream)
                for number, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
                    try:
                        close(mine, theirs, dtype)
                    except AssertionError as error:
                        raise AssertionError(f"{name}, {placement}, {algorithm}, {dtype}, {number}: {error}") from None


@pytest.mark.parametrize(("size", "names"), [(2, list(CASES)), (3, ["causal", "documents", "dropout"])])
@pytest.mark.slow
def test_equals_one_process(size, names):
    world(size, equals_one_process, names, ALGORITHMS, [torch.float32])


@pytest.mark.stress
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_equals_one_process_in_every_dtype(size):
    world(
        size, equals_one_process, list(CASES), ALGORITHMS, [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    )


def drops_the_same(rank, size):
    query, key = torch.zeros(1, 2, LENGTH, 5), torch.zeros(1, 2, LENGTH, 5)
    value = torch.eye(LENGTH).expand(1, 2, -1, -1)  # the output is the weights
    torch.manual_seed(7)
    expected = clearhead.attention(query, key, value, dropout_p=0.5)
    torch.manual_seed(7 + rank)  # rank 0's state is used
    for placement in ("contiguous", "zigzag"):
        torch.manual_seed(7 + rank)
        own = [distributed.shard(tensor, placement=placement) for tensor in (query, key, value)]
        out = distributed.gather(distributed.attention(*own, dropout_p=0.5, placement=placement), placement=placement)
        assert torch.equal(out == 0, expected == 0)
        assert (out == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_dropout_has_the_pattern_of_one_process():
    world(3, drops_the_same)


def long_masks(rank, size):
    """Masks with several runs of keys for a block of queries, which needs a longer sequence."""
    length, slopes = 600, torch.linspace(0.1, 0.5, 2)
    query, key, value = torch.randn(3, 1, 2, length, 5, generator=torch.Generator().manual_seed(0))
    sparse = masks.causal() & (masks.prefix(5) | masks.sliding_window(7))
    for mask, algorithms in ((sparse, ("ring", "heads")), (sparse & masks.alibi(slopes), ("ring",))):
        expected = clearhead.attention(query, key, value, mask, kernel="reference")
        for algorithm in algorithms:
            own = [distributed.shard(tensor) for tensor in (query, key, value)]
            out = distributed.gather(distributed.attention(*own, mask, algorithm=algorithm))
            close(out, expected, torch.float32)
    with pytest.raises(OptionError, match="has a bias and is more than a band"):
        distributed.attention(*own, mask, algorithm="heads")


@pytest.mark.slow
def test_masks_with_several_runs_of_keys():
    world(2, long_masks)


def uneven(rank, size):
    query, key, value = tensors(torch.float32)
    lengths = [5, 0, LENGTH - 5]
    start = sum(lengths[:rank])
    part = slice(start, start + lengths[rank])
    out = distributed.attention(
        query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True, enable_gqa=True, algorithm="ring"
    )
    whole = clearhead.attention(query, key, value, is_causal=True, enable_gqa=True)
    if lengths[rank]:
        close(out, whole[:, :, part], torch.float32)
    grads = torch.autograd.grad(out.sum(), (query, key, value))
    exact = torch.autograd.grad(whole.sum(), (query, key, value))
    for grad, expected in zip(grads, exact, strict=True):
        torch.distributed.all_reduce(grad)
        close(grad, expected, torch.float32)


def test_ranks_may_hold_different_lengths_or_nothing():
    world(3, uneven)


def dtensors(rank, size):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("sequence",))
    inputs = tensors(torch.float32)
    sharded = [distribute_tensor(tensor.detach(), mesh, [Shard(2)]).requires_grad_() for tensor in inputs]
    out = distributed.attention(*sharded, is_causal=True, enable_gqa=True)
    expected = clearhead.attention(*inputs, is_causal=True, enable_gqa=True)
    assert tuple(out.shape) == tuple(expected.shape)
    close(out.full_tensor(), expected, torch.float32)
    out.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(sharded, inputs, strict=True):
        close(mine.grad.full_tensor(), theirs.grad, torch.float32)
    wrong = distribute_tensor(inputs[0].detach(), mesh, [Shard(1)])
    with pytest.raises(OptionError, match=r"Shard\(2\), its sequence axis"):
        distributed.attention(wrong, *sharded[1:])
    query = wrong if rank else sharded[0]
    with pytest.raises(OptionError if rank else RanksError, match="its sequence axis" if rank else "rank 1 refused"):
        distributed.attention(query, *sharded[1:], enable_gqa=True)


@pytest.mark.slow
def test_dtensors_are_accepted_and_returned():
    world(2, dtensors)


class OwnMask(masks.Mask):
    def rule(self, b, h, q, k):
        return k <= q


def errors(rank, size):
    query, key, value = (tensor.detach() for tensor in tensors(torch.float32))
    call = {"enable_gqa": True}
    with pytest.raises(RanksError, match="rank 0 and rank 1 differ in is_causal"):
        distributed.attention(query, key, value, is_causal=bool(rank), **call)
    with pytest.raises(ShapeError if rank else RanksError, match="head_dim" if rank else "rank 1 refused its own call"):
        distributed.attention(query, key[..., : 11 - rank], value, **call)
    with pytest.raises(OptionError, match="'sideways' is unknown"):
        distributed.attention(query, key, value, placement="sideways", **call)
    for name, good, error in (
        ("placement", "contiguous", OptionError), ("algorithm", None, OptionError), ("kernel", None, KernelError)
    ):  # fmt: skip
        with pytest.raises(error if rank else RanksError, match="sideways" if rank else "rank 1 refused its own call"):
            distributed.attention(query, key, value, **{name: "sideways" if rank else good}, **call)
    with pytest.raises(RanksError, match="differ in their mask"):
        distributed.attention(query, key, value, masks.sliding_window(3 + rank), **call)
    mask = [OwnMask() for _ in range(rank + 1)][-1]  # its repr has an address, which differs by rank
    distributed.attention(query, key, value, mask, **call)
    for wrong in ("causal", [[True]], lambda *positions: True):
        with pytest.raises(DtypeError if rank else RanksError, match="one of clearhead.masks" if rank else "refused"):
            distributed.attention(query, key, value, wrong if rank else torch.ones(1, 2 * LENGTH), **call)
    for mesh in ("cpu", 0, [0, 1]):
        with pytest.raises(OptionError, match="expected a DeviceMesh of one axis, a process group"):
            distributed.attention(query, key, value, mesh=mesh, **call)
    with pytest.raises(RanksError, match="not one of the ranks of the mesh"):
        distributed.attention(query, key, value, mesh=torch.distributed.GroupMember.NON_GROUP_MEMBER, **call)
    with pytest.raises(RanksError, match="differ in algorithm"):
        distributed.attention(query, key, value, algorithm="heads" if rank else "ring", **call)
    dense = torch.ones(LENGTH, (2 - rank) * LENGTH, dtype=torch.bool)
    with pytest.raises(ShapeError if rank else RanksError, match="has 48 keys" if rank else "rank 1 refused"):
        distributed.attention(query, key, value, dense, **call)
    mask, shorter = torch.ones(LENGTH, 2 * LENGTH, dtype=torch.bool), slice(0, LENGTH - rank)
    with pytest.raises(OptionError, match="the mask has rows, and each rank has only its own"):
        distributed.attention(query, key, value, mask, algorithm="heads", **call)
    with pytest.raises(ShapeError, match="keys, but the whole sequence has 96"):
        distributed.attention(query, key, value, torch.ones(LENGTH, LENGTH, dtype=torch.bool), **call)
    own = [tensor[:, :, shorter] for tensor in (query, key, value)]
    with pytest.raises(ShapeError, match="zigzag needs the same even number"):
        distributed.attention(*own, placement="zigzag", **call)
    close(
        distributed.attention(query, key, value, **call), clearhead.attention(query, key, value, **call), torch.float32
    )


def test_an_error_on_one_rank_raises_on_every_rank_and_they_can_go_on():
    world(2, errors)


def with_one_gone(rank, size):
    inputs = [distributed.shard(tensor) for tensor in tensors(torch.float32)]
    distributed.attention(*inputs, enable_gqa=True)
    if rank == 1:
        os._exit(3)
    with pytest.raises(RanksError, match="another rank did not answer"):
        distributed.attention(*inputs, enable_gqa=True)
    return True


def test_a_rank_that_ends_raises_an_error_on_the_others():
    assert world(3, with_one_gone, dies=[1]) == [True, None, True]


def with_one_lost_on_the_way(rank, size, algorithm, moment, way):
    """Rank 1 ends as it is about to exchange for the second time, by SIGKILL or by an exception that nobody catches."""
    heads = torch.randn(1, 2 * size, 7 * size, 5, generator=torch.Generator().manual_seed(3))
    inputs = [distributed.shard(heads).requires_grad_() for _ in range(3)]

    def attend():
        return distributed.attention(*inputs, algorithm=algorithm)

    def end_on_the_second(exchange):
        calls = []

        def counted(*arguments, **options):
            calls.append(arguments)
            if len(calls) == 2:
                if way == "SIGKILL":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise SystemExit(1)
            return exchange(*arguments, **options)

        return counted

    work = attend if moment == "forward" else attend().sum().backward
    if rank == 1:
        name = "batch_isend_irecv" if algorithm == "ring" else "all_to_all_single"
        setattr(torch.distributed, name, end_on_the_second(getattr(torch.distributed, name)))
    why = r"(The transport reports: \w[^\n]*[^.]|rank \d left after \w[^\n]*[^.])"
    with pytest.raises(RanksError, match=rf"another rank did not answer .*{why}$") as raised:
        work()
    assert "pytorch/" not in str(raised.value)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("way", ["SIGKILL", "exception"])
@pytest.mark.parametrize("moment", ["forward", "backward"])
@pytest.mark.parametrize("algorithm", ["ring", "heads"])
def test_a_rank_that_is_lost_on_the_way_ends_the_others_with_a_sentence(algorithm, moment, way):
    assert world(3, with_one_lost_on_the_way, algorithm, moment, way, dies=[1]) == [True, None, True]


def test_without_a_process_group_the_error_says_how_to_start_one():
    query = torch.zeros(1, 1, 2, 3)
    with pytest.raises(RanksError, match=r"torch\.distributed is not initialised"):
        distributed.attention(query, query, query)


def inside_context_parallel(rank, size):
    """torch's context_parallel shards tensors in place in zigzag order, so a call inside computes its rows."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.experimental import context_parallel

    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("cp",))
    q, k, v = (tensor.detach() for tensor in tensors(torch.float32))
    whole = clearhead.attention(q, k, v, is_causal=True, enable_gqa=True)
    with context_parallel(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2]):
        assert q.shape[2] == LENGTH // size
        out = distributed.attention(q, k, v, is_causal=True, enable_gqa=True, mesh=mesh, placement="zigzag")
    assert torch.allclose(distributed.gather(out, mesh=mesh, placement="zigzag"), whole, atol=1e-5)


@pytest.mark.stress
def test_inside_torchs_context_parallel():
    world(2, inside_context_parallel)


def refuses_a_second_derivative(rank, size):
    for algorithm in ("ring", "heads"):
        q, k, v = (distributed.shard(tensor.detach()).requires_grad_() for tensor in tensors(torch.float32))
        out, matrix = distributed.attention(
            q, k, v, enable_gqa=True, is_causal=True, algorithm=algorithm, return_matrix=True
        )
        x = torch.ones(k.shape[2], 2, requires_grad=True)
        y = torch.ones(q.shape[2], 2, requires_grad=True)
        for answer, leaf in ((out, q), (matrix @ x, x), (matrix.mT @ y, y)):
            (grad,) = torch.autograd.grad(answer.sum(), leaf, create_graph=True)
            with pytest.raises(KernelError, match=r"differentiated twice.*use torch.func.hessian"):
                grad.square().sum().backward()


@pytest.mark.slow
def test_a_second_derivative_is_refused():
    world(2, refuses_a_second_derivative)
