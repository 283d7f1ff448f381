"""What travels between ranks: key and value around the ring, heads for sequence, and a few numbers about each call."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clearhead.errors import OptionError, RanksError


@dataclass(slots=True)
class Timing:
    """How long a rank waited for others, in seconds, since `timing()` was entered.

    Attributes:
        waiting: in collectives and for what travels, beyond what was computed meanwhile.
        sent: bytes that this rank sent.
    """

    waiting: float = 0.0
    sent: int = 0


KEYS, VALUES, KEY_GRADIENTS, VALUE_GRADIENTS = range(1, 5)  # what travels around the ring: the tags of messages
_TIMINGS: list[Timing] = []
_NOT_A_RANK = "this process is not one of the ranks of the mesh. Call it on those ranks alone."


@contextmanager
def timing() -> Iterator[Timing]:
    """Measure how long this rank waits for others and how much it sends.

    Example:
        >>> with timing() as spent:
        ...     pass
        >>> spent.sent
        0
    """
    spent = Timing()
    _TIMINGS.append(spent)
    try:
        yield spent
    finally:
        _TIMINGS.remove(spent)


@contextmanager
def _waiting(doing: str) -> Iterator[None]:
    """Count the time as waiting, and say in one sentence what a broken connection means."""
    start = time.perf_counter()
    try:
        yield
    except RuntimeError as error:
        raise RanksError(
            f"another rank did not answer while this one was {doing}; it has ended, or raised an error of its own. "
            f"Look at the first error among all ranks. The transport says: {_reason(error)}"
        ) from error
    finally:
        for spent in _TIMINGS:
            spent.waiting += time.perf_counter() - start


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo's or NCCL's, without the place in their source before it."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[\S*:\d+\] *", "", first).partition(". ")[0].rstrip(".") or type(error).__name__


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that share a sequence: one axis of a device mesh, or a process group.

    Attributes:
        group: torch's process group.
        rank, size: this process's number within it, and how many there are.
    """

    group: Any
    rank: int
    size: int

    @classmethod
    def of(cls, mesh: Any = None) -> Ranks:
        """The ranks of a DeviceMesh of one axis, of a process group, or of all processes.

        Raises:
            RanksError: torch.distributed is not started, or this process is not one of them.
            OptionError: mesh is something else.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise RanksError(
                "torch.distributed is not started. Start the processes with torchrun and call "
                "torch.distributed.init_process_group() first."
            )
        if mesh is dist.GroupMember.NON_GROUP_MEMBER:
            raise RanksError(_NOT_A_RANK)
        if mesh is not None and not isinstance(mesh, dist.ProcessGroup):
            if not hasattr(mesh, "get_group"):
                raise OptionError(
                    f"mesh is a {type(mesh).__name__}, expected a DeviceMesh of one axis, a process group, or None for "
                    "all processes. Make one with torch.distributed.device_mesh.init_device_mesh."
                )
            if mesh.ndim != 1:
                raise RanksError(
                    f"the mesh has {mesh.ndim} axes ({', '.join(mesh.mesh_dim_names or ())}); a sequence is sharded "
                    f"over one. Pass one axis, as mesh['sequence']."
                )
            mesh = mesh.get_group()
        group = dist.group.WORLD if mesh is None else mesh
        rank = dist.get_rank(group)
        if rank < 0:
            raise RanksError(_NOT_A_RANK)
        return cls(group, rank, dist.get_world_size(group))

    def peer(self, rank: int) -> int:
        """The global rank of one of these ranks."""
        return dist.get_global_rank(self.group, rank % self.size)

    def gather_numbers(self, own: Sequence[int], device: torch.device) -> list[list[int]]:
        """The numbers of each rank, as many from each."""
        mine = torch.tensor(own, dtype=torch.int64, device=device)
        all_of_them = [torch.empty_like(mine) for _ in range(self.size)]
        with _waiting("comparing calls"):
            dist.all_gather(all_of_them, mine, group=self.group)
        return [numbers.tolist() for numbers in all_of_them]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks."""
        total = tensor.contiguous().clone()
        with _waiting("adding up"):
            dist.all_reduce(total, group=self.group)
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest over all ranks, entry by entry."""
        top = tensor.contiguous().clone()
        with _waiting("comparing"):
            dist.all_reduce(top, dist.ReduceOp.MAX, group=self.group)
        return top

    def gather(self, tensor: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """The tensor of each rank, of these shapes. Memory: all of them."""
        with _waiting("gathering"):
            biggest = max(_count(shape) for shape in shapes)
            padded = tensor.new_zeros(biggest)
            padded[: tensor.numel()] = tensor.reshape(-1)
            parts = [torch.empty_like(padded) for _ in shapes]
            dist.all_gather(parts, padded, group=self.group)
        return [part[: _count(shape)].view(*shape) for part, shape in zip(parts, shapes, strict=True)]

    def start(self, to: int, give: Tensor | None, source: int, take: Tensor | None, tag: int) -> Transfer:
        """Begin to send one tensor and to receive another; either may be None, or empty.

        Args:
            tag: KEYS, VALUES, ...: of one kind there is one on its way at a time, and gloo mixes up two of one tag.
        """
        operations = []
        if give is not None and give.numel():
            operations.append(dist.P2POp(dist.isend, _bytes(give), self.peer(to), self.group, tag))
            for spent in _TIMINGS:
                spent.sent += give.numel() * give.element_size()
        if take is not None and take.numel():
            operations.append(dist.P2POp(dist.irecv, _bytes(take), self.peer(source), self.group, tag))
        with _waiting("sending keys and values"):
            return Transfer(dist.batch_isend_irecv(operations) if operations else [], give)

    def all_to_all(self, give: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send a tensor to each rank, and receive one of these shapes from each."""
        flat = torch.cat([tensor.reshape(-1) for tensor in give])
        counts = [_count(shape) for shape in shapes]
        taken = flat.new_empty(sum(counts))
        width = flat.element_size()
        for spent in _TIMINGS:
            spent.sent += (flat.numel() - give[self.rank].numel()) * width
        with _waiting("exchanging heads"):
            dist.all_to_all_single(
                _bytes(taken),
                _bytes(flat),
                [count * width for count in counts],
                [tensor.numel() * width for tensor in give],
                group=self.group,
            )
        return [part.view(*shape) for part, shape in zip(taken.split(counts), shapes, strict=True)]


@dataclass(slots=True)
class Transfer:
    """What is on its way. `sent` keeps the memory until it has left."""

    works: list[Any]
    sent: Tensor | None = field(default=None, repr=False)

    def wait(self) -> None:
        """Wait until it has arrived and left."""
        with _waiting("waiting for keys and values"):
            for work in self.works:
                work.wait()
        self.sent = None


def around(ranks: Ranks, own: Tensor, shapes: Sequence[Sequence[int]], tag: int = KEYS) -> Iterator[tuple[int, Tensor]]:
    """Each rank's tensor in turn, this one's first, while the next one is on its way.

    Args:
        own: contiguous; nobody writes to it meanwhile.
        shapes: of each rank's tensor.
        tag: KEYS or VALUES; another for each tensor that travels at the same time.
    Memory: two of the tensors besides one's own.
    """
    holding = own
    for step in range(ranks.size):
        owner = (ranks.rank - step) % ranks.size
        transfer = arriving = None
        if step + 1 < ranks.size:
            arriving = own.new_empty(tuple(shapes[(owner - 1) % ranks.size]))
            transfer = ranks.start(ranks.rank + 1, holding, ranks.rank - 1, arriving, tag)
        yield owner, holding
        if transfer is not None and arriving is not None:
            transfer.wait()
            holding = arriving


def _bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor, since not every transport knows every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _count(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
