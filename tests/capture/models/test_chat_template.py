"""Chat templates run in the sandbox: the same text as transformers gives, and an end to each loop."""

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from clearhead import sandbox
from clearhead.capture.models import chat_template
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.writing import prompt_ids
from clearhead.errors import ModelError

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")

PLAIN = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message['content'] | trim | tojson }}\n"
    "{% if loop.last %}{% break %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    "{{ strftime_now('%%') }}"
)
ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a large power": "{{ 9 ** (9 ** 9) }}",
    "a text that doubles": (
        "{% set ns = namespace(t='x') %}{% for a in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}"
    ),
    "a wide column": "{{ 'x' | center(9999999999) }}",
    "text repeated": "{{ 'x' * 9999999999 }}",
    "much output": "{% for a in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
}


def chat_model(template: Any) -> Loaded:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return Loaded(model=None, tokenizer=tokenizer, name="chatty", max_length=64, writer=object())  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("template", [PLAIN, {"default": PLAIN, "tool_use": "no"}], ids=["one", "by name"])
def test_it_gives_what_transformers_gives(template: Any) -> None:
    model = chat_model(template)
    turns = [{"role": "user", "content": 'Why "so"?\n é 日'}]
    expected = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert chat_template.as_message(model, turns[0]["content"]) == expected
    assert '<s><|user|>"Why' in expected


@pytest.mark.stress
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_without_end_is_stopped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        chat_template, "LIMITS", sandbox.Limits(seconds=1.0, memory=64 << 20, output=1 << 20, disk=1 << 20)
    )
    with pytest.raises(ModelError, match=r"chat template of chatty takes too much (time|memory|output)"):
        prompt_ids(chat_model(ENDLESS[kind]), "hello", chat=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{% for %}", "Expected"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[7].content.x }}", "dict object has no element 7|has no element 7"),
    ],
)
def test_a_template_that_fails_is_a_sentence(template: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        prompt_ids(chat_model(template), "hello", chat=True)
