"""The one description of an attention, everything between Q·Kᵀ and the weights, for every room above. See README.md."""

from clearhead.spec.attention import ARGUMENTS, FIELDS, LEARNABLE, TENSORS, Attention, four_axes
from clearhead.spec.band import CAUSAL, EVERYWHERE, Band
from clearhead.spec.fields import Axes, Field
from clearhead.spec.grouping import divide_heads, repeat_heads
from clearhead.spec.logits import allowed, cap_slope, distances, logits, logits_at
from clearhead.spec.rule import BlockState, Rule
from clearhead.spec.validation import validate

__all__ = [
    "ARGUMENTS",
    "CAUSAL",
    "EVERYWHERE",
    "FIELDS",
    "LEARNABLE",
    "TENSORS",
    "Attention",
    "Axes",
    "Band",
    "BlockState",
    "Field",
    "Rule",
    "allowed",
    "cap_slope",
    "distances",
    "divide_heads",
    "four_axes",
    "logits",
    "logits_at",
    "repeat_heads",
    "validate",
]
