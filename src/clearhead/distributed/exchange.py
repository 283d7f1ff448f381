"""Communication between ranks: the ring of keys and values, the all-to-all of heads, and the reports of calls."""

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
    """How long this rank waited for others, and how much it sent, since `timing()` was entered.

    Attributes:
        waiting: seconds in collectives and transfers that were not overlapped with computation.
        sent: bytes that this rank sent.
    """

    waiting: float = 0.0
    sent: int = 0


KEYS, VALUES, KEY_GRADIENTS, VALUE_GRADIENTS = range(1, 5)  # message tags, one for each kind of tensor in the ring
NAME, NUMBERS = 32, 28  # bytes of the name of a call, and integers, that ranks gather to compare their calls
_TIMINGS: list[Timing] = []
_NOT_A_RANK = "this process is not one of the ranks of the mesh. Call it only on those ranks."


@contextmanager
def timing() -> Iterator[Timing]:
    """Measure how long this rank waits for others and how much it sends.

    Example:
        >>> with timing() as measured:
        ...     pass
        >>> measured.sent
        0
    """
    measured = Timing()
    _TIMINGS.append(measured)
    try:
        yield measured
    finally:
        _TIMINGS.remove(measured)


@contextmanager
def _waiting(doing: str) -> Iterator[None]:
    """Count the time as waiting, and convert the error of a broken connection."""
    start = time.perf_counter()
    try:
        yield
    except (NotImplementedError, torch.OutOfMemoryError):  # RuntimeErrors of this rank
        raise
    except RuntimeError as error:
        raise RanksError(
            f"another rank did not answer while this one was {doing}: it has ended or raised an error. "
            f"See the first error among all ranks. The transport reports: {_reason(error)}"
        ) from error
    finally:
        for measured in _TIMINGS:
            measured.waiting += time.perf_counter() - start


def _reason(error: RuntimeError) -> str:
    """The first sentence of an error of gloo's or NCCL's, without the place in their source before it."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"^\[\S*:\d+\] *", "", first).partition(". ")[0].rstrip(".") or type(error).__name__


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that share a sequence: one axis of a device mesh, or a process group.

    Attributes:
        group: torch's process group.
        rank, size: this process's rank in the group, and the number of ranks.
    """

    group: Any
    rank: int
    size: int

    @classmethod
    def of(cls, mesh: Any = None) -> Ranks:
        """Return the ranks of a DeviceMesh of one axis, of a process group, or of all processes.

        Raises:
            RanksError: torch.distributed is not initialised, or this process is not one of the ranks.
            OptionError: mesh is none of these.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise RanksError(
                "torch.distributed is not initialised. Start the processes with torchrun and call "
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
        """Return the global rank of one of these ranks."""
        return dist.get_global_rank(self.group, rank % self.size)

    def gather_numbers(self, call: str, own: Sequence[int], device: torch.device) -> list[list[int]]:
        """Return the numbers of each rank, after checking that all ranks make the same call.

        Every call gathers equally many, because gloo aborts a process that receives more than it expects.

        Args:
            call: the name of the call, for the error; its first 32 bytes are compared.
            own: at most `NUMBERS` integers of 64 bits; every rank passes the same count.
        Raises:
            RanksError: another rank makes another call.
        """
        name = call.encode()[:NAME].ljust(NAME)
        header = [int.from_bytes(name[start : start + 8], "little", signed=True) for start in range(0, NAME, 8)]
        mine = torch.tensor([*header, *own, *[0] * (NUMBERS - len(own))], dtype=torch.int64, device=device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        with _waiting("comparing calls"):
            dist.all_gather(gathered, mine, group=self.group)
        rows = [numbers.tolist() for numbers in gathered]
        for rank, row in enumerate(rows):
            if row[: len(header)] != header:
                other = b"".join(part.to_bytes(8, "little", signed=True) for part in row[: len(header)])
                raise RanksError(
                    f"this rank calls {call}, but rank {rank} calls {other.decode(errors='replace').rstrip()}. "
                    "Make the same calls in the same order on every rank."
                )
        return [row[len(header) : len(header) + len(own)] for row in rows]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        total = tensor.contiguous().clone()
        with _waiting("adding up"):
            dist.all_reduce(total, group=self.group)
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the elementwise maximum over all ranks."""
        largest = tensor.contiguous().clone()
        with _waiting("comparing"):
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        return largest

    def gather(self, tensor: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the tensor of each rank, of these shapes. Memory: all of them."""
        with _waiting("gathering"):
            largest = max(_count(shape) for shape in shapes)
            padded = tensor.new_zeros(largest)
            padded[: tensor.numel()] = tensor.reshape(-1)
            parts = [torch.empty_like(padded) for _ in shapes]
            dist.all_gather(parts, padded, group=self.group)
        return [part[: _count(shape)].view(*shape) for part, shape in zip(parts, shapes, strict=True)]

    def start(self, to: int, give: Tensor | None, source: int, take: Tensor | None, tag: int) -> Transfer:
        """Start sending one tensor and receiving another; either may be None, or empty.

        Args:
            tag: KEYS, VALUES, …; gloo confuses two transfers with one tag, so there is one of each kind at a time.
        """
        operations = []
        if give is not None and give.numel():
            operations.append(dist.P2POp(dist.isend, _bytes(give), self.peer(to), self.group, tag))
            for measured in _TIMINGS:
                measured.sent += give.numel() * give.element_size()
        if take is not None and take.numel():
            operations.append(dist.P2POp(dist.irecv, _bytes(take), self.peer(source), self.group, tag))
        with _waiting("sending keys and values"):
            return Transfer(dist.batch_isend_irecv(operations) if operations else [], give)

    def all_to_all(self, give: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send one tensor to each rank, and receive one of these shapes from each."""
        flat = torch.cat([tensor.reshape(-1) for tensor in give])
        counts = [_count(shape) for shape in shapes]
        taken = flat.new_empty(sum(counts))
        width = flat.element_size()
        for measured in _TIMINGS:
            measured.sent += (flat.numel() - give[self.rank].numel()) * width
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
    """A transfer in progress. `sent` keeps the memory alive until it has been sent."""

    works: list[Any]
    sent: Tensor | None = field(default=None, repr=False)

    def wait(self) -> None:
        """Wait until the transfer is complete."""
        with _waiting("waiting for keys and values"):
            for work in self.works:
                work.wait()
        self.sent = None


def around(ranks: Ranks, own: Tensor, shapes: Sequence[Sequence[int]], tag: int = KEYS) -> Iterator[tuple[int, Tensor]]:
    """Yield each rank's tensor, this one's first; the next one is received during the computation.

    Args:
        own: contiguous; not written to during the iteration.
        shapes: the shape of each rank's tensor.
        tag: KEYS or VALUES; a different one for each tensor that travels at the same time.
    Memory: two such tensors in addition to one's own.
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
    """Return the bytes of a contiguous tensor, because not every transport supports every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _count(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
