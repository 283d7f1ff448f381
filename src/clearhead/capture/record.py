"""What a run of a model leaves behind: one attention matrix a call of an attention module."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clearhead.matrix import AttentionMatrix


@dataclass(frozen=True, slots=True)
class Missed:
    """An attention module that ran and was not recorded: its name, and why."""

    name: str
    reason: str


@dataclass(eq=False)
class Record(Mapping[str, AttentionMatrix]):
    """Module name -> AttentionMatrix, in the order the modules have in the model.

    A module may run more than once inside one `with` block (each step of `generate()`, for one): `record[name]` is its
    last call, `record.calls(name)` is all of them, oldest first.

    Attributes:
        missed: what ran and was not captured, each with a reason; never silently short.
    """

    missed: list[Missed] = field(default_factory=list)
    _calls: dict[str, list[AttentionMatrix]] = field(default_factory=dict, repr=False)
    _order: list[str] = field(default_factory=list, repr=False)

    def __getitem__(self, name: str) -> AttentionMatrix:
        return self.calls(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._order if self._calls.get(name))

    def __len__(self) -> int:
        return sum(1 for calls in self._calls.values() if calls)

    def __contains__(self, name: object) -> bool:
        return bool(self._calls.get(name))  # type: ignore[call-overload]  # any object may be asked for

    def calls(self, name: str) -> tuple[AttentionMatrix, ...]:
        """Every matrix that module `name` computed, oldest first.

        Raises:
            KeyError: nothing was recorded under that name; the message says what was.
        """
        if name not in self:
            missed = {item.name: item.reason for item in self.missed}
            if name in missed:
                raise KeyError(f"{name!r} ran and was not captured: {missed[name]}")
            have = ", ".join(self) or "nothing: run the model inside the `with observe(model)` block"
            raise KeyError(f"no attention was recorded under {name!r}; recorded: {have}")
        return tuple(self._calls[name])
