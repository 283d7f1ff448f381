"""`AttentionMatrix.survey`: every statistic of rows, keys and cells in one sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clearhead.errors import OptionError
from clearhead.kernels import Wanted
from clearhead.matrix.questions import sweep
from clearhead.matrix.questions.keys import KeyQuestions
from clearhead.matrix.questions.maps import MapQuestions, check_cells
from clearhead.matrix.questions.rows import RowQuestions, effective


class Questions(RowQuestions, KeyQuestions, MapQuestions):
    """The statistics of a matrix, one method each, in float32 or wider."""

    def survey(
        self,
        *,
        k: int = 8,
        cells: tuple[int, int] = (64, 64),
        offset: int | None = None,
        progress: sweep.Progress | None = None,
    ) -> sweep.Survey:
        """Compute every statistic of rows, keys and cells in one sweep, for about the cost of one forward pass.

        Args:
            k: how many of the largest weights of each row; limited to S.
            cells: rows and columns of the map.
            offset: as for `mean_distance`.
            progress: called with the share done, 0..1, during the sweep. For a progress bar:
                `with rich.progress.Progress() as bar: task = bar.add_task("asking", total=1);
                A.survey(progress=lambda done: bar.update(task, completed=done))`.

        Raises:
            OptionError: as `topk` and `pooled` do.

        Example:
            >>> import torch
            >>> from clearhead import AttentionMatrix
            >>> q = torch.zeros(1, 1, 4, 2)
            >>> survey = AttentionMatrix(q, q, is_causal=True).survey(k=2, cells=(2, 2))
            >>> survey.received[0, 0], survey.effective_keys[0, 0]
            (tensor([2.0833, 1.0833, 0.5833, 0.2500]), tensor([1., 2., 3., 4.]))
            >>> survey.topk[1][0, 0].tolist()
            [[0, 1], [0, 1], [0, 1], [0, 1]]
        """
        check_cells("survey", *cells)
        if k < 1:
            raise OptionError(f"survey got k={k}; expected k of 1 or more.")
        offset = self._offset(offset)
        k, where = min(k, self.shape[3]), self._cells(*cells, self._region(None), "mean")
        answer = sweep.ask(
            self._logits,
            lambda: self._known_lse(None if progress is None else lambda done: progress(done / 2)),
            Wanted(True, True, True, True, True, True, offset, True, k, where),
            None if progress is None else lambda done: progress((1 + done) / 2),
        )
        if answer is None:
            return self._survey_in_torch(k, cells, offset, progress)
        return sweep.Survey(
            entropy=answer.entropy,
            maximum=answer.maximum,
            effective_keys=effective(answer.mass, answer.squares),
            mean_distance=answer.distance,
            distance_spread=answer.spread,
            received=answer.received,
            topk=(answer.best, answer.best_keys),
            pooled=sweep.means(answer.map, where),
        )

    def _survey_in_torch(
        self, k: int, cells: tuple[int, int], offset: int, progress: sweep.Progress | None
    ) -> sweep.Survey:
        """Compute the survey in torch, one statistic at a time."""
        methods: dict[str, Callable[[], Any]] = {
            "entropy": self.entropy,
            "maximum": self.maximum,
            "effective_keys": self.effective_keys,
            "mean_distance": lambda: self.mean_distance(offset=offset),
            "distance_spread": lambda: self.distance_spread(offset=offset),
            "received": self.received,
            "topk": lambda: self.topk(k),
            "pooled": lambda: self.pooled(*cells),
        }
        answers = {}
        for done, (name, method) in enumerate(methods.items(), start=1):
            answers[name] = method()
            if progress is not None:
                progress(done / len(methods))
        return sweep.Survey(**answers)
