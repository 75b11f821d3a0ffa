"""Gates about what was done with a model after its training: exercised, trained again, approved by people.

They read the lake's records of the very version, and only those of the very files that were registered; the
newest counts. They are asked when promotion is decided, because that evidence is made after the evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal

from airflow_provider_xops.evaluation.gates.base import Case, Gate, is_number, refused
from airflow_provider_xops.records import (
    ActorKind,
    Approval,
    GateResult,
    Outcome,
    Reproduction,
    Severity,
    SmokeTest,
)
from airflow_provider_xops.registry.approvals import same_person, standing_of

__all__ = ["Approved", "LatencyBudget", "Reproducible", "SizeBudget", "SmokeTested"]

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class EvidenceGate(Gate):
    """A gate about records that are made after the evaluation."""

    needs_evidence: ClassVar[bool] = True

    def said_by(self, outcome: Outcome, observed: Any, threshold: float | None, message: str) -> GateResult:
        """The answer that a record's own outcome gives where it did not pass."""
        figure = observed if is_number(observed) else None
        if outcome is Outcome.FAILED:
            return self.failed(figure, threshold, message)
        return GateResult(
            gate=self.name,
            outcome=Outcome.ERRORED if outcome is Outcome.ERRORED else Outcome.NO_DATA,
            observed=figure, threshold=threshold, message=message,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SmokeTested(EvidenceGate):
    """The newest smoke test of these files passed: loaded in a fresh process and asked through a server.

    :param environment: ``current`` or ``recorded``; None: the newest of each environment that was tried, and
        all of them must have passed.
    :param within_days: how old it may be; None: any age.
    """

    kind: ClassVar[str] = "smoke_tested"

    environment: Literal["current", "recorded"] | None = None
    within_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_days(self.kind, self.within_days)

    def check(self, case: Case) -> GateResult:
        newest: dict[str, SmokeTest] = {}
        for test in smoke_tests(case):
            if self.environment in (None, test.environment):
                newest.setdefault(test.environment, test)
        if not newest:
            where = f" in the {self.environment} environment" if self.environment else ""
            return self.no_data(f"these files were not smoke-tested{where}")
        case.consult(*newest.values())
        answers = [self._answer_to(test, case) for test in newest.values()]
        return min(answers, key=lambda each: _WORST_FIRST.index(each.outcome))

    def _answer_to(self, test: SmokeTest, case: Case) -> GateResult:
        where = f"in the {test.environment} environment"
        if test.outcome is not Outcome.PASSED:
            said = f"the smoke test {where} {test.outcome.value}" + (
                f": {test.message}" if test.message else ""
            )
            return self.said_by(test.outcome, None, None, said)
        passed = [check for check in test.checks if check.outcome is Outcome.PASSED]
        bad = [
            check.check
            for check in test.checks
            if check.outcome in (Outcome.FAILED, Outcome.ERRORED) and check.severity is Severity.CRITICAL
        ]
        if bad:
            return self.failed(float(len(bad)), 0.0, f"{', '.join(bad)} did not pass {where}")
        if not passed:
            return self.no_data(f"the smoke test {where} checked nothing")
        old = too_old(self, test, case, self.within_days, "the smoke test")
        if old is not None:
            return old
        return self.passed(
            float(len(passed)), None, f"{len(passed)} checks passed {where}, {test.requests} requests"
        )


@dataclass(frozen=True, kw_only=True)
class LatencyBudget(EvidenceGate):
    """The model answers a request within ``maximum_ms``, in the newest smoke test of these files.

    :param percentile: of the requests: 50, 95 or 99. :param rows: of a request with so many rows; None: of
        the smoke test's usual ones.
    """

    kind: ClassVar[str] = "latency_budget"

    maximum_ms: float
    percentile: Literal[50, 95, 99] = 95
    rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum_ms <= 0:
            raise refused(f"gate {self.kind} can never pass", "give maximum_ms above 0, in milliseconds")

    @property
    def figure(self) -> str:
        """The name of the smoke test's figure."""
        return f"latency_p{self.percentile}_ms" + (f"_{self.rows}_rows" if self.rows is not None else "")

    def check(self, case: Case) -> GateResult:
        return _budget(self, case, self.figure, self.maximum_ms, "ms")


@dataclass(frozen=True, kw_only=True)
class SizeBudget(EvidenceGate):
    """The model's files are at most ``maximum_mib`` together (1 MiB is 1,048,576 bytes)."""

    kind: ClassVar[str] = "size_budget"

    maximum_mib: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum_mib <= 0:
            raise refused(f"gate {self.kind} can never pass", "give maximum_mib above 0")

    def check(self, case: Case) -> GateResult:
        size = case.model.size_bytes
        if size is None or size <= 0:
            return _budget(self, case, "size_mib", self.maximum_mib, "MiB")
        return _within(self, size / MIB, self.maximum_mib, "MiB")


@dataclass(frozen=True, kw_only=True)
class Reproducible(EvidenceGate):
    """Trained again from its record the model predicts the same (``xops reproduce``), and recently so.

    :param within_days: how old the newest reproduction may be; None: any age.
    :param tolerance: the largest difference of a prediction, as the reproduction measures it. The policy says
        it: whoever runs a reproduction may ask for any, and it must have passed by its own as well.
    """

    kind: ClassVar[str] = "reproducible"

    within_days: float | None = None
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_days(self.kind, self.within_days)
        if self.tolerance < 0:
            raise refused(f"gate {self.kind} can never pass", "give a tolerance of 0 or more")

    def check(self, case: Case) -> GateResult:
        found = [
            each for each in case.records(Reproduction) if each.artifact_digest == case.model.artifact_digest
        ]
        if not found:
            return self.no_data("it was not trained again from its record", self.tolerance)
        newest = found[0]
        case.consult(newest)
        limit = self.tolerance
        if newest.outcome is not Outcome.PASSED:
            said = f"the reproduction {newest.outcome.value}" + (
                f": {newest.message}" if newest.message else ""
            )
            return self.said_by(newest.outcome, newest.max_difference, limit, said)
        apart = newest.max_difference
        if apart is None or not is_number(apart) or newest.rows < 1:
            return self.no_data("the reproduction compared no predictions", limit)
        if apart > limit:
            return self.failed(apart, limit, f"predictions differ by up to {apart:.3g}, more than {limit:g}")
        if newest.labels_changed:
            changed = newest.labels_changed
            return self.failed(apart, limit, f"{changed} of {newest.rows} predicted classes are others")
        old = too_old(self, newest, case, self.within_days, "the reproduction")
        if old is not None:
            return old
        return self.passed(apart, limit, f"predictions of {newest.rows} rows differ by at most {apart:.3g}")


@dataclass(frozen=True, kw_only=True)
class Approved(EvidenceGate):
    """People have approved this version, and nobody refuses it.

    :param people: how many different ones. :param roles: functions that one of them each must speak in; a
        person speaks in the role of their last word.
    :param trainer_counts: whether the word of whoever trained the model counts.

    What it does not do: it does not know who started the run that trained a model, only who the record names.
    """

    kind: ClassVar[str] = "approved"

    people: int = 1
    roles: tuple[str, ...] = ()
    trainer_counts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.people < 1:
            raise refused(f"gate {self.kind} asks nobody", "give people of 1 or more")

    def check(self, case: Case) -> GateResult:
        standing = standing_of(case.records(Approval), as_of=case.as_of)
        needed = float(max(self.people, len(set(self.roles))))
        case.consult(*standing.refusals)
        if standing.refusals:
            who = ", ".join(word.person for word in standing.refusals)
            return self.failed(0.0, needed, f"refused by {who}")
        words = [word for word in standing.approvals if self.trainer_counts or not _trained(word, case)]
        case.consult(*words)
        count = float(len(words))
        missing = [role for role in self.roles if not any(_same(word.role, role) for word in words)]
        if missing:
            return self.no_data(f"nobody approved as {', '.join(missing)}", needed, count)
        if count < needed:
            return self.no_data(f"approved by {len(words)} of {needed:g} people", needed, count)
        return self.passed(count, needed, f"approved by {', '.join(word.person for word in words)}")


def smoke_tests(case: Case) -> Sequence[SmokeTest]:
    """The smoke tests of the files that were registered, newest first."""
    digest = case.model.artifact_digest
    return [test for test in case.records(SmokeTest) if test.artifact_digest == digest]


def check_days(kind: str, days: float | None) -> None:
    """
    :raises ArgumentError: ``argument.gate``: no age can be below it.
    """
    if days is not None and days <= 0:
        raise refused(f"gate {kind} can never pass", "give a number of days above 0")


def too_old(
    gate: Gate, record: SmokeTest | Reproduction, case: Case, within_days: float | None, what: str
) -> GateResult | None:
    """The answer where a record is older than a gate allows; None where it is not."""
    age = (case.as_of - record.recorded_at) / timedelta(days=1)
    if within_days is None or age <= within_days:
        return None
    return gate.failed(age, within_days, f"{what} is {age:.1f} days old, older than {within_days:g}")


_WORST_FIRST = (Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA, Outcome.PASSED)


def _budget(gate: EvidenceGate, case: Case, figure: str, maximum: float, unit: str) -> GateResult:
    tests = smoke_tests(case)
    if not tests:
        return gate.no_data("these files were not smoke-tested", maximum)
    newest = tests[0]
    case.consult(newest)
    value = newest.figures.get(figure)
    if value is None or not is_number(value) or value < 0:
        return gate.no_data(f"the newest smoke test has no {figure}", maximum)
    return _within(gate, value, maximum, unit)


def _within(gate: Gate, value: float, maximum: float, unit: str) -> GateResult:
    if value > maximum:
        return gate.failed(value, maximum, f"{value:.4g} {unit} is above {maximum:g} {unit}")
    return gate.passed(value, maximum, f"{value:.4g} {unit}")


def _trained(word: Approval, case: Case) -> bool:
    producer = case.model.produced_by
    return producer.kind is not ActorKind.TASK and same_person(word.person, producer.id)


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
