"""intervene(): run a model without some of its heads, or with other weights or outputs, and restore it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from clearhead.capture.adapters import transformers_interface
from clearhead.capture.interventions.edits import Changed, Edit, Mean, Recorded, Weights, zero
from clearhead.capture.interventions.intervener import HeadEdit, Intervener
from clearhead.capture.record import Record
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix

Change = str | Tensor | AttentionMatrix | Record | Callable[[Tensor], Tensor]


@contextmanager
def intervene(model: nn.Module, changes: Mapping[tuple[int | str, int], Change]) -> Iterator[None]:
    """Change the outputs of single heads of a model while it runs: ablate, freeze or patch them.

    The model's own kernel computes its attention; only the outputs z of the named heads are replaced, before the output
    projection. Everything is restored on leaving, also after an exception. Interventions may be nested (an inner one
    applies to the result of the outer one) and combined with `observe`, which records the weights that the model itself
    computed. An intervention affects only the thread that enters it, and each step of `model.generate`.

    Args:
        model: any model that `observe` can record.
        changes: (layer, head) -> how to change that head; the layer by index in layer order or by name, as in
            `observe(layers=)`.

            - "zero": its output is 0.
            - "mean": its output is the mean over the batch and all positions so far (padding left out, where the model
              is given an attention mask).
            - a tensor (L, S) or (B, L, S), or an AttentionMatrix: its values are summed with these weights. Row i is
              position i of the text; new tokens of a generation, past the last row, keep the model's weights.
            - a Record, of another text or another model: its output recorded there (activation patching); without
              values in the record, its own values summed with the weights recorded there.
            - a function (B, L, D_v) -> (B, L, D_v): its output is the function's result.

    Raises:
        OptionError: model is not a module, or a layer, head or change is not as above. A missing head or a wrong shape
            is reported when the model runs.
        CaptureError: on leaving, if the model ran and a layer could not be changed; the message says why.

    Memory: a copy of the output of each named layer, and (B, L, S) for each head with given weights.

    Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?" (ablation); Vig et al. 2020, "Investigating
    Gender Bias in Language Models Using Causal Mediation Analysis" (patching).

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> size = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 7}
        >>> model, tokens = BertModel(BertConfig(vocab_size=11, **size)).eval(), torch.tensor([[1, 2, 3, 4, 5]])
        >>> before = model(tokens).last_hidden_state
        >>> with intervene(model, {(0, 2): "zero", (1, 0): torch.eye(5)}):
        ...     changed = model(tokens).last_hidden_state
        >>> torch.equal(changed, before), torch.equal(model(tokens).last_hidden_state, before)
        (False, True)
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"model is a {type(model).__name__}, expected a torch.nn.Module. Pass the model itself.")
    if not isinstance(changes, Mapping) or not changes:
        raise OptionError(
            f"changes is {changes!r}, expected a dict of at least one head, as in {{(0, 3): 'zero'}}: "
            "(layer, head) -> 'zero', 'mean', weights, a record or a function."
        )
    edits = [(place[0], HeadEdit(place[1], as_edit(place, change))) for place, change in _checked(changes)]
    with applying(Intervener(model, edits)):
        yield


@contextmanager
def applying(intervener: Intervener) -> Iterator[None]:
    """Apply the edits of an intervener inside the block, then check that each layer was edited."""
    with transformers_interface.editing(intervener), intervener.watching():
        yield
    intervener.check_all_were_edited()


def as_edit(place: tuple[int | str, int], change: Any) -> Edit:
    """Return the edit for a change of one head.

    Raises:
        OptionError: the change is not valid.
    """
    if isinstance(change, str) and change == "zero":
        return zero
    if isinstance(change, str) and change == "mean":
        return Mean()
    if isinstance(change, Record):
        if not change:
            raise OptionError(f"changes[{place}] is a record of nothing. Run a model inside `with observe(…)` first.")
        return Recorded(change, *place)
    if isinstance(change, AttentionMatrix):
        single = change if change.shape[1] == 1 else change.heads(place[1])
        return Weights(single.to_dense()[:, 0].detach())
    if isinstance(change, Tensor):
        if change.dim() not in (2, 3) or not change.is_floating_point():
            raise OptionError(
                f"changes[{place}] is a tensor of shape {tuple(change.shape)} and {change.dtype}, expected weights: "
                "floating point, (L, S) or (B, L, S). To replace the output z, give a function: lambda z: other."
            )
        if bool(change.isnan().any()):
            raise OptionError(f"changes[{place}] has NaN among its weights. Give numbers, and 0 for what is not seen.")
        return Weights(change)
    if callable(change):
        return Changed(change)
    raise OptionError(
        f"changes[{place}] is {change!r}, expected 'zero', 'mean', weights (a tensor or an AttentionMatrix), a Record, "
        "or a function of the head's output."
    )


def _checked(changes: Mapping[Any, Any]) -> Iterator[tuple[tuple[int | str, int], Any]]:
    """Yield each change with its (layer, head), after checking that they are an index or name, and an index."""
    for place, change in changes.items():
        is_pair = isinstance(place, tuple) and len(place) == 2
        if not is_pair or not isinstance(place[0], (Integral, str)) or not isinstance(place[1], Integral):
            raise OptionError(f"changes has {place!r} in it, expected (layer, head), as in {{(0, 3): 'zero'}}.")
        if any(isinstance(part, bool) for part in place):
            raise OptionError(f"changes has {place!r} in it, expected indices. Write (0, 1), for example.")
        layer = place[0] if isinstance(place[0], str) else int(place[0])
        yield (layer, int(place[1])), change
