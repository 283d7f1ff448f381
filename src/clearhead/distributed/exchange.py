"""Communication between ranks: the ring of keys and values, the all-to-all of heads, and the reports of calls."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clearhead.distributed.waiting import check_open, count_sent, end, wait
from clearhead.errors import OptionError, RanksError

KEYS, VALUES, KEY_GRADIENTS, VALUE_GRADIENTS = range(1, 5)  # message tags, one for each kind of tensor in the ring
NAME, NUMBERS = 32, 28  # bytes of the name of a call, and integers, that ranks gather to compare their calls
_NOT_A_RANK = "this process is not one of the ranks of the mesh. Call it only on those ranks."


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
            RanksError: torch.distributed is not initialised, this process is not one of the ranks, or they were left
                after an error.
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
        check_open(group)
        return cls(group, rank, dist.get_world_size(group))

    def peer(self, rank: int) -> int:
        """Return the global rank of one of these ranks."""
        return dist.get_global_rank(self.group, rank % self.size)

    def wait(self, doing: str, device: torch.device | None, work: Callable[[], Any]) -> None:
        """Call a function that waits for these ranks; see `waiting.wait`."""
        wait(self.group, doing, device, work)

    def end(self, error: BaseException) -> None:
        """Leave these ranks, so that those that wait for this one raise an error."""
        end(self.group, error)

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
        header = as_numbers(name)
        mine = torch.tensor([*header, *own, *[0] * (NUMBERS - len(own))], dtype=torch.int64, device=device)
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        self.wait("comparing calls", device, lambda: dist.all_gather(gathered, mine, group=self.group))
        rows = [numbers.tolist() for numbers in gathered]
        for rank, row in enumerate(rows):
            if row[: len(header)] != header:
                raise RanksError(
                    f"this rank calls {call}, but rank {rank} calls {as_text(row[: len(header)])}. "
                    "Make the same calls in the same order on every rank."
                )
        return [row[len(header) : len(header) + len(own)] for row in rows]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        total = tensor.contiguous().clone()
        self.wait("adding up", total.device, lambda: dist.all_reduce(total, group=self.group))
        return total

    def gather(self, tensor: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the tensor of each rank, of these shapes. Memory: all of them."""
        padded = tensor.new_zeros(max(_count(shape) for shape in shapes))
        padded[: tensor.numel()] = tensor.reshape(-1)
        parts = [torch.empty_like(padded) for _ in shapes]
        self.wait("gathering", padded.device, lambda: dist.all_gather(parts, padded, group=self.group))
        return [part[: _count(shape)].view(*shape) for part, shape in zip(parts, shapes, strict=True)]

    def start(self, to: int, give: Tensor | None, source: int, take: Tensor | None, tag: int) -> Transfer:
        """Start sending one tensor and receiving another; either may be None, or empty.

        Args:
            tag: KEYS, VALUES, …; gloo confuses two transfers with one tag, so there is one of each kind at a time.
        """
        operations = []
        if give is not None and give.numel():
            operations.append(dist.P2POp(dist.isend, _bytes(give), self.peer(to), self.group, tag))
            count_sent(give.numel() * give.element_size())
        if take is not None and take.numel():
            operations.append(dist.P2POp(dist.irecv, _bytes(take), self.peer(source), self.group, tag))
        works: list[Any] = []
        if operations:
            self.wait("sending keys and values", None, lambda: works.extend(dist.batch_isend_irecv(operations)))
        return Transfer(self, works, give)

    def all_to_all(self, give: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Send one tensor to each rank, and receive one of these shapes from each."""
        flat = torch.cat([tensor.reshape(-1) for tensor in give])
        counts = [_count(shape) for shape in shapes]
        taken = flat.new_empty(sum(counts))
        width = flat.element_size()
        count_sent((flat.numel() - give[self.rank].numel()) * width)
        sizes = [count * width for count in counts], [tensor.numel() * width for tensor in give]

        def exchange() -> None:
            dist.all_to_all_single(_bytes(taken), _bytes(flat), *sizes, group=self.group)

        self.wait("exchanging heads", flat.device, exchange)
        return [part.view(*shape) for part, shape in zip(taken.split(counts), shapes, strict=True)]


@dataclass(slots=True)
class Transfer:
    """A transfer in progress. `sent` keeps the memory alive until it has been sent."""

    ranks: Ranks
    works: list[Any]
    sent: Tensor | None = field(default=None, repr=False)

    def wait(self) -> None:
        """Wait until the transfer is complete."""
        if self.works:
            device = torch.device("cpu") if self.sent is None else self.sent.device
            self.ranks.wait("waiting for keys and values", device, lambda: [work.wait() for work in self.works])
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


def as_numbers(text: bytes) -> list[int]:
    """Return bytes, eight times as many, as signed integers of 64 bits."""
    return [int.from_bytes(text[start : start + 8], "little", signed=True) for start in range(0, len(text), 8)]


def bits_of(number: float) -> int:
    """Return the bits of a float as a signed integer of 64 bits.

    >>> bits_of(0.0), bits_of(-0.0) == bits_of(0.0)
    (0, False)
    """
    return int(struct.unpack("<q", struct.pack("<d", float(number)))[0])


def as_text(numbers: Sequence[int]) -> str:
    """Return the text of such integers without trailing blanks."""
    return b"".join(part.to_bytes(8, "little", signed=True) for part in numbers).decode(errors="replace").rstrip(" \0")


def _bytes(tensor: Tensor) -> Tensor:
    """Return the bytes of a contiguous tensor, because not every transport supports every dtype."""
    return tensor.view(-1).view(torch.uint8)


def _count(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
