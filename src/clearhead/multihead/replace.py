"""`replace_attention`: give a model our attention instead of torch's."""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch.nn.utils.parametrize import is_parametrized

from clearhead.multihead.layer.module import MultiheadAttention


@dataclass(frozen=True, slots=True)
class Replacement:
    """What `replace_attention` did. Its text says it in words.

    Attributes:
        replaced: names of the modules that are ours now.
        left: name -> why it was left as it is.
    """

    replaced: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        names = [name or "the model itself" for name in self.replaced]
        lines = [f"replaced {len(names)} attention modules: {', '.join(names) or 'none'}"]
        lines += [f"left {name or 'the model itself'}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def replace_attention(model: torch.nn.Module) -> Replacement:
    """Turn every torch.nn.MultiheadAttention of a model into clearhead.MultiheadAttention, in place.

    Parameters, hooks, names and the module objects themselves stay: an optimiser made before goes on working.

    Args:
        model: any module; itself may be one.
    Returns:
        What was replaced, and what was left and why (subclasses with a forward of their own, parametrized weights).
    Memory: none.

    Example:
        >>> model = torch.nn.TransformerEncoderLayer(8, 2)
        >>> print(replace_attention(model))
        replaced 1 attention modules: self_attn
    """
    done = Replacement()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.MultiheadAttention):
            continue
        if isinstance(module, MultiheadAttention):
            done.left[name] = "it is ours already"
        elif is_parametrized(module):
            done.left[name] = "its weights are parametrized, as part of its class; replace first, then parametrize"
        elif type(module) is not torch.nn.MultiheadAttention:
            done.left[name] = f"it is a {type(module).__name__}, whose own forward would be lost"
        else:
            module.__class__ = MultiheadAttention
            MultiheadAttention.add_extras(cast(MultiheadAttention, module))
            done.replaced.append(name)
    return done
