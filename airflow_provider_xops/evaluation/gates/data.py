"""Gates about the rows a model was trained on: validated, fresh, without personal data.

They are asked when promotion is decided: a validation may come later than an evaluation, and rows grow old.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.gates.base import Case
from airflow_provider_xops.evaluation.gates.coverage import Coverage
from airflow_provider_xops.evaluation.gates.evidence import EvidenceGate, check_days
from airflow_provider_xops.lake.history import version_record
from airflow_provider_xops.quality.freshness import partition_time
from airflow_provider_xops.quality.personal_data import search_personal_data
from airflow_provider_xops.records import GateResult, Selection

__all__ = ["DataFresh", "DataValidated", "NoPersonalData"]


@dataclass(frozen=True, kw_only=True)
class DataValidated(EvidenceGate):
    """The content of every partition that the model was trained on has passed a validation.

    Proved by digests: of the partition itself, or of what it was published or computed from, however many
    steps ago. A report about other content does not count, nor one that a newer report of the same suite
    about the same content contradicts.

    :param suite: only validations by this suite count; None: any.
    :param allow_warning: what failed only checks below critical severity counts as validated.
    """

    kind: ClassVar[str] = "data_validated"

    suite: str | None = None
    allow_warning: bool = False

    def check(self, case: Case) -> GateResult:
        training = case.model.training
        if training is None or not training.partitions:
            return self.no_data("the rows it was trained on are unknown", 0.0)
        coverage = Coverage(case.lake, suite=self.suite, allow_warning=self.allow_warning)
        bare = coverage.uncovered(training.dataset, training.partitions)
        case.consult(*coverage.used)
        count, of = len(bare), len(set(training.partitions))
        if not count:
            return self.passed(0.0, 0.0, f"all {of} partitions of {training.dataset} passed a validation")
        first, why = next(iter(bare.items()))
        message = f"{count} of {of} partitions of {training.dataset} did not, first {first}: {why}"
        if any(coverage.contradicted(reason) for reason in bare.values()):
            return self.failed(float(count), 0.0, message)
        return self.no_data(message, 0.0, float(count))


@dataclass(frozen=True, kw_only=True)
class DataFresh(EvidenceGate):
    """The newest rows that the model was trained on are at most ``maximum_days`` old when promotion is asked.

    :param by: ``partition``: since the beginning of the day, hour or month that the newest training partition
        is called after (rows held out for the evaluation are newer and do not count); ``commit``: since the
        training version was committed, for tables whose partitions are no times.
    """

    kind: ClassVar[str] = "data_fresh"

    maximum_days: float
    by: Literal["partition", "commit"] = "partition"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_days(self.kind, self.maximum_days)

    def check(self, case: Case) -> GateResult:
        training = case.model.training
        newest = None if training is None else self._newest(training, case)
        if newest is None:
            what = "the rows it was trained on" if training is None else "the time of its training partitions"
            return self.no_data(
                f"{what} is unknown" if training else f"{what} are unknown", self.maximum_days
            )
        age = (case.as_of - newest) / timedelta(days=1)
        if age < -1:
            return self.failed(age, self.maximum_days, f"the newest training rows are {-age:.1f} days ahead")
        said = f"the newest training rows are {max(age, 0.0):.1f} days old"
        if age > self.maximum_days:
            return self.failed(age, self.maximum_days, f"{said}, older than {self.maximum_days:g}")
        return self.passed(max(age, 0.0), self.maximum_days, said)

    def _newest(self, training: Selection, case: Case) -> datetime | None:
        if self.by == "commit":
            record = version_record(case.lake, training.dataset)
            case.consult(record)
            return record.recorded_at
        times = [partition_time(name) for name in training.partitions]
        known = [time for time in times if time is not None]
        # One partition whose name is no time could be the newest or the oldest: nothing is known then.
        return max(known) if known and len(known) == len(times) else None


@dataclass(frozen=True, kw_only=True)
class NoPersonalData(EvidenceGate):
    """No feature of the model looks like personal data, but those that are approved by name.

    Every value of the features is looked at, in the partitions that the model was trained on.

    :param approved: columns that may hold personal data.

    What it does not do: see :mod:`airflow_provider_xops.quality.personal_data`. It does not know that a
    feature was computed from personal data.
    """

    kind: ClassVar[str] = "no_personal_data"

    approved: tuple[str, ...] = ()

    def check(self, case: Case) -> GateResult:
        training = case.model.training
        if training is None or not case.model.features:
            return self.no_data("the rows or features it was trained on are unknown", 0.0)
        if case.actor is None:
            raise ArgumentError(
                "the search for personal data is recorded, and nobody is named who asks for it",
                code="argument.actor", todo="ask the gate through check_gates, with an actor",
            )  # fmt: skip
        report = search_personal_data(
            case.lake,
            training.dataset,
            columns=case.model.features,
            partitions=training.partitions,
            actor=case.actor,
            as_of=case.as_of,
        )
        case.consult(report)
        if not report.rows:
            return self.no_data("there are no training rows to search", 0.0)
        found: dict[str, str] = {}
        for each in report.columns:
            if each.column is not None and each.column not in self.approved:
                found.setdefault(each.column, each.check.removeprefix("personal:"))
        if found:
            named = ", ".join(f"{column} ({kind})" for column, kind in sorted(found.items()))
            return self.failed(float(len(found)), 0.0, f"features that look like personal data: {named}")
        approved = len({each.column for each in report.columns})
        return self.passed(
            0.0, 0.0, f"{len(report.searched)} features, {report.rows} rows"
            + (f", {approved} approved" if approved else ""),
        )  # fmt: skip
