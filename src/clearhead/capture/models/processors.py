"""Load what turns a picture or a sound into a model's input, without torchvision."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

SOUND_MODELS: Final = ("whisper",)  # models of sound that `load` accepts


def picture_and_text_processor(folder: str | Path, config: Any, tokenizer: Any, local: dict[str, Any]) -> Any:
    """Return the processor of a vision-language model: pictures by PIL, no videos; None if the folder has none.

    `AutoProcessor` needs torchvision for every family that also reads videos, even to read a picture.

    Args:
        folder: the model's folder, or its name in the local cache.
        config: the model's configuration.
        tokenizer: its tokenizer.
        local: keyword arguments of each `from_pretrained`.
    """
    from transformers import AutoImageProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    kind = config.model_type
    name = PROCESSOR_MAPPING_NAMES.get(kind)
    if name is None or not any(_has(folder, file) for file in ("processor_config.json", "preprocessor_config.json")):
        return None
    module = import_module(f"transformers.models.{_package(kind)}")
    made = _without_videos(getattr(module, name))
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
    given = {"image_processor": pictures, "tokenizer": tokenizer}
    settings, _ = made.get_processor_dict(folder, **local)
    return made.from_args_and_dict([given.get(part) for part in made.get_attributes()], settings)


def _package(kind: str) -> str:
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return str(model_type_to_module_name(kind))


def _without_videos(kind: Any) -> Any:
    """Return a processor class that accepts None where it would take a processor of videos."""

    class Processor(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            absent = argument is None and argument_name not in ("image_processor", "tokenizer")
            return None if absent else super().check_argument_for_proper_class(argument_name, argument)

    Processor.__name__ = kind.__name__  # transformers finds settings by it
    return Processor


def _has(folder: str | Path, name: str) -> bool:
    """Return whether a folder, or a name in the local cache, has this file."""
    from transformers.utils import cached_file

    return cached_file(folder, name, local_files_only=True, _raise_exceptions_for_missing_entries=False) is not None
