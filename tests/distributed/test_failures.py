"""A rank that fails or is interrupted in the middle of a call: every rank raises, and none waits."""

import functools
import os
import signal

import pytest
import torch
import torch.distributed as dist

import clearhead
from clearhead import distributed, masks
from clearhead.errors import RanksError

from .world import world

B, H, EACH, D, E = 2, 12, 7, 5, 3  # 12 heads: exchanged between 2, 3 and 4 ranks


class Failing(masks.Mask):
    """Everything may be attended; raises on one rank when it is evaluated for the n-th time after `arm`."""

    error: type[BaseException] = ZeroDivisionError
    left = 0  # of the class: not part of the content that ranks compare

    def rule(self, b, h, q, k):
        if Failing.left:
            Failing.left -= 1
            if not Failing.left:
                raise Failing.error("mine")
        return (q >= 0) & (k >= 0)


def arm(rank, who=1, n=1, error=ZeroDivisionError):
    Failing.left, Failing.error = n * (rank == who), error


def whole(size):
    generator = torch.Generator().manual_seed(11)
    shapes = (B, H, EACH * size, D), (B, H, EACH * size, D), (B, H, EACH * size, E)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def close(ours, theirs):
    assert (ours - theirs).abs().max() <= 64 * torch.finfo(theirs.dtype).eps * (1 + theirs.abs().max())


def raises(rank, call, who=1, error=ZeroDivisionError):
    """Check that a call raises rank `who`'s own error there, and one that names it on the others."""
    named = rf"rank {who} raised an error during .*: {error.__name__}: mine"
    with pytest.raises(error if rank == who else RanksError, match="mine" if rank == who else named):
        call()


def rules(rank, size, algorithm):
    expected = clearhead.attention(*whole(size))
    own = [distributed.shard(tensor).requires_grad_() for tensor in whole(size)]

    def attend(mask):
        return distributed.attention(*own, mask, algorithm=algorithm)

    for n in (1, size):  # the first block, and the last
        for who in (0, size - 1):
            n = n if algorithm == "ring" else 1
            arm(rank, who, n)
            raises(rank, lambda: attend(Failing()), who)
            if algorithm == "ring":  # the kernels of "heads" keep the entries for the backward pass
                loss = attend(Failing()).sum()
                arm(rank, who, n)
                raises(rank, loss.backward, who)
            arm(rank, who, 0)
            out = attend(Failing())  # they can go on
            close(distributed.gather(out), expected)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ring", "heads"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_rule_that_raises_on_one_rank_is_an_error_on_all(size, algorithm):
    world(size, rules, algorithm)


def kernels(rank, size):
    """Out of memory in a kernel, forward or backward."""
    own = [distributed.shard(tensor).requires_grad_() for tensor in whole(size)]

    def fails(*_arguments, **_options):
        raise torch.OutOfMemoryError("mine")

    for algorithm in ("ring", "heads"):
        loss = distributed.attention(*own, algorithm=algorithm, kernel="torch").sum()
        kernel = clearhead.kernels.registry.KERNELS["torch"]
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                patch.setattr(type(kernel), "forward", fails)
                patch.setattr(type(kernel), "backward", fails)
            call = {"algorithm": algorithm, "kernel": "torch"}
            raises(rank, lambda: distributed.attention(*own, **call), error=torch.OutOfMemoryError)  # noqa: B023
            raises(rank, loss.backward, error=torch.OutOfMemoryError)
        distributed.attention(*own, algorithm=algorithm, kernel="torch").sum().backward()


@pytest.mark.slow
def test_a_kernel_without_memory_on_one_rank_is_an_error_on_all():
    world(3, kernels)


def in_place(rank, size):
    own = [distributed.shard(tensor).requires_grad_() for tensor in whole(size)]
    query = own[0] * 1
    loss = distributed.attention(query, *own[1:], algorithm="ring").sum()
    if rank == 1:
        query.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation" if rank == 1 else "rank 1 refused"):
        loss.backward()
    distributed.attention(*own).sum().backward()


def test_a_saved_tensor_that_one_rank_changed_is_an_error_on_all():
    world(2, in_place)


STATISTICS = {
    "entropy": lambda m: m.entropy(),
    "maximum": lambda m: m.maximum(),
    "effective_keys": lambda m: m.effective_keys(),
    "topk": lambda m: m.topk(2),
    "mean_distance": lambda m: m.mean_distance(),
    "distance_spread": lambda m: m.distance_spread(),
    "mass_within": lambda m: m.mass_within(2),
    "mass_on": lambda m: m.mass_on([0, 3]),
    "mass_where": lambda m: m.mass_where(lambda batch, rows, keys: rows[:, None] >= keys),
    "visible": lambda m: m.visible(),
    "kl": lambda m: m.kl(m),
    "inner": lambda m: m.inner(m),
    "received": lambda m: m.received(),
    "gradient_times": lambda m: m.gradient_times(torch.ones(B, H, EACH, E, dtype=m.dtype)),
    "pooled": lambda m: m.pooled(3, 2),
    "A @ X": lambda m: m @ torch.ones(EACH, 2, dtype=m.dtype),
    "A.mT @ Y": lambda m: m.mT @ torch.ones(EACH, 2, dtype=m.dtype),
    "rollout": lambda m: distributed.rollout([m, m]) @ torch.ones(B, EACH, 2, dtype=m.dtype),
}


def statistics(rank, size):
    own = [distributed.shard(tensor) for tensor in whole(size)]
    arm(rank, n=0)
    _, matrix = distributed.attention(*own, Failing(), return_matrix=True)
    for ask in STATISTICS.values():
        arm(rank)
        raises(rank, lambda: ask(matrix))  # noqa: B023
        arm(rank, n=0)
        ask(matrix)  # they can go on
    for product in (matrix.__matmul__, matrix.mT.__matmul__):
        columns = torch.ones(EACH, 2, dtype=torch.float64, requires_grad=True)
        loss = product(columns).sum()
        arm(rank)
        raises(rank, loss.backward)
        arm(rank, n=0)


@pytest.mark.slow
def test_a_statistic_that_fails_on_one_rank_is_an_error_on_all():
    world(3, statistics)


def all_have_ended(rank, size, group):
    """Stay alive until every rank has left the call, so that none is freed by the end of another's process."""
    dist.barrier()  # of another group, which is intact
    with pytest.raises(RanksError, match="were closed after an earlier error or interruption"):
        distributed.gather(torch.zeros(1, 1), mesh=group)
    dist.barrier()


def interrupts(rank, size, error):
    for algorithm in ("ring", "heads"):
        for moment in ("forward", "backward"):
            if (algorithm, moment) == ("heads", "backward"):
                continue  # evaluates no rule
            group = dist.new_group(list(range(size)))
            own = [distributed.shard(tensor, mesh=group).requires_grad_() for tensor in whole(size)]
            arm(rank, n=0)
            out = distributed.attention(*own, Failing(), algorithm=algorithm, mesh=group)
            arm(rank, error=error)
            forward = functools.partial(distributed.attention, *own, Failing(), algorithm=algorithm, mesh=group)
            with pytest.raises(error if rank == 1 else RanksError) as raised:
                (out.sum().backward if moment == "backward" else forward)()
            assert rank == 1 or f"rank 1 left after {error.__name__}" in str(raised.value)
            all_have_ended(rank, size, group)


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_rank_that_is_interrupted_and_lives_on_ends_the_others(error):
    world(4, interrupts, error)


def interrupted_while_waiting(rank, size):
    """SIGINT to a rank that waits for one that never comes, which Python alone would not notice."""
    group = dist.new_group(list(range(size)))
    own = [distributed.shard(tensor, mesh=group) for tensor in whole(size)]
    if rank == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    if rank == size - 1:
        dist.barrier()  # of the others: it makes no call of its own
    else:
        with pytest.raises(RanksError if rank else KeyboardInterrupt):
            distributed.attention(*own, mesh=group)
        dist.barrier()
    with pytest.raises(RanksError):  # the last rank learns from its next call
        distributed.gather(torch.zeros(1, 1), mesh=group)
    dist.barrier()


def test_a_rank_that_waits_can_be_interrupted():
    world(3, interrupted_while_waiting)
