"""The end of Build: run the learner's own class with a real model's weights, on a real sentence.

The class runs confined, like every program of a learner. Its attention weights are compared with those of the model,
and drawn by the same module as the Lens.
"""

import base64
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from clearhead import sandbox
from clearhead.course import Attempt, Item
from clearhead.errors import ClearheadError, SandboxError
from clearhead.studio.learn import certificate, topic
from clearhead.studio.lens import demo_model, model_list
from clearhead.studio.practice.asking import answered
from clearhead.studio.questions.question import ends_in_class
from clearhead.studio.text import formatting
from clearhead.studio.text.translation import _, explained
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.work_queues import needs_queue, queued

if TYPE_CHECKING:
    from torch import Tensor

    from clearhead.capture import Reading

router = APIRouter()

SENTENCE = "The animal didn't cross the street because it was too tired"
ROUNDING = 1e-4  # largest difference of two weights that counts as rounding
LIMITS = sandbox.Limits(seconds=20)
MARK = "\x1e"  # separator that a program's own output does not contain
PARTS = ("query", "key", "mask", "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
MODELS: Final = {"": None, "chat": model_list.CHAT}  # as an address names them -> as capture.load does

# Runs after the learner's program: reads the layer's inputs and parameters, prints the weights of every head.
AFTER = f"""
import base64 as _base64, json as _json, torch as _torch
_parts = {{}}
for _name, _shape in _json.load(open("parts.json")).items():
    _parts[_name] = _torch.frombuffer(bytearray(open(_name, "rb").read()), dtype=_torch.float32).reshape(_shape)
_query, _key, _mask = (_parts.pop(_name) for _name in ("query", "key", "mask"))
_layer = MultiHeadAttention(_query.shape[-1], heads)
_layer.load_state_dict(_parts)
with _torch.no_grad():
    _more = {{"attn_mask": _mask.bool()}} if _mask.any() else {{}}
    _weights = _layer(_query, _key, _key, **_more)[1]
_shape = list(_weights.shape)
assert _shape == [1, heads, _query.shape[1], _query.shape[1]], f"the weights have shape {{_shape}}"
print({MARK!r} + _base64.b64encode(_weights.float().contiguous().numpy().tobytes()).decode())
"""


@dataclass(frozen=True)
class Ran:
    """The result of running the learner's class on one layer.

    Attributes:
        weights: (1, H, L, L), from the learner's class.
        apart: the largest difference to the model's own weights.
    """

    weights: "Tensor"
    apart: float


@router.get("/attempts/{attempt_id}/head", response_class=HTMLResponse)
@queued("programs")
def page(
    request: Request,
    context: CurrentContext,
    attempt_id: str,
    layer: Annotated[int, Query(ge=0)] = 0,
    model: Literal["", "chat"] = "",
) -> HTMLResponse:
    attempt, item = _attempt_of(context, attempt_id)
    needs_queue()
    ran, problem, rows, count, head = None, "", [], 0, 0
    try:
        reading = demo_model.reading(SENTENCE, MODELS[model])
        count = len(reading.record)
        ran = _run(str(attempt.response), _known(layer, count), context.owner, model)
        head = _telling(ran)
        rows = _strongest(ran, head, reading.tokens)
        if ran.apart < ROUNDING and not model:
            context.store.keep(certificate.IN_MODEL, f"{context.now():%Y-%m-%d}")
    except ClearheadError as refused:
        problem = str(refused)
    pack, this = context.library.pack_of(item.id), context.library.topic_of(item)
    return topic.mode_page(
        request,
        context,
        "explore/reveal.html",
        pack,
        this,
        "build",
        attempt=attempt,
        layer=layer,
        layers=count,
        model=model,
        model_name=MODELS[model] or "",
        has_chat=model_list.chat_state()["here"],
        head=head,
        sentence=SENTENCE,
        ran=ran,
        rows=rows,
        problem=problem,
    )


@router.get("/attempts/{attempt_id}/head.json")
@queued("programs")
def data(
    context: CurrentContext,
    attempt_id: str,
    layer: Annotated[int, Query(ge=0)] = 0,
    model: Literal["", "chat"] = "",
) -> Response:
    """Return the data for `attention.js`: one layer, with every head from the learner's class."""
    from clearhead.views.page.payload import payload

    attempt, _item = _attempt_of(context, attempt_id)
    needs_queue()
    try:
        count = len(demo_model.reading(SENTENCE, MODELS[model]).record)
        ran = _run(str(attempt.response), _known(layer, count), context.owner, model)
        drawn = payload(_as_reading(ran, layer, model), text=SENTENCE)
    except ClearheadError as error:
        return JSONResponse({"error": explained(error)}, status_code=422)
    return JSONResponse({**drawn, "first": {"layer": 0, "head": _telling(ran), "token": -1}})


def _attempt_of(context: Context, attempt_id: str) -> tuple[Attempt, Item]:
    """Return the right answer and its item, or raise a 404 that says how to get there."""
    attempt = context.store.attempt(attempt_id)
    question = attempt and answered(context, attempt)
    if not (attempt and question and ends_in_class(question.item)):
        raise HTTPException(404, _("There is no class of yours at this address."))
    if not attempt.correct:
        raise HTTPException(
            404, _("This program does not pass its tests yet. Once it does, it is run in a real model.")
        )
    return attempt, question.item


def _known(layer: int, count: int) -> int:
    if layer >= count:
        raise HTTPException(404, _("The model has layers 0 to %(last)s.", last=count - 1))
    return layer


@lru_cache(maxsize=32)
def _run(program: str, layer: int, owner: str = "", model: str = "") -> Ran:
    """Run the learner's class, confined, with the parameters and the input of this layer.

    Raises:
        ModelError: the model is not here. SandboxError: nothing can be run here, or the class failed.
    """
    import torch

    parts, heads = _layer(layer) if not model else _chat_layer(layer)
    files = [(name, parts[name].contiguous().numpy().tobytes()) for name in PARTS]
    files.append(("parts.json", json.dumps({name: list(parts[name].shape) for name in PARTS}).encode()))
    chunks = [
        sandbox.Chunk(program, _("your program")),
        sandbox.Chunk(f"heads = {heads}\n{AFTER}", _("the model’s layer")),
    ]
    outcome = sandbox.run(chunks, files=files, limits=LIMITS, preload=("torch",), owner=owner)
    if not outcome.ok or MARK not in outcome.stdout:
        why = formatting.why_ended(outcome, LIMITS) or _("it printed nothing")
        raise SandboxError(_("Your class did not run with the model’s weights: %(why)s.", why=why))
    raw = base64.b64decode(outcome.stdout.rpartition(MARK)[2])
    own = list(demo_model.reading(SENTENCE, MODELS[model]).record.values())[layer].to_dense().float()
    if len(raw) != own.numel() * 4:
        raise SandboxError(_("Your class did not give one weight for each head, query and key."))
    weights = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(own.shape).nan_to_num()
    return Ran(weights, (weights - own).abs().max().item())


@lru_cache(maxsize=12)
def _layer(number: int) -> tuple[dict[str, "Tensor"], int]:
    """Return a layer's input, (1, L, E), and its parameters under the names of `nn.MultiheadAttention`."""
    import torch

    loaded = demo_model.model()
    encoded = loaded.tokenizer(SENTENCE, return_tensors="pt")
    with torch.inference_mode():
        x = loaded.model(**encoded, output_hidden_states=True).hidden_states[number]
    attention: Any = loaded.model.encoder.layer[number].attention  # type: ignore[union-attr,index]
    three = [getattr(attention.self, name) for name in ("query", "key", "value")]
    parts = {
        "query": x.clone(),
        "key": x.clone(),
        "mask": torch.zeros(1),  # every token may look at every other
        "in_proj_weight": torch.cat([projection.weight.detach() for projection in three]),
        "in_proj_bias": torch.cat([projection.bias.detach() for projection in three]),
        "out_proj.weight": attention.output.dense.weight.detach(),
        "out_proj.bias": attention.output.dense.bias.detach(),
    }
    config: Any = loaded.model.config
    return parts, int(config.num_attention_heads)


@lru_cache(maxsize=30)
def _chat_layer(number: int) -> tuple[dict[str, "Tensor"], int]:
    """Return the queries and keys that a layer of the chat model multiplies, (1, L, E), and identity projections.

    Between its projections and the products, this model rotates queries and keys by their positions (RoPE), and three
    heads share a key. So the class gets queries and keys as they are multiplied, and identity projections.
    """
    import torch

    matrix = list(demo_model.reading(SENTENCE, model_list.CHAT).record.values())[number]
    query, key = (part.float().transpose(1, 2).flatten(-2) for part in (matrix.q, matrix.per_query_head(matrix.k)))
    length, width = query.shape[1:]
    identity = torch.eye(width)
    parts = {
        "query": query,
        "key": key,
        "mask": torch.ones(length, length).triu(1),
        "in_proj_weight": identity.repeat(3, 1),
        "in_proj_bias": torch.zeros(3 * width),
        "out_proj.weight": identity,
        "out_proj.bias": torch.zeros(width),
    }
    return parts, int(matrix.shape[1])


def _as_reading(ran: Ran, layer: int, model: str = "") -> "Reading":
    """Return the weights in the form that views need: a matrix whose logits are their logarithms."""
    import torch

    from clearhead.capture import Record
    from clearhead.matrix import AttentionMatrix

    heads, length = ran.weights.shape[1:3]
    nothing = torch.zeros(1, heads, length, 1)
    matrix = AttentionMatrix(nothing, nothing, bias=ran.weights.clamp_min(1e-30).log())
    own = demo_model.reading(SENTENCE, MODELS[model])
    name = _("your class with layer %(layer)s of %(model)s", layer=layer, model=own.model_name)
    return replace(own, record=Record.of({f"layer {layer}": matrix}), model_name=name)


def _telling(ran: Ran) -> int:
    """Return the head with the sharpest weights, not counting the ends of the text."""
    inside = ran.weights[0, :, 1:-1, 1:-1]
    return int(inside.amax(-1).mean(-1).argmax())


def _strongest(ran: Ran, head: int, tokens: list[str]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return each token with the three tokens that this head weights most."""
    values, places = ran.weights[0, head].topk(min(3, len(tokens)), dim=-1)
    return [
        (token, [(tokens[place], weight) for place, weight in zip(at, of, strict=True)])
        for token, at, of in zip(tokens, places.tolist(), values.tolist(), strict=True)
    ]
