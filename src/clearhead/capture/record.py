"""Record: the result of `observe`, with one attention matrix for each call of an attention module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead import hooks
from clearhead.capture.attribution.why import Source
from clearhead.capture.generation.cached_keys import Keys
from clearhead.capture.generation.generated import whole
from clearhead.capture.generation.joined_masks import PlacedCall
from clearhead.capture.generation.joining import joined, last_run
from clearhead.capture.head_outputs.layer_parts import LayerParts
from clearhead.capture.positions import Positions, assumed, from_lists, to_lists
from clearhead.capture.steps import Missed, Step
from clearhead.errors import CaptureError
from clearhead.matrix import AttentionMatrix


@dataclass(eq=False, repr=False)
class Record(LayerParts):
    """Module name -> AttentionMatrix, in the order the modules have in the model.

    A module may run more than once inside one `with` block (each step of `generate()`, for one): `record[name]` is its
    last call, `record.calls(name)` is all of them, oldest first, and `record.joined()` has the calls of the last
    generation as one matrix. `record.positions(name)` gives the positions of each call's queries and keys in the text.

    Attributes:
        missed: each attention module that ran and was not captured, with the reason.
        read: how many tokens were read of each sequence ("input", "decoder"), where that is known.

    Memory: queries of every call, and keys once for a cache, also where beam search reorders it.
    """

    missed: list[Missed] = field(default_factory=list)
    _steps: dict[str, list[Step]] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    _projections: dict[str, Any] = field(default_factory=dict)
    _passes: list[tuple[Any, ...]] = field(default_factory=list)  # (model, args, kwargs) of each pass, two at most

    @classmethod
    def of(cls, matrices: Mapping[str, AttentionMatrix], positions: Mapping[str, Positions] | None = None) -> Record:
        """Make a record of given matrices, in their order; of a record or a loaded file, with every call.

        Args:
            matrices: name -> matrix.
            positions: name -> the positions of its queries and keys. By default a square matrix is self-attention from
                position 0 on, and any other is a decoder's attention to an encoder's tokens.
        """
        record = cls(_order=list(matrices))
        calls, places = getattr(matrices, "calls", None), getattr(matrices, "places", None)
        for name, matrix in matrices.items():
            every = (matrix,) if calls is None else calls(name)
            saved = (None,) * len(every) if places is None else places(name)
            for call, place in zip(every, saved, strict=True):
                where = from_lists(place) if positions is None or name not in positions else positions[name]
                record._add_matrix(name, call, where)
        return record

    def __getitem__(self, name: str) -> AttentionMatrix:
        steps = self._known(name)
        matrix = steps[-1].matrix()
        if len(self._passes) == 1 and len(steps) == 1:
            model, *inputs = self._passes[0]
            matrix._source = Source(model, name, (inputs[0], inputs[1]))
        return matrix

    def release_model(self) -> None:
        """Drop the model and its inputs, which `A.why` needs, so that the model's memory can be freed."""
        self._passes.clear()

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._order if self._steps.get(name))

    def __len__(self) -> int:
        return sum(1 for steps in self._steps.values() if steps)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._steps.get(name))

    def __repr__(self) -> str:
        from clearhead.capture.record_summary import summary

        return summary(self)

    def calls(self, name: str) -> tuple[AttentionMatrix, ...]:
        """Return every matrix that module `name` computed, oldest first.

        Raises:
            KeyError: nothing was recorded under that name; the message lists the names.
        """
        return tuple(step.matrix() for step in self._known(name))

    def positions(self, name: str) -> tuple[Positions, ...]:
        """Return the positions of the queries and keys of each of those calls, one entry per call."""
        return tuple(step.positions or _assumed(step.matrix()) for step in self._known(name))

    def places(self, name: str) -> tuple[Any, ...]:
        """Return the same positions as lists and numbers, as `clearhead.matrix.save` writes them."""
        return tuple(to_lists(place) for place in self.positions(name))

    def joined(self) -> Record:
        """Join the calls of each module over the last text into one matrix: all its queries over all its keys.

        A module that serves several layers becomes several matrices, "name[0]", "name[1]" …. Calls over earlier texts
        are left out. If the calls do not fit in one matrix (beams that change places), only the last one is kept.
        `missed` lists what was left out.

        Example:
            >>> q = torch.randn(1, 2, 5, 3)
            >>> record = Record()
            >>> for start, stop in ((0, 3), (3, 4), (4, 5)):
            ...     part = AttentionMatrix(q[:, :, start:stop], q[:, :, :stop], reach=(None, start))
            ...     record._add_matrix("a layer", part, assumed(stop - start, stop, start))
            >>> record["a layer"].shape, record.joined()["a layer"].shape
            ((1, 2, 1, 5), (1, 2, 5, 5))
        """
        whole_record = Record(missed=list(self.missed), read=dict(self.read))
        if all(len(steps) <= 1 for steps in self._steps.values()):
            whole_record._passes = list(self._passes)  # the joined calls are those of one pass
        for name in self:
            calls = [PlacedCall(*call) for call in zip(self.calls(name), self.positions(name), strict=True)]
            text = calls[-1].positions.text
            layers: dict[int, list[PlacedCall]] = {}
            for call in calls:
                if call.positions.text == text:
                    layers.setdefault(call.positions.nth, []).append(call)
            earlier = len(calls) - sum(map(len, layers.values()))
            whole_record._leave_out(name, earlier, len(calls), "they belong to an earlier text")
            for nth, layer in layers.items():
                run = last_run(layer)
                whole_record._leave_out(name, len(layer) - len(run), len(calls), "they do not lead up to the last call")
                try:
                    joined_run = joined(run)
                except CaptureError as error:
                    joined_run = run[-1]
                    whole_record._leave_out(name, len(run) - 1, len(calls), str(error))
                joined_name = name if len(layers) == 1 else f"{name}[{nth}]"
                if name in self._projections:
                    whole_record._projections[joined_name] = self._projections[name]
                whole_record._add_matrix(joined_name, joined_run.matrix, joined_run.positions)
        return whole_record

    def generated(self, beams: Tensor | None = None) -> list[AttentionMatrix]:
        """Return the last generation as one matrix per layer, (B, H, n, n), with a row for each token that was read.

        The n tokens are the prompt and all new tokens but the last, from which nothing was generated yet. Row i holds
        the weights of the step that read token i and generated token i + 1, over the keys at that time. A
        cross-attention has a row for each of the decoder's tokens, and the encoder's keys. With beam search, a row of
        the batch is one text from its first token to its last.

        Args:
            beams: (N, new), the `beam_indices` that `model.generate(…, return_dict_in_generate=True)` returns: the
                batch then consists of the N returned texts. By default it consists of the beams of the last step.

        Returns:
            Matrices in layer order, with statistics, products and top-k like any AttentionMatrix. A module that serves
            several layers gives a matrix for each.

        Raises:
            CaptureError: nothing was recorded, or the steps of a layer do not fit in one matrix.
            OptionError: beams are not those of this generation.

        Memory: a copy of queries and keys; a mask of L·S only if a band and padding do not describe the steps' masks.

        Example:
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from clearhead import observe
            >>> size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 7}
            >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **size)).eval()
            >>> with observe(model) as record:
            ...     text = model.generate(torch.tensor([[1, 5, 3]]), max_new_tokens=4, eos_token_id=None)
            >>> [A.shape for A in record.generated()]
            [(1, 2, 6, 6), (1, 2, 6, 6)]
        """
        if not self:
            raise CaptureError("nothing was recorded. Run model.generate inside `with observe(model) as record`.")
        matrices = []
        for name in self:
            steps, positions = self._known(name), self.positions(name)
            text = positions[-1].text
            for nth in sorted({where.nth for where in positions if where.text == text}):
                chosen = [(s, p) for s, p in zip(steps, positions, strict=True) if (p.text, p.nth) == (text, nth)]
                try:
                    matrices.append(whole([s for s, _ in chosen], [p for _, p in chosen], beams).matrix)
                except CaptureError as error:
                    raise CaptureError(f"the generation of {name!r} is not one matrix: {error}") from error
        return matrices

    def _leave_out(self, name: str, count: int, total: int, reason: str) -> None:
        if count:
            self.missed.append(Missed(name, f"{count} of its {total} calls are left out: {reason}"))

    def length(self, sequence: str) -> int:
        """Return the number of positions of a sequence ("input" or "decoder") that the record's matrices cover.

        That is the number of tokens the model was given, if known. Otherwise it is one more than the largest position
        of a query in that sequence, or of a key if it has no query.
        """
        if sequence in self.read:
            return self.read[sequence]
        places = [place for name in self for place in self.positions(name)]
        for axes in ([place.queries for place in places], [place.keys for place in places]):
            ends = [max(axis.positions) + 1 for axis in axes if axis.sequence == sequence and len(axis.positions)]
            if ends:
                return max(ends)
        return 0

    def to_html(
        self,
        path: str | Path,
        *,
        tokens: Sequence[str] | None = None,
        decoder_tokens: Sequence[str] | None = None,
        title: str = "A record",
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Write one self-contained page: every head small, and one large to zoom and point at. It makes no request.

        Args:
            path: the file to write.
            tokens: what the model read, one token per position: for a generation, the prompt and the generated tokens
                (the last, which has no query, may be left out); for an encoder-decoder, the encoder's tokens. Default:
                the numbers of the positions.
            decoder_tokens: the decoder's tokens of an encoder-decoder.
            title: the page's heading.
            progress: called after each layer: (how many are done, of how many).

        Returns:
            The path. The file stays under 5 MB whatever the length of the text; the page names what was left out. It
            shows the first entry of a batch, and the calls of a generation as one matrix.

        Raises:
            OptionError: nothing was captured, the tokens do not match the positions, or the file cannot be written.

        Warns (RuntimeWarning) about calls that are not drawn: those over an earlier text, and beams that change places.

        Memory: O(L) per head; no L × S tensor beyond about 900,000 weights. Cost: about three forward passes.

        Example:
            >>> import tempfile
            >>> q = torch.randn(1, 2, 5, 4)
            >>> record = Record.of({"a layer": AttentionMatrix(q, q)})
            >>> record.to_html(f"{tempfile.mkdtemp()}/heads.html", tokens="I saw a red kite".split()).name
            'heads.html'
        """
        return hooks.save_record_page(
            self, path, tokens=tokens, decoder_tokens=decoder_tokens, title=title, progress=progress
        )

    def _add_matrix(self, name: str, matrix: AttentionMatrix, positions: Positions | None) -> None:
        """Append a call, given its matrix."""
        if name not in self._order:
            self._order.append(name)
        step = Step(partial(_itself, matrix), Keys(torch.empty(0, 0, 0, 0)), 0, positions=positions)
        self._steps.setdefault(name, []).append(step)

    def _known(self, name: str) -> list[Step]:
        if name not in self:
            missed = {item.name: item.reason for item in self.missed}
            if name in missed:
                raise KeyError(f"{name!r} ran and was not captured: {missed[name]}")
            have = ", ".join(self) or "nothing: run the model inside the `with observe(model)` block"
            raise KeyError(f"no attention was recorded under {name!r}; recorded: {have}")
        return self._steps[name]

    def _add(self, name: str, step: Step) -> None:
        """Append a call. If its keys continue those of the call before, keep only the new ones."""
        steps = self._steps.setdefault(name, [])
        if steps and steps[-1].grew_into(step):
            shared = steps[-1].keys
            shared.grow(step.keys)
            step.keys = shared
        elif steps and step.keys.follow(steps[-1].keys, step.queries):
            steps[-1]._made = None
        steps.append(step)


def _assumed(matrix: AttentionMatrix) -> Positions:
    high = matrix._logits.attention.reach[1] if isinstance(matrix, AttentionMatrix) else None
    return assumed(matrix.shape[2], matrix.shape[3], high)


def _itself(matrix: AttentionMatrix, _: Tensor) -> AttentionMatrix:
    return matrix
