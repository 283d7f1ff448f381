"""The settings that decide the numbers of a survey. They are kept in its folder, so that it resumes unchanged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clearhead.errors import OptionError
from clearhead.survey.asks import DEFAULT

FORMAT = 8  # version of the folder; increase it with any change of a survey's numbers


@dataclass(frozen=True, slots=True)
class Settings:
    """What to ask of which texts.

    Attributes:
        asks: some of `asks.ASKS`.
        sample: number of texts for the ask "ablation", spread evenly.
        max_length: tokens of a text that are read; None: the model's maximum.
        limit: number of texts to survey; None: all.
        part_texts: texts that are computed and written together.
        batch_tokens: positions in a forward pass, padding included.
        threads: torch threads of a worker, the same for all workers, because torch's order of summation depends on it.
        keep_texts: whether the numbers of each text are written too.
    """

    asks: tuple[str, ...] = DEFAULT
    sample: int = 64
    max_length: int | None = None
    limit: int | None = None
    part_texts: int = 512
    batch_tokens: int = 2048
    threads: int = 1
    keep_texts: bool = False

    def __post_init__(self) -> None:
        for name in ("sample", "max_length", "limit", "part_texts", "batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise OptionError(f"{name} is {value!r}, expected a whole number of 1 or more.")

    def as_data(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return asdict(self) | {"asks": list(self.asks)}

    def is_sampled(self, text: int, total: int) -> bool:
        """Whether a text is among those whose heads are ablated: `sample` of `total`, evenly.

        >>> [text for text in range(10) if Settings(sample=3).is_sampled(text, 10)]
        [3, 6, 9]
        """
        return (text + 1) * self.sample // total > text * self.sample // total or self.sample >= total
