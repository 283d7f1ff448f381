"""Validation of the module's sizes and inputs. Its masks are validated in module_masks.py."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.errors import DeviceError, DtypeError, OptionError, ShapeError, shape_text

if TYPE_CHECKING:
    from clearhead.multihead.layer.module import MultiheadAttention


_Stock = torch.nn.MultiheadAttention  # a program may replace that name with our class


def sizes(embed_dim: int, num_heads: int, num_kv_heads: int | None) -> None:
    """Raise an error unless all are positive and divide each other; the message lists sizes that do."""
    if embed_dim <= 0 or num_heads <= 0:
        raise OptionError(f"embed_dim is {embed_dim} and num_heads is {num_heads}; expected both to be greater than 0.")
    if embed_dim % num_heads:
        raise ShapeError(
            f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}; each head is embed_dim // num_heads "
            f"wide. num_heads that divide {embed_dim}: {_divisors(embed_dim)}."
        )
    if num_kv_heads is not None and (num_kv_heads <= 0 or num_heads % num_kv_heads):
        raise ShapeError(
            f"num_kv_heads {num_kv_heads} does not divide num_heads {num_heads}; each key head serves the same number "
            f"of query heads. num_kv_heads that divide {num_heads}: {_divisors(num_heads)}."
        )


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


def weights_kind(weights: Any) -> Literal["dense", "matrix"]:
    """Return the option `weights`, checked."""
    if weights not in ("dense", "matrix"):
        raise OptionError(f"weights is {weights!r}; expected 'dense' (a tensor) or 'matrix' (an AttentionMatrix).")
    return "dense" if weights == "dense" else "matrix"


def nested(module: "MultiheadAttention", query: Any, key: Any, value: Any, *others: Any) -> None:
    """Check a call with nested tensors: self-attention without masks or cache."""
    if query is not key or key is not value or any(other is not None for other in others):
        raise ShapeError(
            "nested tensors are for self-attention without masks or cache: query, key and value must be the same "
            "tensor. Use padding and key_padding_mask, or clearhead.attention_varlen."
        )
    if not module.batch_first:
        raise OptionError("nested tensors are (B, j, E): build the module with batch_first=True.")


def scriptable(module: "MultiheadAttention") -> torch.nn.Module:
    """Return torch's own module with the same parameters, for TorchScript, which cannot compile this one."""
    if module.num_kv_heads != module.num_heads or module.rotary is not None:
        raise OptionError(
            "TorchScript compiles torch's own attention with the same parameters, which has no num_kv_heads and no "
            "rotary. Use torch.compile or torch.export for this module."
        )
    stock = _Stock.__new__(_Stock)
    state = dict(module.__dict__)
    for extra in ("num_kv_heads", "rotary", "weights"):
        del state[extra]
    state["_forward_pre_hooks"] = type(module._forward_pre_hooks)()
    stock.__dict__.update(state)
    return stock


def is_recorded(query: Any) -> bool:
    """Return whether torch.fx is recording a graph and passes proxies instead of tensors."""
    return isinstance(query, torch.fx.Proxy)


def leaf(module: "MultiheadAttention", *inputs: Any, **options: Any) -> Any:
    """Record the module as one node of a torch.fx graph, as torch's own modules are."""
    tracer = inputs[0].tracer
    if tracer.root is module:
        raise OptionError(
            "torch.fx.symbolic_trace was given an attention module itself, which branches on its inputs. Trace the "
            "model around it, or use torch.export."
        )
    return tracer.create_proxy("call_module", tracer.path_of_module(module), inputs, options)


@kernels.untraced
def inputs(module: "MultiheadAttention", query: Any, key: Any, value: Any) -> None:
    """Check rank, widths, batch, lengths, dtype and device of the three inputs."""
    named = {"query": query, "key": key, "value": value}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"{name} is a {type(tensor).__name__}, expected a torch.Tensor.")
        if tensor.dim() not in (2, 3) or tensor.dim() != query.dim():
            raise ShapeError(
                f"{name} has {tensor.dim()} axes and query has {query.dim()}; expected all three with 3 (batched) or "
                f"all with 2 ({shape_text(name, tensor.shape, '')}). Add a batch axis with unsqueeze."
            )
        if tensor.device != query.device:
            raise DeviceError(f"{name} is on {tensor.device}, query is on {query.device}. Move them to one device.")
    _widths(module, named)
    _dtypes(module, named)
    letters = _letters(module, query, "S")
    if key.shape[:-1] != value.shape[:-1]:
        raise ShapeError(
            f"key and value must share batch and length ({shape_text('key', key.shape, letters)}; "
            f"{shape_text('value', value.shape, letters)}). Each key needs one value."
        )
    batch = 0 if module.batch_first else 1
    if query.dim() == 3 and query.shape[batch] != key.shape[batch]:
        other = 1 - batch
        swapped = query.shape[other] == key.shape[other] and query.shape[other] > 0
        hint = f" The shapes suggest batch_first={not module.batch_first}." if swapped else ""
        raise ShapeError(
            f"query has batch {query.shape[batch]}, key has batch {key.shape[batch]} "
            f"({shape_text('query', query.shape, _letters(module, query, 'L'))}; "
            f"{shape_text('key', key.shape, letters)}; batch_first={module.batch_first}).{hint}"
        )


def _widths(module: "MultiheadAttention", named: dict[str, Tensor]) -> None:
    for (name, tensor), (option, width) in zip(
        named.items(), (("embed_dim", module.embed_dim), ("kdim", module.kdim), ("vdim", module.vdim)), strict=True
    ):
        if tensor.shape[-1] != width:
            fix = f"For a {name} of this width build the module with {option}={tensor.shape[-1]}."
            raise ShapeError(
                f"{name} is {tensor.shape[-1]} wide, expected {option} = {width} "
                f"({shape_text(name, tensor.shape, _letters(module, tensor, 'L' if name == 'query' else 'S'))}). {fix}"
            )


def _dtypes(module: "MultiheadAttention", named: dict[str, Tensor]) -> None:
    own = module.out_proj.weight.dtype
    for name, tensor in named.items():
        # Autocast casts all but float64 to one dtype.
        cast = kernels.is_autocast(tensor.device) and torch.float64 not in (tensor.dtype, own)
        if tensor.dtype != own and not cast:
            raise DtypeError(
                f"{name} is {tensor.dtype}, the module's parameters are {own}. Convert one: {name}.to({own}), or "
                f"module.to({tensor.dtype}); or run under torch.autocast."
            )


def _letters(module: "MultiheadAttention", tensor: Tensor, length: str) -> str:
    if tensor.dim() == 2:
        return f"{length},E"
    return f"B,{length},E" if module.batch_first else f"{length},B,E"
