"""How well stated confidence matches being right, in five bands."""

from clearhead.course.progress.attempt import Attempt, Calibration

BANDS = 5
SURE = 0.8  # confidence from which a wrong answer is a confident error


class Confidence:
    """Accumulates attempts in order of time; `result` compares stated confidence with outcomes."""

    def __init__(self) -> None:
        self._bands: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(BANDS)]  # sums of stated, of right; how many
        self._squares = 0.0
        self._errors: dict[str, float] = {}

    def see(self, attempt: Attempt) -> None:
        """Count one attempt, if it states a confidence."""
        stated = attempt.confidence
        if stated is None:
            return
        band = self._bands[min(int(stated * BANDS), BANDS - 1)]
        band[0] += stated
        band[1] += attempt.correct
        band[2] += 1
        self._squares += (stated - attempt.correct) ** 2
        if attempt.correct:
            self._errors.pop(attempt.item_id, None)
        elif stated >= SURE:
            self._errors[attempt.item_id] = stated

    def result(self) -> Calibration:
        """Return the calibration curve and the confident errors not yet corrected."""
        count = int(sum(band[2] for band in self._bands))
        bins = tuple((stated / many, right / many, int(many)) for stated, right, many in self._bands if many)
        worst = sorted(self._errors, key=lambda item: (-self._errors[item], item))
        return Calibration(count, self._squares / count if count else None, bins, tuple(worst))
