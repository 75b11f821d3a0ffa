"""What a smoke test asks of a served model, and what it makes of the answers.

For :mod:`airflow_provider_xops.serving.smoke`. A check that ends the test raises :class:`Stopped`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import yaml

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import CheckSummary, ModelVersion, Outcome, Severity
from airflow_provider_xops.serving._smoke_requests import (
    INVOCATIONS,
    PROBABILITIES,
    Answer,
    Client,
    Compared,
    as_request,
    compare_labels,
    compare_scores,
)
from airflow_provider_xops.training import selections
from airflow_provider_xops.training._apart import apart
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Task

__all__ = ["Exercise", "Findings", "Rows", "Stopped", "check_signature"]

WARM_UP = 3
PERCENTILES = (50, 95, 99)
_NUMBERS = {"double", "float", "long", "integer"}


class Stopped(Exception):
    """A check that ends the test."""

    def __init__(self, check: str, message: str, *, outcome: Outcome = Outcome.FAILED) -> None:
        super().__init__(message)
        self.check = check
        self.message = message
        self.outcome = outcome


@dataclass
class Findings:
    """What has been found so far."""

    checks: list[CheckSummary] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    max_difference: float | None = None
    #: what the server said of itself when it was ready
    ready: dict[str, Any] | None = None

    def add(
        self,
        check: str,
        outcome: Outcome,
        *,
        observed: float | None = None,
        count: int | None = None,
        message: str = "",
    ) -> None:
        """Note a check; the last word about one counts."""
        self.checks = [each for each in self.checks if each.check != check]
        self.checks.append(
            CheckSummary(
                check=check,
                column=None,
                outcome=outcome,
                severity=Severity.CRITICAL,
                observed=observed,
                unexpected_count=count,
                message=message,
            )
        )

    def passed(self, check: str, *, observed: float | None = None, message: str = "") -> None:
        self.add(check, Outcome.PASSED, observed=observed, message=message)

    def has_passed(self, check: str) -> bool:
        """Whether a check was made, and passed."""
        return any(each.check == check and each.outcome is Outcome.PASSED for each in self.checks)

    def outcome(self, model: ModelVersion) -> tuple[Outcome, str]:
        """The test's own outcome: passed only where predictions were compared and nothing else is wrong."""
        for worst in (Outcome.FAILED, Outcome.ERRORED):
            for check in self.checks:
                if check.outcome is worst:
                    return worst, f"{check.check}: {check.message}"
        if self.has_passed("predictions"):
            return Outcome.PASSED, ""
        return Outcome.NO_DATA, f"no prediction could be compared: {_why_nothing(model)}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of the holdout to ask about, proved to be the recorded ones.

    :param frame: empty where the model names none. :param golden: the places in the frame of the golden rows,
        in their order.
    """

    frame: pd.DataFrame
    golden: tuple[int, ...]

    @property
    def compared(self) -> int:
        """How many rows have recorded predictions."""
        return len(self.golden)

    @classmethod
    def of(cls, lake: Lake, model: ModelVersion, *, sizes: Sequence[int]) -> Self:
        """The golden rows, and as many more of the holdout as the largest request has.

        :raises DataError: ``data.selection_changed``, ``data.columns_missing``.
        """
        if model.holdout is None or not model.features:
            return cls(frame=pd.DataFrame(), golden=())
        table = selections.materialize(lake, model.holdout, columns=model.features)
        golden = model.golden.rows if model.golden is not None else ()
        known = set(golden)
        more = (place for place in range(table.num_rows) if place not in known)
        wanted = [*golden, *itertools.islice(more, max(0, max(sizes) - len(golden)))]
        frame = feature_frame(table.take(wanted), model.features)
        return cls(frame=frame, golden=tuple(range(len(golden))))


class Exercise:
    """The questions to a served model, one after the other."""

    def __init__(
        self, model: ModelVersion, rows: Rows, http: Client, found: Findings, settings: Mapping[str, Any]
    ) -> None:
        self.model = model
        self.rows = rows
        self.http = http
        self.found = found
        self.settings = settings
        self.task = _task(model)
        self._first: dict[int, Any] = {}

    def run(self) -> None:
        """Ask everything.

        :raises Stopped: a check failed.
        :raises TimeUp: the time is over. :raises OSError: the server is gone.
        """
        self._golden()
        self._measure()
        self._wrong_input()

    def _golden(self) -> None:
        golden = self.model.golden
        if golden is None or not self.rows.golden:
            self.found.add("predictions", Outcome.NO_DATA, message=_why_nothing(self.model))
            return
        body = as_request(self.rows.frame.iloc[list(self.rows.golden)])
        said = self._answered("predictions", self._ask(INVOCATIONS, body), len(self.rows.golden))
        self._hold("predictions", compare_labels(self.task, golden, self.rows.golden, said))
        if not golden.scores:
            return
        classes = (self.found.ready or {}).get("classes")
        if classes is None or tuple(classes) != golden.classes:
            raise Stopped("probabilities", "the loaded model has other classes than the recorded one")
        said = self._answered("probabilities", self._ask(PROBABILITIES, body), len(self.rows.golden))
        self._hold("probabilities", compare_scores(golden, said))

    def _hold(self, check: str, compared: Compared) -> None:
        """Note how far the answers are from the record; more than the tolerance ends the test."""
        count = len(self.rows.golden)
        if compared.apart is None:
            raise Stopped(check, f"of {count} rows some answers are no numbers, or of another shape")
        self.found.max_difference = max(self.found.max_difference or 0.0, compared.apart)
        if not compared.within(self.settings["tolerance"]):
            raise Stopped(
                check,
                f"{compared.different} of {count} rows are not predicted as at training"
                + (
                    ""
                    if check == "predictions" and self.task is Task.CLASSIFICATION
                    else f", by up to {compared.apart:.3g}"
                ),
            )
        self.found.passed(check, observed=compared.apart, message=f"{count} rows as at training")

    def _measure(self) -> None:
        """The measurement: many requests, each answered like the others of the same rows."""
        if self.rows.frame.empty:
            self.found.add("requests", Outcome.NO_DATA, message="no holdout rows are recorded to send")
            return
        for position, size in enumerate(self.settings["rows_per_request"]):
            times = self._times(size)
            for percent, value in zip(PERCENTILES, np.percentile(times, PERCENTILES), strict=True):
                self.found.figures[f"latency_p{percent}_ms_{size}_rows"] = float(value)
                if position == 0:
                    self.found.figures[f"latency_p{percent}_ms"] = float(value)
        self.found.passed("requests", observed=self.found.requests, message="all answered alike")

    def _times(self, size: int) -> list[float]:
        total = len(self.rows.frame)
        starts = range(0, total, size) if size < total else range(1)
        groups = [[(start + offset) % total for offset in range(size)] for start in starts]
        bodies = [as_request(self.rows.frame.iloc[group]) for group in groups]
        times = []
        for turn in range(-WARM_UP, self.settings["requests"]):
            place = turn % len(groups)
            answer = self._ask(INVOCATIONS, bodies[place])
            said = self._answered("requests", answer, size)
            self._same_as_recorded(groups[place], said)
            self._same_as_before(groups[place], said)
            if turn >= 0:
                times.append(1000 * answer.seconds)
        return times

    def _same_as_recorded(self, places: Sequence[int], said: list[Any]) -> None:
        golden = self.model.golden
        if golden is None:
            return
        known = [
            (place, value) for place, value in zip(places, said, strict=True) if place < self.rows.compared
        ]
        if not known:
            return
        compared = compare_labels(
            self.task, golden, [place for place, _ in known], [value for _, value in known]
        )
        if not compared.within(self.settings["tolerance"]):
            missing = self.rows.frame.iloc[[place for place, _ in known]].isna().any()
            hint = "; in a request whose every value of a text column is missing, MLflow passes None, not NaN"
            raise Stopped(
                "requests",
                f"asked in requests of {len(places)} rows, rows are predicted otherwise than at training"
                + (hint if missing.any() else ""),
            )

    def _same_as_before(self, places: Sequence[int], said: list[Any]) -> None:
        """A row is answered alike in every request, whoever its neighbors are."""
        for place, value in zip(places, said, strict=True):
            if not self._alike(self._first.setdefault(place, value), value):
                raise Stopped("requests", "a row is predicted otherwise than in a request before")

    def _alike(self, one: Any, other: Any) -> bool:
        if repr(one) == repr(other):
            return True
        if self.task is Task.CLASSIFICATION or not (_is_number(one) and _is_number(other)):
            return False
        return bool(apart(other, one) <= self.settings["tolerance"])

    def _wrong_input(self) -> None:
        refused = 0
        for what, body in self._wrong_bodies():
            answer = self._ask(INVOCATIONS, body)
            if not 400 <= answer.status < 500:
                raise Stopped("wrong_input", f"{what} is answered with {answer.status}, not refused")
            refused += 1
        if self.http.ping() != 200:
            raise Stopped("wrong_input", "after wrong input the server does not say that it is well")
        if not self.rows.frame.empty:
            answer = self._ask(INVOCATIONS, as_request(self.rows.frame.iloc[:1]))
            said = self._answered("wrong_input", answer, 1)
            self._same_as_recorded([0], said)
        self.found.passed("wrong_input", observed=refused, message=f"{refused} kinds refused")

    def _wrong_bodies(self) -> list[tuple[str, bytes]]:
        wrong = [("broken JSON", b'{"dataframe_split": ')]
        frame = self.rows.frame.iloc[:1]
        # Without a signature MLflow hands on whatever comes: what the model makes of it is its own affair.
        if frame.empty or not self.found.has_passed("signature"):
            return wrong
        wrong.append(("a request without one of the columns", as_request(frame.iloc[:, 1:])))
        numbers = [name for name in frame.columns if frame[name].dtype.kind == "f"]
        if numbers:
            text = frame.assign(**{numbers[0]: pd.Series(["no number"], dtype=object, index=frame.index)})
            wrong.append(("text where a number belongs", as_request(text)))
        return wrong

    def _ask(self, path: str, body: bytes) -> Answer:
        self.found.requests += 1
        return self.http.post(path, body)

    def _answered(self, check: str, answer: Answer, rows: int) -> list[Any]:
        if answer.status != 200 or answer.predictions is None:
            raise Stopped(check, f"a request of {rows} rows is answered with {answer.status}")
        if len(answer.predictions) != rows:
            raise Stopped(
                check, f"a request of {rows} rows is answered with {len(answer.predictions)} predictions"
            )
        return answer.predictions


def check_signature(model: ModelVersion, path: Path, found: Findings) -> None:
    """Hold the columns of the files' signature against the recorded features.

    :raises Stopped: they are others, or the files are no MLflow model.
    """
    try:
        content = yaml.safe_load((path / "MLmodel").read_text())
        inputs = (content.get("signature") or {}).get("inputs")
        columns = json.loads(inputs) if isinstance(inputs, str) else inputs or []
    except (OSError, ValueError, yaml.YAMLError, AttributeError):
        raise Stopped("signature", "the files have no readable MLmodel") from None
    names = [str(each["name"]) for each in columns if isinstance(each, dict) and "name" in each]
    if not names:
        found.add("signature", Outcome.NO_DATA, message="the model was saved without a signature")
        return
    if names != list(model.features):
        apart = sorted(set(names) ^ set(model.features))
        raise Stopped(
            "signature",
            f"it asks for {len(names)} columns, recorded are {len(model.features)} features"
            + (f"; only one side has {', '.join(apart[:5])}" if apart else ", in another order"),
        )
    found.passed("signature", observed=len(names))


def _task(model: ModelVersion) -> Task:
    if model.task in set(Task):
        return Task(model.task)
    return Task.CLASSIFICATION if model.golden is not None and model.golden.classes else Task.REGRESSION


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _why_nothing(model: ModelVersion) -> str:
    if model.golden is None:
        return f"no predictions are on record (the model was {model.origin})"
    return "no holdout rows are on record"
