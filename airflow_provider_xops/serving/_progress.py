"""How far a long scoring has come, said in a bounded number of lines.

Private to batch scoring and to whoever calls it: :func:`airflow_provider_xops.serving.batch.score` tells a
:class:`Progress` after every batch; :class:`ProgressLines` makes of them what a person wants to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LINES_BY_SHARE", "Progress", "ProgressLines"]

LINES_BY_SHARE = 20
MIN_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where scoring stands after a batch.

    :param partition: the one being scored. :param number: its place among the ``partitions``, from 1.
    :param rows: rows that are done, of ``total``; what was found done before counts.
    :param predicted: rows that this call has predicted itself.
    """

    partition: str
    number: int
    partitions: int
    rows: int
    total: int
    predicted: int


class ProgressLines:
    """Says a line now and then: at every twentieth of the rows, at most one in five seconds; and where that
    takes long, after 10, 20, 40, ... seconds. So there are at most twenty lines, and one more whenever the
    time has doubled.

    :param say: takes a line. :param clock: seconds that only ever grow.

    >>> times = iter([0.0, 60.0])
    >>> lines = ProgressLines(print, clock=lambda: next(times))
    >>> lines(Progress(partition="d1", number=1, partitions=2, rows=600, total=1000, predicted=600))
    Scored 600 of 1,000 rows (60%), 10 rows a second; partition 1 of 2 (d1).
    """

    def __init__(self, say: Callable[[str], object], *, clock: Callable[[], float]) -> None:
        self._say, self._clock = say, clock
        self._began = self._last = clock()
        self._share, self._patience = 0, 2 * MIN_SECONDS

    def __call__(self, progress: Progress) -> None:
        """Take a step; a line comes of it or does not."""
        now = self._clock()
        share = LINES_BY_SHARE * progress.rows // max(progress.total, 1)
        by_share = share > self._share and now - self._last >= MIN_SECONDS
        by_time = now - self._began >= self._patience
        if not (by_share or by_time):
            return
        self._share, self._last = max(share, self._share), now
        while now - self._began >= self._patience:
            self._patience *= 2
        rate = progress.predicted / max(now - self._began, 1e-9)
        self._say(
            f"Scored {progress.rows:,} of {progress.total:,} rows"
            f" ({100 * progress.rows // max(progress.total, 1)}%), {rate:,.0f} rows a second;"
            f" partition {progress.number} of {progress.partitions} ({progress.partition})."
        )
