"""Render chat templates. They are Jinja programs that come with a model, so they run in the sandbox, with a limit."""

import json
from typing import Any, Final

from clearhead import sandbox
from clearhead.capture.models.loading import Loaded
from clearhead.errors import ModelError
from clearhead.messages import message

LIMITS: Final = sandbox.Limits(seconds=5.0, memory=256 * sandbox.MIB, output=8 * sandbox.MIB, disk=sandbox.MIB)
_RENDERER: Final = "transformers.utils.chat_template_utils"
_PROGRAM: Final = f"""
import json
from {_RENDERER} import render_jinja_template
with open("given") as file:
    given = json.load(file)
(text,), _ = render_jinja_template(
    conversations=[given["turns"]], chat_template=given["template"], add_generation_prompt=True, **given["tokens"]
)
"""


def has_chat_template(loaded: Loaded) -> bool:
    """Return whether a model has a chat template, of its processor or of its tokenizer."""
    return bool(getattr(loaded.processor, "chat_template", None) or getattr(loaded.tokenizer, "chat_template", None))


def as_message(loaded: Loaded, prompt: str, *, picture: bool = False) -> str:
    """Return a prompt in the chat template of a model, as a user's message, up to where the answer begins.

    With `picture`, the message has a picture before the prompt.

    If this machine cannot confine programs, the template runs in this process, without a limit.

    Raises:
        ModelError: the template raises an error, or takes more than `LIMITS`.
    """
    content: Any = [{"type": "image"}, {"type": "text", "text": prompt}] if picture else prompt
    turns = [{"role": "user", "content": content}]
    tokenizer = loaded.tokenizer
    template = (picture and loaded.processor.chat_template) or tokenizer.get_chat_template()
    if not sandbox.available():
        return str(tokenizer.apply_chat_template(turns, template, add_generation_prompt=True, tokenize=False))
    given = {"turns": turns, "template": template, "tokens": _special_tokens(tokenizer)}
    outcome = sandbox.run(
        _PROGRAM, files=[("given", json.dumps(given).encode())], limits=LIMITS, want=[("text", "")],
        preload=(_RENDERER,), owner="chat template",
    )  # fmt: skip
    if outcome.stopped:
        raise ModelError(
            message(
                "the chat template of %(model)s takes too much %(resource)s. Let it continue the text instead.",
                model=loaded.name,
                resource=outcome.stopped,
            )
        )
    if outcome.raised:
        raise ValueError(f"its chat template: {outcome.raised.message}")
    return outcome.values["text"]


def _special_tokens(tokenizer: Any) -> dict[str, Any]:
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
