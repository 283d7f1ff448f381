"""Convert DTensors to this rank's part, and the result back to a DTensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clearhead.errors import OptionError


def own(mesh: Any, **tensors: Any) -> tuple[dict[str, Any], Any]:
    """Return this rank's part of each tensor, and the mesh axis over which the sequence is sharded.

    Args:
        mesh: the caller's argument; None = the axis over which query is sharded, if it is a DTensor.
    Raises:
        OptionError: a DTensor is not sharded over its sequence.
    """
    if not is_dtensor(tensors["query"]):
        return {name: _local(tensor) for name, tensor in tensors.items()}, mesh
    query = tensors["query"]
    axes = [axis for axis, placement in enumerate(query.placements) if _is_sequence(placement, query)]
    if len(axes) != 1:
        raise OptionError(
            f"query is a DTensor with placements {tuple(query.placements)}; expected Shard({query.dim() - 2}), its "
            f"sequence axis, on one axis of the mesh. Redistribute it first."
        )
    for name in ("key", "value"):
        tensor = tensors[name]
        if not is_dtensor(tensor) or not _is_sequence(tensor.placements[axes[0]], tensor):
            raise OptionError(f"query is a DTensor sharded over its sequence and {name} is not. Shard it the same way.")
    if any(placement.is_partial() for placement in query.placements):
        raise OptionError("query is a partial sum, but attention is not linear. Redistribute it first.")
    names = query.device_mesh.mesh_dim_names
    along = query.device_mesh if query.device_mesh.ndim == 1 else query.device_mesh[names[axes[0]]]
    return {name: _local(tensor) for name, tensor in tensors.items()}, along if mesh is None else mesh


def like(query: Any, out: Tensor) -> Any:
    """Return this rank's part of the output as a DTensor with query's placement, if query is a DTensor."""
    if not is_dtensor(query):
        return out
    from torch.distributed.tensor import DTensor

    shape = torch.Size((*query.shape[:-1], out.shape[-1]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(out, query.device_mesh, query.placements, run_check=False, shape=shape, stride=stride)


def is_dtensor(tensor: Any) -> bool:
    """Return whether it is a DTensor, without importing torch.distributed.tensor, which takes half a second."""
    return dist.is_available() and type(tensor).__name__ == "DTensor" and isinstance(tensor, Tensor)


def _is_sequence(placement: Any, tensor: Any) -> bool:
    return bool(placement.is_shard()) and placement.dim % tensor.dim() == tensor.dim() - 2


def _local(tensor: Any) -> Any:
    return tensor.to_local() if is_dtensor(tensor) else tensor
