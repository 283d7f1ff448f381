"""The CPU implementations of torch's attention operators while `accelerate` is on: our kernel, or torch's own.

These functions run below autograd, autocast, torch.func and torch.compile, so they receive plain tensors. A call that
`kernels/plan.py` does not send to the native kernel goes to torch's kernel, with the same arguments.

On Linux a C++ kernel (native/binding/override) comes before `forward` and `backward`, and calls torch's kernel or ours
itself, which takes 2 µs instead of 9 to 30. It leaves to them forced targets, float32 on tile registers, gradients
beside a mask, and tensors that the kernels cannot read as they lie.
"""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clearhead.kernels.fast_path import native_forward
from clearhead.kernels.measured.costs import UNKNOWN, torch_saves
from clearhead.kernels.native.call import DTYPES
from clearhead.kernels.native.cpu_targets import chosen_for, has_tiles, index_of, is_forced
from clearhead.kernels.native.library import library
from clearhead.kernels.plan import NATIVE, NATIVE_GRADIENTS, cost_key, match, needs_gradients
from clearhead.kernels.portable.blockwise import EMPTY
from clearhead.kernels.portable.torch_sdpa import is_torchs_own
from clearhead.kernels.precision import wide
from clearhead.kernels.problem import contiguous_rows
from clearhead.kernels.projection import project

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"
MODULE = "_native_multi_head_attention"
# The operators that the C++ kernel knows (torch 2.13). If torch changes one, its Python function is registered instead.
SCHEMAS = {
    FORWARD: "(Tensor query, Tensor key, Tensor value, float dropout_p=0., bool is_causal=False, *, "
    "Tensor? attn_mask=None, float? scale=None) -> (Tensor output, Tensor logsumexp)",
    BACKWARD: "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, "
    "float dropout_p, bool is_causal, *, Tensor? attn_mask=None, float? scale=None) -> (Tensor grad_query, "
    "Tensor grad_key, Tensor grad_value)",
}

_OURS = (NATIVE, NATIVE_GRADIENTS)
# Our kernel takes this many microseconds longer here than in `clearhead.attention`, whose costs the plan knows: torch's
# dispatcher enters Python twice (bench/LOG.md).
THROUGH_PYTHON = 10.0
# Where no costs are known, it uses torch's kernel below this many multiply-adds: in float32 and float64 32 tokens of 8
# heads of width 64, and 4 in 16 bits, which torch multiplies slowly.
FEW, FEW_16_BIT = 1 << 20, 1 << 14
_OWN_CLASSES = (Tensor, torch.nn.Parameter)
_SOURCE, _PADDING = 0, 1  # mask_type of torch's module: (L, S), (B, S); any other is (B, H, L, S)


class Overrides:
    """Functions for torch's dispatcher, the kernels they replace, and how often each ran.

    Attributes:
        is_on: whether our functions run.
        is_native: whether the C++ kernels of native/binding/override come before `forward` and `backward`.
        counts: "forward", "backward" and "module" calls on our kernels, "torch" calls on torch's own.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.is_native = False
        self.counts: dict[str, int] = {}
        self._torchs = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in (FORWARD, BACKWARD, MODULE)}

    def register(self) -> None:
        """Replace torch's CPU kernels by our functions, for as long as the process lives."""
        self._library: Any = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Overriding a previously registered kernel")
            # First from Python: torch warns once in a process, and writes a warning from C++ to stderr.
            self._library.impl(MODULE, self.module, "CPU", with_keyset=True)
            if not self._register_native():
                self._library.impl(FORWARD, self.forward, "CPU", with_keyset=True)
                self._library.impl(BACKWARD, self.backward, "CPU", with_keyset=True)

    def _register_native(self) -> bool:
        """Register the C++ kernels; return False where torch lacks their interface, or has another operator."""
        operators = {name: getattr(torch.ops.aten, name).default._schema for name in SCHEMAS}
        if any(str(operators[name]) != f"aten::{name}{schema}" for name, schema in SCHEMAS.items()):
            return False
        keyset = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
        handles: Any = getattr(torch._C, "_aoti", None)
        adopt = getattr(handles, "alloc_tensor_by_stealing_from_void_ptr", None)
        lend = getattr(handles, "unsafe_alloc_void_ptr_from_tensor", None)
        if adopt is None or lend is None or not _copies_handles(adopt, lend):
            return False
        forward, backward = partial(self.forward, keyset), partial(self.backward, keyset)
        few = tuple(float(_few(dtype)) for dtype in sorted(DTYPES, key=DTYPES.__getitem__))
        targets = tuple(map(_target, sorted(DTYPES, key=DTYPES.__getitem__)))
        bounds = targets, few, THROUGH_PYTHON
        self.is_native = library.register_overrides(forward, backward, adopt, lend, lambda: is_forced(), *bounds)
        if self.is_native:
            without, learning = torch.empty(1), torch.empty(1, requires_grad=True)
            library.read_requires_grad(lend(without), lend(learning))
        if is_forced():
            library.expect_forced_targets()
        return self.is_native

    def turn_on(self) -> None:
        """Let our functions run, and reset the counts."""
        self.is_on, self.counts = True, {"forward": 0, "backward": 0, "module": 0, "torch": 0}
        if self.is_native:
            library.take_counts()
            library.switch_overrides(True)

    def turn_off(self) -> None:
        """Let torch's kernels run."""
        self.is_on = False
        if self.is_native:
            library.switch_overrides(False)
        self.count_native()

    def count_native(self) -> None:
        """Add the calls that did not enter Python to the counts."""
        if self.is_native:
            for name, calls in zip(("torch", "forward", "backward"), library.take_counts(), strict=True):
                self.counts[name] += calls

    def forward(
        self, keyset: Any, query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, is_causal: bool = False,
        *, attn_mask: Tensor | None = None, scale: float | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return output (B, H, L, E) and lse (B, H, L), float32 or wider; as in torch, 0 for an empty row."""
        if (
            not self.is_on
            or dropout_p != 0
            or query.dim() != 4
            or is_torchs_own()
            or (needs_gradients(query, key, value) and _is_torch_faster(query, key))
            or match(query, key, value, is_causal, scale, attn_mask, True, watched=False) not in _OURS
        ):
            call = (query, key, value, dropout_p, is_causal)
            return self._torch(FORWARD, keyset, *call, attn_mask=attn_mask, scale=scale)
        self.counts["forward"] += 1
        batch, heads, length, _ = query.shape
        # The strides that torch's kernel returns, which compiled programs rely on.
        lse = torch.empty_permuted((batch, heads, length), (0, 2, 1), dtype=wide(query.dtype))
        out = native_forward(query, key, value, is_causal, scale, attn_mask, True, lse)
        if attn_mask is not None:  # torch's backward pass, which may run later, turns -inf into NaN
            lse.masked_fill_(lse == -torch.inf, 0)
        return out, lse

    def backward(
        self, keyset: Any, grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor,
        dropout_p: float, is_causal: bool, *, attn_mask: Tensor | None = None, scale: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return the gradients of query, key and value."""
        # A hook on saved tensors may change their strides; torch's kernel requires contiguous rows.
        query, key, value, out = (contiguous_rows(tensor) for tensor in (query, key, value, out))
        if (
            not self.is_on
            or dropout_p != 0
            or is_torchs_own()
            or _is_torch_faster(query, key)
            or not _fit(query, grad_out, out, logsumexp)
            or match(query, key, value, is_causal, scale, attn_mask, True, learns=True, watched=False) not in _OURS
        ):
            call = (grad_out, query, key, value, out, logsumexp, dropout_p, is_causal)
            return self._torch(BACKWARD, keyset, *call, attn_mask=attn_mask, scale=scale)
        self.counts["backward"] += 1
        if attn_mask is not None:
            logsumexp = _with_empty_rows(logsumexp, attn_mask)
        # Memory layout (B, L, H, D), as in torch's kernel.
        grads = [torch.empty_permuted(t.shape, (0, 2, 1, 3), dtype=t.dtype) for t in (query, key, value)]
        library.fast_backward(
            index_of(query.dtype), torch.get_num_threads(), query, key, value, attn_mask, True, is_causal,
            query.shape[-1] ** -0.5 if scale is None else scale, out, logsumexp, contiguous_rows(grad_out), *grads,
        )  # fmt: skip
        return grads[0], grads[1], grads[2]

    def module(
        self, keyset: Any, query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, qkv_weight: Tensor,
        qkv_bias: Tensor, proj_weight: Tensor, proj_bias: Tensor, mask: Tensor | None = None, need_weights: bool = True,
        average_attn_weights: bool = True, mask_type: int | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Compute nn.MultiheadAttention and nn.TransformerEncoderLayer in evaluation: (B, L, embed_dim), no weights."""
        arguments = (
            query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, need_weights,
            average_attn_weights, mask_type,
        )  # fmt: skip
        if not self.is_on or need_weights or not (query is key is value) or is_torchs_own():
            return self._torch(MODULE, keyset, *arguments)
        if not _are_layer(query, embed_dim, num_head, *arguments[5:9]) or (mask is not None and mask_type is None):
            return self._torch(MODULE, keyset, *arguments)
        with torch.no_grad():
            allow = None if mask is None else _allow(mask, mask_type)
            like_heads = query.unflatten(-1, (num_head, -1)).transpose(1, 2)  # sizes and dtype of the projections
            if match(like_heads, like_heads, like_heads, False, None, allow, False, watched=False) != NATIVE:
                return self._torch(MODULE, keyset, *arguments)
            self.counts["module"] += 1
            heads = project(query, qkv_weight, qkv_bias).unflatten(-1, (3, num_head, -1)).permute(2, 0, 3, 1, 4)
            q, k, v = heads.unbind()
            out = native_forward(q, k, v, False, None, allow)
            return project(out.transpose(1, 2).flatten(-2), proj_weight, proj_bias), None

    def _torch(self, name: str, keyset: Any, *arguments: Any, **options: Any) -> Any:
        if self.is_on:
            self.counts["torch"] += 1
        return self._torchs[name].call_boxed(keyset, *arguments, **options)


def _copies_handles(adopt: Any, lend: Any) -> bool:
    """Return whether `adopt` leaves the handle to its caller. Torch 2.13's does, despite its name."""
    tensor = torch.empty(1)
    adopt(lend(tensor))
    return tensor._use_count() == 2  # type: ignore[attr-defined]


def _target(dtype: torch.dtype) -> int:
    """Return the target that computes a dtype without Python, or -1.

    On tile registers, torch's precision of float32 products counts, which its C interface does not tell.
    """
    target, _ = chosen_for(None, dtype)
    if target is None or (dtype is torch.float32 and has_tiles(target.name)):
        return -1
    return target.index


def _is_torch_faster(query: Tensor, key: Tensor) -> bool:
    """Whether torch's kernel is faster for a call with gradients than ours through Python."""
    if is_forced():
        return False
    saved = torch_saves(*cost_key(query, key, True))
    if saved in (None, UNKNOWN):
        return 2 * query.numel() * key.shape[-2] < _few(query.dtype)
    return saved > -THROUGH_PYTHON


def _few(dtype: torch.dtype) -> int:
    return FEW_16_BIT if dtype.itemsize == 2 else FEW


def _fit(query: Tensor, grad_out: Tensor, out: Tensor, lse: Tensor) -> bool:
    """Return whether the saved tensors and the incoming gradient fit the query."""
    return (
        query.dim() == 4
        and type(grad_out) in _OWN_CLASSES and type(out) in _OWN_CLASSES and type(lse) in _OWN_CLASSES
        and grad_out.dtype is query.dtype and out.dtype is query.dtype and lse.dtype is wide(query.dtype)
        and grad_out.shape == query.shape == out.shape and lse.shape == query.shape[:-1]
    )  # fmt: skip


def _with_empty_rows(lse: Tensor, mask: Tensor) -> Tensor:
    """Return the lse with -inf for each empty row, as our backward pass expects it.

    Both forward passes store 0 there, and torch's also the mask's lowest number. Which pass ran is not known: a
    compiled program schedules forward and backward separately, and acceleration may begin or end between them.
    """
    lse = lse.masked_fill(lse < EMPTY, -torch.inf)
    is_zero = lse == 0
    if not is_zero.any():
        return lse
    return lse.masked_fill(is_zero & (mask.to(lse.dtype) < EMPTY).all(-1), -torch.inf)


def _are_layer(
    x: Tensor, embed_dim: int, heads: int, qkv_weight: Tensor, qkv_bias: Tensor, proj_weight: Tensor, proj_bias: Tensor
) -> bool:
    """Return whether sizes and dtypes are those of a layer; if not, torch's kernel raises the error."""
    tensors = (x, qkv_weight, qkv_bias, proj_weight, proj_bias)
    return (
        all(type(tensor) in _OWN_CLASSES and tensor.dtype is x.dtype for tensor in tensors)
        and x.dim() == 3 and x.shape[-1] == embed_dim and heads > 0 and embed_dim % heads == 0
        and qkv_weight.shape == (3 * embed_dim, embed_dim) and qkv_bias.shape == (3 * embed_dim,)
        and proj_weight.shape == (embed_dim, embed_dim) and proj_bias.shape == (embed_dim,)
    )  # fmt: skip


def _allow(mask: Tensor, mask_type: int | None) -> Tensor:
    """Return the mask with True = may attend, broadcastable to (B, H, L, S). In torch's module, not 0 = masked."""
    allow = mask == 0
    if mask_type == _SOURCE:
        return allow[None, None]
    return allow[:, None, None] if mask_type == _PADDING else allow
