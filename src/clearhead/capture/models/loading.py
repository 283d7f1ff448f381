"""load(): load a model from this machine, by its folder, its name in the local cache or its name in `clearhead models`.

Nothing is downloaded, weights are read from safetensors only, and code that comes with a model runs only with the
caller's consent.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clearhead.capture.models.folders import DEMO_NAME, UNTRAINED_NAME, demo_folder, folder_or_name, is_chat_name
from clearhead.capture.models.library_messages import clean_library_messages
from clearhead.capture.models.model_files import check_model_files
from clearhead.capture.models.processors import SOUND_MODELS, picture_and_text_processor
from clearhead.capture.models.weights import HEADS, load_weights
from clearhead.errors import ClearheadError, ModelError
from clearhead.extras import missing, needs
from clearhead.local_models.chat_model import CHAT_NAME
from clearhead.messages import Message, message
from clearhead.printing import count

_CAUSAL = ("ForCausalLM", "LMHeadModel")  # how transformers names models that write
_LIBRARIES = ("safetensors", "PIL", "tokenizers", "huggingface_hub")  # imported by transformers on demand


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to read texts, pictures, texts with a picture, or sound.

    Attributes:
        model: the network, in eval mode.
        tokenizer: its tokenizer; None for a model of pictures.
        name: its display name.
        max_length: the maximum number of tokens, special ones included.
        processor: turns a picture or a sound into the model's input; None for a model of text.
        no_picture: why a vision-language model takes no picture here, if it does not.
        writer: the same network with its language modelling head, for writing; None without one.
        note: a sentence about weights that its folder lacks, which are random; None if all are there.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    max_length: int
    processor: Any = None
    writer: nn.Module | None = None
    no_picture: str | None = None
    note: Message | None = None

    def __repr__(self) -> str:
        """The model's name and class, what it reads and how much of it: one line, without its layers."""
        kind = type(self.model).__name__
        most = "" if self.reads == "pictures" else f", at most {count(self.max_length, 'token')}"
        return f"Loaded({self.name!r}, {kind}, reads {self.reads}{most})"

    @property
    def reads(self) -> Literal["text", "pictures", "sound"]:
        """What the model reads: whether to call `read`, `read_picture` or `read_sound`."""
        if self.processor is None:
            return "text"
        if self.tokenizer is None:
            return "pictures"
        return "sound" if hasattr(self.processor, "sampling_rate") else "text"

    @property
    def takes_picture(self) -> bool:
        """Whether it reads a text with a picture in it: whether to call `read_with_picture`."""
        return self.reads == "text" and self.processor is not None

    @property
    def has_decoder(self) -> bool:
        """Whether it is an encoder-decoder of text, whose decoder reads its own text."""
        config = getattr(self.model, "config", None)
        return self.reads == "text" and bool(getattr(config, "is_encoder_decoder", False))


def load(name_or_path: str | Path | None = None, *, trust_remote_code: bool = False) -> Loaded:
    """Load a Hugging Face model that is already on this machine: it reads texts, pictures, both, or sound (Whisper).

    Weights are read from safetensors alone, and nothing is downloaded.

    Args:
        name_or_path: a model folder, a name in the local Hugging Face cache, a name of `clearhead models`, or one of
            these: None or its own name, the demo model; "induction", the small causal model that ships with the package
            (two layers, one token per character); "untrained", the demo model with random weights (seed 0), for
            comparison; "SmolLM2-135M-Instruct", the chat model, once it is fetched.
        trust_remote_code: run the Python code that comes with the model, if any. It runs with all your rights: read it
            first.

    Returns:
        Loaded, the model in eval mode.

    Raises:
        ExtraError: transformers is not installed.
        ModelError: the folder or name does not exist, has no config.json, or has no readable weights, tokenizer or
            picture processor; or it comes with code and was not trusted (then `.remote_code` is True).

    Warns (RuntimeWarning) that weights are missing, so they are random; `Loaded.note` says the same.

    Example:
        >>> loaded = load("induction")
        >>> loaded.reads, loaded.max_length, loaded.tokenizer("say it").input_ids
        ('text', 512, [0, 20, 2, 26, 38, 10, 21])
    """
    untrained = str(name_or_path) == UNTRAINED_NAME
    folder: str | Path
    if untrained:
        folder = demo_folder()
    elif name_or_path is None or (str(name_or_path) == DEMO_NAME and not Path(name_or_path).is_dir()):
        name_or_path, folder = None, demo_folder()
    else:
        folder = folder_or_name(name_or_path)
    with needs("models", message("loading a model")):
        from transformers.utils import logging
    name = DEMO_NAME if name_or_path is None else Path(str(name_or_path)).name
    name = CHAT_NAME if is_chat_name(str(name_or_path)) else name
    clean_library_messages()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        check_model_files(_on_disk(folder))
        loaded = _loaded(folder, name, trust_remote_code, untrained=untrained)
        if loaded.note is not None:
            warnings.warn(loaded.note, RuntimeWarning, stacklevel=2)
        return loaded
    except ClearheadError:
        raise
    except Exception as error:
        if missing(error) in _LIBRARIES:
            with needs("models", message("loading a model")):
                raise
        refused = _load_error(folder, error)
        refused.model = None if name_or_path is None else str(name_or_path)
        raise refused from (None if refused is error else error)
    finally:
        if bars:
            logging.enable_progress_bar()


def _on_disk(folder: str | Path) -> Path:
    """The folder itself, or the snapshot of a name in the local cache."""
    from transformers.utils import cached_file

    if isinstance(folder, Path):
        return folder
    try:
        return Path(str(cached_file(folder, "config.json", local_files_only=True))).parent
    except OSError as error:
        if error.errno is not None:
            raise
        absent = ModelError(  # transformers would say that it could not connect, although it did not try
            message(
                "%(model)s cannot be loaded: there is no such folder, and no model of that name in the local Hugging "
                "Face cache. Nothing is downloaded. Give a folder with config.json, model.safetensors and a tokenizer "
                "(or, for pictures, preprocessor_config.json).",
                model=folder,
            )
        )
        absent.model = folder
        raise absent from error


def _loaded(folder: str | Path, name: str, trust_remote_code: bool, *, untrained: bool) -> Loaded:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

    writer, note = None, None
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **local)
    if untrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModel.from_config(config).eval()
    else:
        made_as = AutoModelForCausalLM if _is_causal(config, AutoModelForCausalLM) else AutoModel
        model, lacking, note = load_weights(folder, name, made_as, config, local)
        if made_as is AutoModelForCausalLM:
            has_head = not any(weight.startswith(HEADS) for weight in lacking)
            model, writer = model.base_model, model if has_head else None
    model = _seeing_part(model, config)
    hears = config.model_type in SOUND_MODELS
    if model.main_input_name not in ("input_ids", "pixel_values") and not hears:
        raise ModelError(
            message(
                "%(model)s reads %(input)s, a signal that is neither text nor a picture nor the sound of a Whisper. "
                "Use clearhead.observe on it, with the inputs it takes.",
                model=name,
                input=model.main_input_name,
            )
        )
    if model.main_input_name == "pixel_values":
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
        return Loaded(model=model, tokenizer=None, name=name, max_length=10**9, processor=processor, note=note)
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    processor, no_picture = _picture_processor(folder, config, tokenizer, local)
    if hears:
        processor = _feature_extractor(folder, name, local)
    length = _max_length(config, tokenizer)
    return Loaded(model, tokenizer, name, length, processor, writer, no_picture, note)


def _seeing_part(model: Any, config: Any) -> Any:
    """Return the part of a model of pictures that attends over patches; any other model as it is."""
    if hasattr(model, "vision_model") and hasattr(model, "text_model") and not hasattr(config, "image_token_id"):
        return model.vision_model  # CLIP-like
    if getattr(config, "is_encoder_decoder", False) and model.main_input_name == "pixel_values":
        return model.get_encoder()  # the decoder writes captions, which are not needed
    return model


def _picture_processor(
    folder: str | Path, config: Any, tokenizer: Any, local: dict[str, Any]
) -> tuple[Any, str | None]:
    """Return a vision-language model's processor, or None and why it takes no picture here: it still reads texts."""
    if getattr(config, "image_token_id", getattr(config, "image_token_index", None)) is None:
        return None, None
    try:
        return picture_and_text_processor(folder, config, tokenizer, local), None
    except (ImportError, OSError, ValueError, TypeError, AttributeError) as error:
        return None, str(error).strip().partition("\n")[0] or type(error).__name__


def _feature_extractor(folder: str | Path, name: str, local: dict[str, Any]) -> Any:
    """Return what turns a sound into the input of a speech model.

    Raises:
        ModelError: the folder does not say how.
    """
    from transformers import AutoFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(folder, **local)
    except OSError as error:
        raise ModelError(
            message(
                "%(model)s hears sound, and its folder has no preprocessor_config.json, which says how to prepare one. "
                "Copy that file from the model too.",
                model=name,
            )
        ) from error


def _is_causal(config: Any, causal_models: Any) -> bool:
    """Whether a folder holds a causal language model with its head, of a class in transformers."""
    names = getattr(config, "architectures", None) or ()
    return type(config) in causal_models._model_mapping and any(str(name).endswith(_CAUSAL) for name in names)


def _load_error(folder: str | Path, error: Exception) -> ModelError:
    """Return the error for a model that could not be loaded."""
    if "trust_remote_code" in str(error):  # how transformers asks for consent
        refused = ModelError(
            message(
                "%(model)s comes with its own Python code, which would run with all your rights, so the model was not "
                "loaded and none of the code was run. Read its .py files; if you trust them, say so: "
                "`--trust-remote-code`, or capture.load(..., trust_remote_code=True).",
                model=folder,
            )
        )
        refused.remote_code = True
        return refused
    lines = [row.strip()[:300] for row in str(error).splitlines() if row.strip()] or [type(error).__name__]
    first = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
    if isinstance(error, KeyError):
        first = f"a part named {first} is missing"
    first = first if first.endswith((".", "!", "?")) else f"{first}."
    return ModelError(
        message(
            "%(model)s cannot be loaded as a model: %(why)s Give a folder with config.json, model.safetensors and a "
            "tokenizer (or, for pictures, preprocessor_config.json).",
            model=folder,
            why=first,
        )
    )


def _max_length(config: Any, tokenizer: Any) -> int:
    """Return the smaller of the position limit and the tokenizer's limit, ignoring "no limit" markers."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [
        getattr(config, "max_position_embeddings", None),
        getattr(config, "n_positions", None),
        getattr(config, "max_target_positions", None),  # Whisper's decoder
        getattr(tokenizer, "model_max_length", None),
    ]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    # RoBERTa counts positions from padding_idx + 1, and its tokenizer's limit already says so.
    return min(known, default=10**9)
