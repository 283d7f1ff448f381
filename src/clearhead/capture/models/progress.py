"""Report the progress of a long reading, layer by layer. The callback may stop it between two layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Tell = Callable[[int, int], None]


@contextmanager
def layers_run(model: "nn.Module", tell: Tell) -> Iterator[None]:
    """Inside the block, call `tell(begun, total)` before each layer of the model runs.

    The layers are the longest `nn.ModuleList` or `nn.Sequential`; for a model without one `tell` is not called. An
    exception that `tell` raises stops the model. The hooks are removed on leaving, also after an exception.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh())
        >>> with layers_run(model, lambda done, all: print(done, "of", all)):
        ...     _ = model(torch.zeros(1))
        1 of 2
        2 of 2
    """
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    layers = list(max(lists, key=len, default=()))
    begun = 0

    def before(_module: "nn.Module", _arguments: Any) -> None:
        nonlocal begun
        begun += 1
        tell(min(begun, len(layers)), len(layers))

    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
