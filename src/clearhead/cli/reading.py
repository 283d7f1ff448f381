"""Run a text, picture or sound through a model, for `clearhead see` and `clearhead compare`."""

import warnings
from typing import TYPE_CHECKING, Annotated, Final

import typer

from clearhead.cli.given import Given
from clearhead.cli.progress import progress
from clearhead.errors import ModelError, OptionError

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

Model = Annotated[
    str | None,
    typer.Option(help="A model folder, or a name in the local Hugging Face cache. Default: the demo model, MiniLM."),
]
Target = Annotated[
    str | None, typer.Option(help="The text that an encoder-decoder's decoder reads, such as a translation.")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with a model. Read it first.")
]
NAMES: Final = 6  # layers named in a message


def look(
    given: Given,
    model: str | None,
    *,
    trust: bool = False,
    max_bytes: int | None = None,
    label: str = "",
    shows_note: bool = False,
) -> "Reading":
    """Read a text, a picture, or a text with a picture or a sound through a model and return the reading.

    Args:
        given: from `given.read_given`.
        model: a folder or a cached name; None for the demo model.
        trust: run the Python code that comes with the model.
        max_bytes: stop recording layers before their queries and keys take more.
        label: the model's name in the progress line.
        shows_note: the caller prints the reading's note, so the warning of `load`, which says the same, is left out.

    Raises:
        ModelError: the model, the text or the picture cannot be used, or no attention was captured.
    """
    from clearhead import capture
    from clearhead.capture.models.progress import layers_run
    from clearhead.views.checks import check_not_empty

    with progress(f"loading {label or 'the model'}"), warnings.catch_warnings():
        if shows_note:
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=__name__)  # `load` warns its caller
        loaded = capture.load(model, trust_remote_code=trust)
    with progress(f"reading through {loaded.name}") as tell, layers_run(loaded.model, tell):
        reading = _reading(loaded, given, max_bytes)
    check_not_empty(reading)
    return reading


def _reading(loaded: "Loaded", given: Given, max_bytes: int | None) -> "Reading":
    """Return the reading of what was given, by the function for this kind of model."""
    from clearhead import capture

    _check_suits(loaded, given)
    if given.sound is not None:
        return capture.read_sound(loaded, given.sound, given.text or "", max_bytes=max_bytes)
    if given.picture is not None and loaded.reads == "pictures":
        return capture.read_picture(loaded, given.picture)
    if given.picture is not None:
        return capture.read_with_picture(loaded, given.text or "", given.picture, max_bytes=max_bytes)
    return capture.read(loaded, given.text or "", target=given.target, max_bytes=max_bytes)


def _check_suits(loaded: "Loaded", given: Given) -> None:
    """Check that a model reads what was given; the library says the rest.

    Raises:
        ModelError: it does not; the message names the options of this command.
    """
    name = loaded.name
    if given.target is not None and not loaded.has_decoder:
        raise ModelError(f"{name} is not an encoder-decoder of text, so it takes no --target. Leave it out.")
    if loaded.reads == "sound":
        if given.sound is None:
            raise ModelError(
                f"{name} hears sound. Give it a WAV file with --sound, and the words that are said in it: "
                'clearhead see "the words" --sound speech.wav'
            )
        if given.text is None:
            raise ModelError(f"{name} reads the words that are said in {given.sound}. Give them as the text.")
    if given.picture is None:
        return
    if loaded.reads == "text" and not loaded.takes_picture:
        lacking = ""
        if hasattr(getattr(loaded.model, "config", None), "image_token_id"):
            reason = loaded.no_picture or "its folder has no preprocessor_config.json"
            lacking = f" {name} is a vision-language model, but cannot see: {reason.rstrip('.')}."
        raise ModelError(
            f"{name} reads text, and {given.picture} is a picture. Give --model a model that reads pictures.{lacking}"
        )
    if loaded.reads == "pictures" and given.text is not None:
        raise ModelError(f"{name} sees the picture alone and reads no words. Leave the words out.")
    if loaded.takes_picture and given.text is None:
        raise ModelError(
            f"{name} reads words about a picture. Give them too: "
            f'clearhead see "what is in it?" --picture {given.picture}'
        )


def layer_number(reading: "Reading", given: str | None) -> int | None:
    """Return the number of a layer given by its number or its module's name.

    Raises:
        OptionError: there is no such layer; the message lists the layers.
    """
    names = list(reading.record)
    if given is None:
        return None
    if given in names:
        return names.index(given)
    try:
        return int(given)
    except ValueError:
        shown = ", ".join(names[:NAMES]) + (f", … ({len(names)} in all)" if len(names) > NAMES else "")
        raise OptionError(
            f"{reading.model_name} has no layer {given!r}. "
            f"Give a number from 0 to {len(names) - 1}, or one of: {shown}."
        ) from None
