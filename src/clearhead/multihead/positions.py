"""Rotary position embedding: rotate each pair of numbers of a head by an angle proportional to its position."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError, ShapeError, shape_text
from clearhead.kernels import untraced


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding (RoPE), which makes logits depend only on the distance between query and key.

    Args:
        head_dim: D, even.
        base: the slowest pair rotates once in about 2π·base positions.
        layout: "half" pairs i with i + D/2 (Llama, GPT-NeoX); "interleaved" pairs 2i with 2i + 1 (RoFormer, GPT-J).
        width: rotate only the first `width` numbers of each head (partial rotary); default all.
        scaling: None, or a mapping with "type" (or "rope_type") and "factor", as in Hugging Face configurations:
            "linear" (Chen et al. 2023), "ntk" (base stretched by factor^(D/(D-2))), "llama3" (Llama 3.1; also
            "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"), "yarn" (Peng et al. 2023; also
            "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor").

    Raises:
        OptionError: head_dim is odd, base or the scaling's factor is not positive, or the layout or scaling is unknown.

    Source: Su et al. 2021, eq. 34.

    Example:
        >>> rotary = Rotary(8)
        >>> q, k = torch.randn(2, 1, 1, 5, 8)
        >>> near = rotary(q, start=0) @ rotary(k, start=0).mT
        >>> far = rotary(q, start=1000) @ rotary(k, start=1000).mT
        >>> torch.allclose(near, far, atol=1e-3)  # only distances count
        True
    """

    head_dim: int
    base: float = 10000.0
    layout: Literal["half", "interleaved"] = "half"
    width: int | None = None
    scaling: Mapping[str, Any] | None = None
    _turns: Tensor = field(init=False, repr=False, compare=False)  # rotations per position, for each pair
    _magnitude: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        width = self.head_dim if self.width is None else self.width
        if width % 2 or not 0 < width <= self.head_dim:
            raise OptionError(
                f"Rotary rotates pairs: head_dim is {self.head_dim} and width is {width}; expected an even width of at "
                f"most head_dim."
            )
        if self.layout not in ("half", "interleaved"):
            raise OptionError(f"layout is {self.layout!r}; expected 'half' (Llama) or 'interleaved' (GPT-J).")
        if not self.base > 0:
            raise OptionError(f"base is {self.base}; expected a positive number, such as 10000.")
        unscaled = self.base ** -(torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
        frequencies, magnitude = _scaled(unscaled, self.base, dict(self.scaling or {}))
        object.__setattr__(self, "_turns", frequencies / (2 * math.pi))
        object.__setattr__(self, "_magnitude", magnitude)

    @checked()
    def __call__(self, x: Tensor, *, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """Rotate queries or keys by their positions.

        Args:
            x: (B, H, L, D).
            start: the position of x's first row.
            positions: instead of `start`, the position of each row: (L,) or (B, L).
        Returns:
            (B, H, L, D) in x's dtype. Angles are reduced modulo 2π in float64 where the device has it: in float32 an
            angle at position 100,000 is off by up to 0.004.
        Raises:
            ShapeError: x does not have this head_dim, or positions does not have one entry per row.
        """
        self._check(x, positions)
        wide = torch.promote_types(x.dtype, torch.float32)
        if positions is None:
            positions = torch.arange(start, start + x.shape[-2], device=x.device)
        exact = torch.float32 if x.device.type == "mps" else torch.float64  # mps has no float64
        turns = positions.to(exact)[..., None] * self._turns.to(x.device, exact)
        angles = ((turns - turns.round()) * (2 * math.pi)).to(wide)  # within half a turn: (L, W/2) or (B, L, W/2)
        if angles.dim() == 3:
            angles = angles.unsqueeze(1)
        cos, sin = angles.cos() * self._magnitude, angles.sin() * self._magnitude
        width = self.head_dim if self.width is None else self.width
        turning, rest = x.to(wide).split([width, self.head_dim - width], -1)
        if self.layout == "half":
            a, b = turning.chunk(2, -1)
            rotated = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        else:
            a, b = turning[..., ::2], turning[..., 1::2]
            rotated = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        return torch.cat([rotated, rest], -1).to(x.dtype)

    @untraced
    def _check(self, x: Tensor, positions: Tensor | None) -> None:
        if x.shape[-1] != self.head_dim:
            raise ShapeError(
                f"Rotary was made for head_dim {self.head_dim} ({shape_text('x', x.shape)}). "
                f"Make one with Rotary({x.shape[-1]})."
            )
        lengths = x.shape[-2:-1]
        if positions is not None and positions.shape not in (lengths, (*x.shape[:1], *lengths), (1, *lengths)):
            raise ShapeError(
                f"positions has shape {tuple(positions.shape)}; expected one position per row, (L,) or (B, L) "
                f"({shape_text('x', x.shape)})."
            )


_KINDS = ("default", "linear", "ntk", "llama3", "yarn")
_NEEDED = {
    "llama3": ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("original_max_position_embeddings",),
}


def _scaled(frequencies: Tensor, base: float, scaling: dict[str, Any]) -> tuple[Tensor, float]:
    """Scale the frequencies; return (frequencies, the factor on cos and sin)."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _KINDS:
        raise OptionError(
            f"scaling type is {kind!r}; expected one of {', '.join(_KINDS)}. For others, rotate query and key before "
            f"calling attention."
        )
    if kind == "default":
        return frequencies, 1.0
    factor = scaling.get("factor", 1.0)
    if not isinstance(factor, Real) or not float(factor) > 0:
        raise OptionError(
            f"the factor of the {kind!r} scaling is {factor!r}; expected a positive number: how many times longer than "
            f"in training a text may be."
        )
    factor = float(factor)
    if kind == "linear":
        return frequencies / factor, 1.0
    if kind == "ntk":
        width = 2 * len(frequencies)
        if width == 2:  # a single pair turns by 1 radian per position for every base
            return frequencies, 1.0
        stretched = base * factor ** (width / (width - 2))
        return stretched ** -(torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width), 1.0
    missing = [name for name in _NEEDED.get(kind, ()) if scaling.get(name) is None]
    if missing:
        raise OptionError(
            f"scaling of type {kind!r} lacks {', '.join(missing)}. Give a model's whole rope_parameters "
            f"(rope_scaling), or set original_max_position_embeddings to the length it was trained on."
        )
    if kind == "llama3":
        return _llama3(frequencies, factor, scaling), 1.0
    magnitude = scaling.get("attention_factor") or (0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0)
    return _yarn(frequencies, base, factor, scaling), float(magnitude)


def _llama3(frequencies: Tensor, factor: float, scaling: dict[str, Any]) -> Tensor:
    """Divide low frequencies by the factor, keep high ones, and interpolate between."""
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (blend + (1 - blend) / factor)


def _yarn(frequencies: Tensor, base: float, factor: float, scaling: dict[str, Any]) -> Tensor:
    """As `_llama3`, interpolated over pair indices instead of frequencies (Peng et al. 2023, section 3.2)."""
    width, context = 2 * len(frequencies), scaling["original_max_position_embeddings"]

    def pair_with_rotations(times: float) -> float:
        return width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(base))

    first = max(math.floor(pair_with_rotations(scaling.get("beta_fast") or 32)), 0)
    last = min(math.ceil(pair_with_rotations(scaling.get("beta_slow") or 1)), width - 1)
    ramp = (
        (torch.arange(len(frequencies), dtype=torch.float64, device="cpu") - first) / max(last - first, 0.001)
    ).clamp(0, 1)
    return frequencies / factor * ramp + frequencies * (1 - ramp)
