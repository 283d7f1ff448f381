"""Measure the logit scale of a module with shared heads by running it.

With two keys a head's output is w·v₀ + (1 - w)·v₁, and the module's output is linear in the weights w of its heads. So
they can be solved for, and log(w / (1 - w)) = scale · q·(k₀ - k₁) gives the scale. Textbook classes divide by
√head_dim, by √embed_dim or not at all; any scale is found.
"""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.errors import OptionError

# How far the source's output may be from ours, relative to its largest number. The source runs in float64, but may
# compute its softmax in float32.
CLOSE = 1e-5
_QUERIES = 31


def find_scale(source: nn.Module, state: dict[str, Tensor], num_heads: int) -> float:
    """Return the logit scale of a module.

    Args:
        source: takes (values, keys, query) and perhaps a mask, batch first.
        state: its weights, with `values`, `keys`, `queries` and `fc_out`.
        num_heads: H.

    Raises:
        OptionError: the module does not run, or computes something other than attention with a scale.
    """
    wide = {name: tensor.detach().to(torch.float64) for name, tensor in state.items() if tensor.is_floating_point()}
    like = wide["fc_out.weight"]
    probed = _copy(source).double().eval()  # neither dropout nor buffers of the source are touched
    head_dim = len(wide["queries.weight"])
    with torch.no_grad():
        scale = _solve(probed, wide, num_heads, like)
        near = (head_dim**-0.5, (head_dim * num_heads) ** -0.5, 1.0)
        scale = next((usual for usual in near if scale is not None and abs(scale - usual) <= CLOSE * usual), scale)
        worst = None
        if scale is not None:
            q, k, v = (_probe(length, like, num_heads, wide, seed) for seed, length in ((3, 7), (5, 11), (7, 11)))
            output = _run(probed, q, k, v)
            error = (_expected_output(wide, num_heads, q, k, v, scale) - output).abs().max()
            worst = float(error / output.abs().max())
            if worst <= CLOSE:
                return scale
    best = "" if worst is None else f" (off by {worst:.1e} of the largest number with scale={scale:.4g})"
    raise OptionError(
        f"{type(source).__name__} does not compute softmax(QKᵀ·scale)V with any scale{best}, so it has no exact "
        "equivalent here. Check its forward; if the difference is intended, pass its state_dict() and scale."
    )


def _copy(source: nn.Module) -> nn.Module:
    """Copy a module, even one that keeps its last weights: deepcopy refuses tensors with a graph, so detach them."""
    kept = (value for module in source.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return copy.deepcopy(source, {id(tensor): tensor.detach() for tensor in kept})


def _solve(source: nn.Module, wide: dict[str, Tensor], num_heads: int, like: Tensor) -> float | None:
    """Return the scale by least squares over queries and heads; None if every weight is too close to 0 or 1."""
    q, k, v = (_probe(length, like, num_heads, wide, seed) for seed, length in ((11, _QUERIES), (13, 2), (17, 2)))
    query, key, value = (_project(wide, name, t, num_heads) for name, t in (("queries", q), ("keys", k), ("values", v)))
    out = _run(source, q, k, v)[0]  # (L, E)
    mix = wide["fc_out.weight"].unflatten(1, (num_heads, -1))  # (E, H, D)
    base = torch.einsum("ehd,hd->e", mix, value[0, :, 1]) + wide.get("fc_out.bias", torch.zeros_like(mix[:, 0, 0]))
    change = torch.einsum("ehd,hd->eh", mix, value[0, :, 0] - value[0, :, 1])
    weights = torch.linalg.lstsq(change, (out - base).mT).solution  # (H, L)
    product = torch.einsum("hqd,hd->hq", query[0], key[0, :, 0] - key[0, :, 1])
    usable = (weights > 0.02) & (weights < 0.98)
    if not bool(usable.any()):
        return None
    logits, product = torch.logit(weights[usable]), product[usable]
    return float((logits * product).sum() / (product * product).sum())


def _probe(length: int, like: Tensor, num_heads: int, wide: dict[str, Tensor], seed: int) -> Tensor:
    """Return (1, L, E) random inputs whose weights are neither uniform nor one-hot."""
    generator = torch.Generator().manual_seed(seed)
    embed = like.shape[0]
    noise = torch.randn(1, length, embed, generator=generator, dtype=torch.float64)
    strength = float(wide["queries.weight"].norm() * wide["keys.weight"].norm()) / (embed // num_heads) ** 0.5
    return (noise / max(strength, 1e-30) ** 0.5).to(like)


def _project(wide: dict[str, Tensor], name: str, given: Tensor, num_heads: int) -> Tensor:
    """Return the input projected by the shared layer, (B, H, L, D), in float64."""
    heads = given.double().unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return torch.nn.functional.linear(heads, wide[f"{name}.weight"], wide.get(f"{name}.bias"))


def _expected_output(wide: dict[str, Tensor], num_heads: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return the output of attention with this scale, in float64."""
    query, key, value = (_project(wide, name, t, num_heads) for name, t in (("queries", q), ("keys", k), ("values", v)))
    out = torch.softmax(query @ key.mT * scale, -1) @ value
    return torch.nn.functional.linear(out.transpose(1, 2).flatten(2), wide["fc_out.weight"], wide.get("fc_out.bias"))


def _run(source: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the module's own output, in float64."""
    everywhere = torch.ones(1, 1, query.shape[1], key.shape[1], device=query.device)
    failed: Exception | None = None
    for mask in (None, everywhere):
        try:
            out: Any = _call(source, {"value": value, "key": key, "quer": query}, mask)
        except Exception as error:  # noqa: BLE001 (a foreign forward may raise anything; reported below)
            failed = failed or error
            continue
        out = out[0] if isinstance(out, tuple | list) else out
        if isinstance(out, Tensor) and out.shape == (*query.shape[:2], query.shape[2]):
            return out.double()
        failed = failed or ValueError(f"it returns {getattr(out, 'shape', type(out).__name__)}")
    raise OptionError(
        f"{type(source).__name__}.forward did not run on values {tuple(value.shape)}, keys {tuple(key.shape)} and "
        f"query {tuple(query.shape)}, so its logit scale is unknown: {failed}. Pass its state_dict() and scale instead."
    )


def _call(source: nn.Module, given: dict[str, Tensor], mask: Tensor | None) -> Any:
    """Call by keyword if the parameter names identify the roles, else in the textbook's order.

    Any other required parameter gets the mask.
    """
    parameters = list(inspect.signature(source.forward).parameters.values())
    named: dict[str, Any] = {}
    for role, tensor in given.items():
        names = [p.name for p in parameters if p.name.lower() == role[0] or p.name.lower().startswith(role)]
        named |= dict.fromkeys(names[:1], tensor)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind in positional]
    if len(named) == len(given):
        return source(**named, **{name: mask for name in required if name not in named})
    return source(*given.values(), *[mask] * max(len(required) - len(given), 0))
