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
        tensors: query, key, value, and sinks, which may be None.
    Raises:
        OptionError: a DTensor is not sharded over its sequence, or the tensors are not sharded alike.
    """
    query = tensors["query"]
    if not is_dtensor(query):
        for name, tensor in tensors.items():
            if is_dtensor(tensor):
                raise OptionError(f"{name} is a DTensor and query is not. Give both as DTensors, or {name}.to_local().")
        return tensors, mesh
    axis = _sequence_axis(query)
    for name in ("key", "value"):
        tensor = tensors[name]
        if not is_dtensor(tensor) or _placed(tensor) != _placed(query):
            raise OptionError(
                f"query is a DTensor that {_shown(query)}, but {name} {_shown(tensor)}. Shard {name} as query."
            )
    along = query.device_mesh if query.device_mesh.ndim == 1 else _axis_of(query.device_mesh, axis)
    if mesh is not None and _ranks_of(mesh) != _ranks_of(along):
        raise OptionError(
            f"query is sharded over its sequence on the ranks {_ranks_of(along)}, and mesh has {_ranks_of(mesh)}. "
            "Leave mesh out: a DTensor brings its own."
        )
    local = {name: tensors[name].to_local() for name in ("query", "key", "value")}
    return local | {"sinks": _own_sinks(tensors["sinks"], query, axis)}, along


def _sequence_axis(query: Any) -> int:
    """Return the axis of the mesh over which query's sequence is sharded."""
    axes = [axis for axis, placement in enumerate(query.placements) if _is_sequence(placement, query)]
    if len(axes) != 1:
        raise OptionError(
            f"query is a DTensor with placements {tuple(query.placements)}; expected Shard({query.dim() - 2}), its "
            f"sequence axis, on one axis of the mesh. Redistribute it first."
        )
    for placement in query.placements:
        if placement.is_partial() or (placement.is_shard() and placement.dim % query.dim() == query.dim() - 1):
            raise OptionError(
                f"query is a DTensor with the placement {placement}: each rank has a part of every number, and "
                "attention is not linear. Redistribute it first."
            )
    return axes[0]


def _placed(tensor: Any) -> tuple[Any, ...]:
    """Return the mesh of a DTensor and its placements, with axes counted from 0."""
    axes = [placement.dim % tensor.dim() if placement.is_shard() else placement for placement in tensor.placements]
    return tensor.device_mesh, axes


def _shown(tensor: Any) -> str:
    if not is_dtensor(tensor):
        return "is a plain tensor" if isinstance(tensor, Tensor) else f"is a {type(tensor).__name__}"
    return f"has placements {tuple(tensor.placements)} on the mesh {tensor.device_mesh.mesh.tolist()}"


def _axis_of(mesh: Any, axis: int) -> Any:
    """Return one axis of a mesh, as a mesh if its axes have names, else as a process group."""
    return mesh[mesh.mesh_dim_names[axis]] if mesh.mesh_dim_names else mesh.get_group(axis)


def _ranks_of(mesh: Any) -> list[int]:
    """Return the global ranks of a mesh of one axis or of a process group."""
    group = mesh if isinstance(mesh, dist.ProcessGroup) else mesh.get_group()
    return dist.get_process_group_ranks(group)


def _own_sinks(sinks: Any, query: Any, sequence: int) -> Any:
    """Return this rank's sinks. Its gradient is a sum over the ranks that share them, as DTensor then knows."""
    if not is_dtensor(sinks):
        return sinks
    from torch.distributed.tensor import Partial, Shard

    heads = query.dim() - 3
    grads = []
    for axis, placement in enumerate(query.placements):
        by_heads = placement.is_shard() and placement.dim % query.dim() == heads
        expected = sinks.device_mesh == query.device_mesh and (
            sinks.placements[axis].is_shard() if by_heads else sinks.placements[axis].is_replicate()
        )
        if not expected:
            raise OptionError(
                f"sinks {_shown(sinks)}, and query {_shown(query)}. Shard sinks where query's heads are sharded, and "
                "replicate it elsewhere, on the same mesh."
            )
        grads.append(Shard(0) if by_heads else sinks.placements[axis] if placement.is_replicate() else Partial())
    return sinks.to_local(grad_placements=grads)


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
