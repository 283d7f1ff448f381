"""Load the weights of a model, and say in one sentence what its folder lacks."""

from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from torch import nn

from clearhead.capture.attention_modules import attention_modules
from clearhead.capture.models.library_messages import without_load_report
from clearhead.errors import ModelError
from clearhead.messages import Message, message

HEADS = ("lm_head.", "embed_out.", "cls.")  # how names of a language modelling head begin
_COMPUTED = "Sinusoidal"  # in the name of a class that computes its positions, as Marian's does


def load_weights(
    folder: str | Path, name: str, made_as: Any, config: Any, local: dict[str, Any]
) -> tuple[Any, Set[str], Message | None]:
    """Return the model in eval mode, the parameters that its folder lacks, and a sentence about those that matter.

    Args:
        folder: where the model is.
        name: its display name.
        made_as: the class to load it as, such as AutoModel.
        config: its configuration.
        local: further keyword arguments of `from_pretrained`.

    Raises:
        ModelError: weights of attention are missing, or the file's weights have other sizes than the configuration's.
    """
    with without_load_report():
        model, loaded = made_as.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked here, because transformers' error names no size
            **local,
        )
    _check_sizes(folder, loaded["mismatched_keys"])
    _check_attention_weights(folder, model, loaded["missing_keys"])
    return model.eval(), loaded["missing_keys"], _note(name, model, loaded["missing_keys"])


def _check_sizes(folder: str | Path, mismatched: Iterable[tuple[str, Any, Any]]) -> None:
    """Check that every weight has the size that the configuration asks for.

    Raises:
        ModelError: one has not; the message names it and both sizes.
    """
    for weight, stored, expected in sorted(mismatched):
        raise ModelError(
            message(
                "%(model)s cannot be loaded: its %(weight)s has shape %(stored)s in the file, and config.json asks for "
                "%(expected)s. Give the config.json that belongs to these weights.",
                model=folder,
                weight=weight,
                stored=str(tuple(stored)),
                expected=str(tuple(expected)),
            )
        )


def _check_attention_weights(folder: str | Path, model: nn.Module, missing: Iterable[str]) -> None:
    """Check that no weights of attention are missing, because they would be random.

    Raises:
        ModelError: some are missing; the message says which.
    """
    inside = tuple(f"{name}." for name in attention_modules(model) if name)
    lacking = sorted(name for name in missing if name.startswith(inside))
    if lacking:
        raise ModelError(
            message(
                "%(model)s has no weights for %(count)s of its attention parameters, %(first)s among them, so they "
                "would be random. Give the folder of a whole model.",
                model=folder,
                count=len(lacking),
                first=lacking[0],
            )
        )


def _note(name: str, model: nn.Module, missing: Iterable[str]) -> Message | None:
    """Return a sentence about missing parameters on which attention may depend, or None: not on a head or a pooler."""
    computed = tuple(f"{name}." for name, module in model.named_modules() if _COMPUTED in type(module).__name__)
    unrelated = (*HEADS, *computed)
    lacking = sorted(weight for weight in missing if not weight.startswith(unrelated) and "pooler." not in weight)
    if not lacking:
        return None
    return message(
        "%(model)s has no weights for %(count)s of its parameters, %(first)s among them. They are random, so what it "
        "attends to may not be what the trained model does. Give the folder of a whole model.",
        model=name,
        count=len(lacking),
        first=lacking[0],
    )
