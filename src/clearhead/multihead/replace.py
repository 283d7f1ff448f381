"""`replace_attention`: replace torch's attention modules in a model with ours."""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch.nn.utils.parametrize import is_parametrized

from clearhead.multihead.layer.module import MultiheadAttention


@dataclass(frozen=True, slots=True)
class Replacement:
    """Which modules `replace_attention` replaced, and which it left. `str()` lists both.

    Attributes:
        replaced: names of the replaced modules.
        left: name -> why the module was left unchanged.
    """

    replaced: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        names = [name or "the model itself" for name in self.replaced]
        modules = "module" if len(names) == 1 else "modules"
        lines = [f"replaced {len(names)} attention {modules}: {', '.join(names) or 'none'}"]
        lines += [f"left {name or 'the model itself'}: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def replace_attention(model: torch.nn.Module) -> Replacement:
    """Replace every torch.nn.MultiheadAttention of a model with clearhead.MultiheadAttention, in place.

    Parameters, hooks, names and the module objects themselves stay, so an existing optimiser keeps working.

    Args:
        model: any module, including a torch.nn.MultiheadAttention itself.
    Returns:
        What was replaced, and what was left and why (subclasses with their own forward, parametrized weights).
    Memory: none.

    Example:
        >>> model = torch.nn.TransformerEncoderLayer(8, 2)
        >>> print(replace_attention(model))
        replaced 1 attention module: self_attn
    """
    done = Replacement()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.MultiheadAttention):
            continue
        if isinstance(module, MultiheadAttention):
            done.left[name] = "it is already ours"
        elif is_parametrized(module):
            done.left[name] = "its weights are parametrized, as part of its class; replace first, then parametrize"
        elif type(module) is not torch.nn.MultiheadAttention:
            done.left[name] = f"it is a {type(module).__name__}, whose own forward would be lost"
        else:
            module.__class__ = MultiheadAttention
            MultiheadAttention.add_extras(cast(MultiheadAttention, module))
            done.replaced.append(name)
    return done
