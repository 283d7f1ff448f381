"""Record what an import or export could not carry over, and where it was."""

from collections.abc import Callable
from dataclasses import dataclass, field

from clearhead.errors import PackError

Lost = Callable[[str], None]  # called with what is not carried over; it already knows the place
_SHOWN = 20  # losses that an error lists


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss. `place` is where it was: "notes.txt:5", "deck.apkg, note 3" or "item choice-even"."""

    place: str
    content: str

    def __str__(self) -> str:
        return f"{self.place}: {self.content}"


@dataclass(slots=True)
class Report:
    """Collects the losses of one import or export in file order, each once."""

    losses: list[Loss] = field(default_factory=list)
    _seen: set[Loss] = field(default_factory=set)

    def add(self, place: str, content: str) -> None:
        """Record that `content`, at `place`, is not carried over."""
        loss = Loss(place, content)
        if loss not in self._seen:
            self._seen.add(loss)
            self.losses.append(loss)

    def at(self, place: str) -> Lost:
        """Return a function that records a loss at this place."""
        return lambda text: self.add(place, text)

    def refuse(self) -> None:
        """Raise PackError if anything was lost: what `--strict` asks for."""
        if self.losses:
            listed = "\n".join(f"  {loss}" for loss in self.losses[:_SHOWN])
            more = len(self.losses) - _SHOWN
            rest = f"\n  and {more} more" if more > 0 else ""
            raise PackError(f"nothing was written, because this is not carried over:\n{listed}{rest}")
