"""Writing: continue a text with a causal model, token by token; each token keeps the weights of its step."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final, Self

import torch
from torch import Tensor

from clearhead.capture.generation.continued import continued
from clearhead.capture.models.chat_template import as_message
from clearhead.capture.models.continuation import Continuation
from clearhead.capture.models.input_checks import running
from clearhead.capture.models.loading import Loaded
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.errors import ModelError
from clearhead.messages import message

CANDIDATES: Final = 8
AT_ONCE: Final = 4_000_000  # weights of one layer that are held at once: 16 MB
REPORTED: Final = 64  # tokens of one step: of 4,096, all logits of SmolLM2 would take 800 MB

Head = tuple[int, int]  # layer and head, counted from 0


@dataclass(frozen=True, slots=True)
class WrittenToken:
    """One token, and the step that wrote it, whose query is the token before.

    Attributes:
        token_id: the token.
        probability: the model's probability for it, also if it was typed instead of chosen by the model.
        candidates: the most likely tokens of the step, each with its probability.
        weights: (S,), the weights of the step, as the mean over all heads of all layers; they add up to 1.
    """

    token_id: int
    probability: float
    candidates: list[tuple[int, float]]
    weights: Tensor


def prompt_ids(loaded: Loaded, prompt: str, *, chat: bool) -> list[int]:
    """Return the tokens of a prompt.

    Args:
        loaded: a model that writes.
        prompt: the typed text.
        chat: whether it is a message to a chat model, in its template, instead of a text to continue.

    Raises:
        ModelError: the prompt is empty, or the model has no chat template.
    """
    if not prompt.strip():
        raise ModelError(message("the prompt is empty. Give at least one word."))
    tokenizer = loaded.tokenizer
    if chat and not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            message("%(model)s has no chat template. Let it continue the text instead.", model=loaded.name)
        )
    with running(loaded, "prompt"):
        if chat:
            text = as_message(loaded, prompt)
            return [int(number) for number in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        ids = [int(number) for number in tokenizer(prompt, verbose=False)["input_ids"]]
    ends = ending_ids(loaded)
    return ids[:-1] if len(ids) > 1 and ids[-1] in ends and ids[-1] != ids[0] else ids


def more_ids(loaded: Loaded, text: str) -> list[int]:
    """Return the tokens of a text that continues another text."""
    return [int(number) for number in loaded.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]


def ending_ids(loaded: Loaded) -> set[int]:
    """Return the tokens with which a model ends its text."""
    places = (
        getattr(loaded.writer, "generation_config", None),
        getattr(loaded.writer, "config", None),
        loaded.tokenizer,
    )
    values = [getattr(place, "eos_token_id", None) for place in places]
    return {
        number for value in values for number in (value if isinstance(value, list) else [value]) if number is not None
    }


class Writing:
    """Continues one text with the most likely token at each step.

    A `with` block observes the model from the first step to the last, which is cheaper than observing each step.

    Args:
        loaded: a model that writes.
        token_ids: the prompt, and what was written so far.
        known: how many of them were reported before; the steps of the others are reported first.
        without: heads that are switched off, as (layer, head).
        after: the continuation of a text with the same model and heads; tokens that begin both texts are not read
            again. It can be used once.

    Raises:
        ModelError: the model does not write, or the text is longer than its maximum.
    """

    def __init__(
        self,
        loaded: Loaded,
        token_ids: Sequence[int],
        *,
        known: int,
        without: Collection[Head] = (),
        after: Continuation | None = None,
    ) -> None:
        check_writes(loaded)
        self.ids, self._loaded, self._without = list(token_ids), loaded, tuple(without)
        self._known, self._ran, self._cache = max(known, 1), 0, None
        self._ends = ending_ids(loaded)
        check_room(loaded, len(self.ids))
        if after is not None and (length := after.usable(self.ids[: self._known])):
            self._ran, self._cache = length, after.cache_of(length)
        self._skipped, self._earlier = self._ran, after.record if after is not None and self._ran else None
        self._open = ExitStack()
        self._record: Record | None = None
        self._is_open = False

    def __enter__(self) -> Self:
        self._record = self._open.enter_context(observed(self._loaded, self._without))
        self._is_open = True
        return self

    def __exit__(self, *error: object) -> None:
        self._is_open = False
        self._open.close()
        if self._record is not None and self._earlier is not None:
            self._record = continued(self._earlier, self._skipped, self._record)

    @property
    def is_read(self) -> bool:
        """Whether a `with` block has observed the text from its beginning, except for the last token."""
        return self._is_whole and 0 < self._ran == len(self.ids) - 1

    @property
    def _is_whole(self) -> bool:
        """Whether the record begins with the first token."""
        return self._record is not None and (not self._skipped or self._earlier is not None)

    def continuation(self) -> Continuation | None:
        """Return the state from which another Writing can continue, after the `with` block; None if nothing is written.

        It takes this object's cache, so this object cannot write any more.
        """
        cache, self._cache = self._cache, None
        if cache is None:
            return None
        record = self._record if self._is_whole else None
        return Continuation(self._loaded, tuple(self.ids[: self._ran]), self._without, cache, record)

    def generated(self) -> Record:
        """Return one matrix per layer over all tokens but the last, as `Record.generated`.

        Raises:
            ModelError: the text was not observed in a `with` block.
        """
        if self._record is None:
            raise ModelError(message("nothing was observed. Write inside `with Writing(…) as writing`."))
        record = Record.of(dict(zip(self._record, self._record.generated(), strict=True)))
        record._passes = [(self._loaded.writer, (), {"input_ids": torch.tensor([self.ids[:-1]])})]  # what `why` runs
        return record

    @property
    def max_length(self) -> int:
        """The maximum number of tokens of the model."""
        return self._loaded.max_length

    @property
    def ended(self) -> bool:
        """Whether the model has ended its text, or has no room for more."""
        is_done = 0 < self._ran == len(self.ids) - 1 and self.ids[-1] in self._ends
        return is_done or len(self.ids) >= self._loaded.max_length

    def step(self) -> list[WrittenToken]:
        """Run the model once and append a token. Return typed tokens that were not reported yet, then the new one.

        If more than `REPORTED` tokens were typed, the first calls return that many of them each, and append nothing.

        Raises:
            ModelError: the model cannot run in this way.
        """
        start = self._ran
        first = min(max(self._known - 1, start), len(self.ids) - 1)  # the first query whose step is reported
        size = min(len(self.ids), first + REPORTED)
        model: Any = self._loaded.writer
        parameters = signature(model.forward).parameters
        cache = "cache" if "cache" in parameters else "past_key_values"  # its name in transformers before 5.24
        given: dict[str, Any] = {"input_ids": torch.tensor([self.ids[start:size]]), cache: self._cache}
        self._cache = None  # an error in the model may leave tokens in some of its layers
        if "logits_to_keep" in parameters:
            given["logits_to_keep"] = size - first
        with ExitStack() as step:
            step.enter_context(running(self._loaded, "prompt"))
            record = self._record
            if record is None or not self._is_open:
                record = step.enter_context(observed(self._loaded, self._without))
            output = model(**given, use_cache=True)
        self._cache, self._ran = output[cache], size
        logits = output.logits[0, first - size :].float()
        weights = pooled_rows(record, range(first, size), size)
        if size == len(self.ids):
            self.ids.append(int(logits[-1].argmax()))
        chances = logits.softmax(-1)
        best = chances.topk(min(CANDIDATES, chances.shape[-1]))
        return [
            WrittenToken(
                token_id=self.ids[query + 1],
                probability=float(chances[row, self.ids[query + 1]]),
                candidates=list(zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)),
                weights=weights[row, : query + 1],
            )
            for row, query in enumerate(range(first, size))
        ]


def check_writes(loaded: Loaded) -> None:
    """Raise ModelError unless the model writes."""
    if loaded.writer is None:
        raise ModelError(
            message(
                "%(model)s does not write: it is not a causal language model with its head. Choose one that is, such "
                "as SmolLM2-135M-Instruct.",
                model=loaded.name,
            )
        )


def check_room(loaded: Loaded, length: int) -> None:
    """Raise ModelError if a text leaves the model no room to write a token."""
    if length >= loaded.max_length:
        raise ModelError(
            message(
                "the text is %(length)s tokens long and %(model)s takes at most %(most)s. Shorten it.",
                length=length,
                model=loaded.name,
                most=loaded.max_length,
            )
        )


@contextmanager
def observed(loaded: Loaded, without: Collection[Head] = ()) -> Iterator[Record]:
    """Observe a writer while it runs, with some heads switched off."""
    writer: Any = loaded.writer
    with ExitStack() as open_contexts:
        open_contexts.enter_context(torch.no_grad())  # not inference mode, whose tensors have no version
        if without:
            from clearhead.capture.interventions.intervene import intervene

            open_contexts.enter_context(intervene(writer, dict.fromkeys(without, "zero")))
        yield open_contexts.enter_context(observe(writer))


def read_again(
    loaded: Loaded, token_ids: Sequence[int], without: Collection[Head] = (), *, last: int = 1
) -> tuple[Record, Tensor]:
    """Read a written text in one pass.

    Args:
        loaded: a model that writes.
        token_ids: the text.
        without: heads that are switched off.
        last: the number of tokens whose logits to return.

    Returns:
        The record, with the same weights as step by step, to rounding; and the logits of the last tokens,
        (last, vocabulary).
    """
    check_writes(loaded)
    model: Any = loaded.writer
    keep = {"logits_to_keep": last} if "logits_to_keep" in signature(model.forward).parameters else {}
    with running(loaded, "text"), observed(loaded, without) as record:
        output = model(input_ids=torch.tensor([list(token_ids)]), use_cache=False, **keep)
    return record, output.logits[0, -last:].float()


def pooled_rows(
    record: Record, queries: range, keys: int, *, layer: int | None = None, head: int | None = None
) -> Tensor:
    """Return (Q, S) float32: the weights of some queries over all keys, as the mean over heads.

    Args:
        record: a record of a causal model.
        queries: positions in the text.
        keys: S, the number of positions in the text.
        layer, head: one layer, or one head of it; None for the mean over all.

    Memory: the result, and AT_ONCE weights of one layer.
    """
    total, heads = torch.zeros(len(queries), keys), 0
    for number, name in enumerate(record):
        if layer is not None and number != layer:
            continue
        matrix, where = record[name], record.positions(name)[-1]
        part = matrix if head is None else matrix.heads([head])
        first = where.queries.positions.index(queries.start)
        known = [column for column in where.keys.positions if column < keys]
        columns: Any = slice(known[0], known[-1] + 1) if where.keys.start is not None else torch.tensor(known)
        inside: Any = slice(len(known)) if where.keys.start is not None else torch.tensor(where.keys.positions) < keys
        _, count, _, length = part.shape
        step = max(1, AT_ONCE // (count * length))
        for start in range(0, len(queries), step):
            stop = min(start + step, len(queries))
            weights = part.rows(first + start, first + stop).to_dense()[0].float().sum(0)
            total[start:stop, columns] += weights[:, inside]
        heads += count
    return total / max(heads, 1)
