"""What the lake knows about one model version: the records that its card is made from.

Private to :mod:`~airflow_provider_xops.evaluation.card`. It reads; it writes and measures nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.evaluation.gates.coverage import Coverage
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Approval,
    Evaluation,
    GateReport,
    ModelVersion,
    PerformanceReport,
    PersonalDataReport,
    PromotionDecision,
    PromotionOutcome,
    Record,
    Reproduction,
    ScoringRun,
    SmokeTest,
    TuningStudy,
    ValidationReport,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approvals import Standing, standing_of, words_on

__all__ = ["CardFacts", "gather"]

R = TypeVar("R", bound=Record)

EARLIER = 10  # evaluations beside the newest that a card names
_MOVES = (PromotionOutcome.PROMOTED, PromotionOutcome.ROLLED_BACK, PromotionOutcome.RETIRED)


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The records of one version, the newest first, and what follows from them.

    :param evaluations: of this version; the first is what the card tells of.
    :param smoke_tests: the newest of each environment; ``gate_reports`` of each policy.
    :param words: everything people said, ``standing`` what of it counts now.
    :param decisions: the ledger's entries about this version, oldest first; ``aliases`` what it is now, and
        since when.
    :param validations: that the training rows' content rests on; ``not_validated`` the partitions without
        one, and why.
    """

    model: ModelVersion
    evaluations: tuple[Evaluation, ...] = ()
    smoke_tests: tuple[SmokeTest, ...] = ()
    reproductions: tuple[Reproduction, ...] = ()
    gate_reports: tuple[GateReport, ...] = ()
    words: tuple[Approval, ...] = ()
    standing: Standing = field(default_factory=lambda: Standing(approvals=(), refusals=()))
    decisions: tuple[PromotionDecision, ...] = ()
    aliases: dict[str, datetime] = field(default_factory=dict)
    validations: tuple[ValidationReport, ...] = ()
    not_validated: dict[str, str] = field(default_factory=dict)
    personal_data: PersonalDataReport | None = None
    tuning: TuningStudy | None = None
    scoring_runs: tuple[ScoringRun, ...] = ()
    performance: tuple[PerformanceReport, ...] = ()

    @property
    def evaluation(self) -> Evaluation | None:
        """The newest evaluation."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def earlier(self) -> tuple[Evaluation, ...]:
        """The evaluations before the newest that the card names."""
        return self.evaluations[1 : 1 + EARLIER]

    @property
    def records(self) -> list[Record]:
        """Every record that the card tells of, each once."""
        single = (self.evaluation, self.personal_data, self.tuning)
        found: list[Record] = [self.model, *(one for one in single if one is not None)]
        several: tuple[Iterable[Record], ...] = (
            self.smoke_tests, self.reproductions[:1], self.gate_reports, self.words, self.decisions,
            self.validations, self.earlier, self.scoring_runs[:1], self.performance[:1],
        )  # fmt: skip
        every = [*found, *(one for group in several for one in group)]
        return list({one.record_id: one for one in every}.values())


def gather(lake: Lake, model: ModelVersion, *, as_of: datetime) -> CardFacts:
    """Everything that the lake knows about a version at ``as_of``.

    :raises UnavailableError: the storage did not answer; trying again is safe.
    """
    words = words_on(lake, model)
    entries = ledger.entries(lake, model.name)
    coverage = Coverage(lake)
    training = model.training
    bare = coverage.uncovered(training.dataset, training.partitions) if training else {}
    runs = [one for one in _all(lake, ScoringRun) if one.model_record == model.record_id]
    return CardFacts(
        model=model,
        evaluations=tuple(one for one in _all(lake, Evaluation) if one.model == model.ref),
        smoke_tests=_newest_of(_mine(lake, SmokeTest, model), lambda one: one.environment),
        reproductions=tuple(_mine(lake, Reproduction, model)),
        gate_reports=_newest_of(
            (one for one in _all(lake, GateReport) if one.model == model.ref), lambda one: one.policy
        ),
        words=tuple(words),
        standing=standing_of(words, as_of=as_of),
        decisions=tuple(
            one for one in entries if _is_about(one, model) and one.outcome is not PromotionOutcome.APPLIED
        ),
        aliases=_aliases(entries, model),
        validations=tuple(_by_age(coverage.used)),
        not_validated=bare,
        personal_data=_personal_data(lake, model),
        tuning=_tuning(lake, model),
        scoring_runs=tuple(runs),
        performance=tuple(one for one in _all(lake, PerformanceReport) if one.model == model.ref),
    )


def _all(lake: Lake, kind: type[R]) -> list[R]:
    return _by_age(one for one in lake.evidence.all(kind.kind) if isinstance(one, kind))


def _mine(lake: Lake, kind: type[R], model: ModelVersion) -> list[R]:
    """Those of this very version and these very files."""
    return [
        one
        for one in _all(lake, kind)
        if getattr(one, "model", None) == model.ref
        and getattr(one, "artifact_digest", None) == model.artifact_digest
    ]


def _by_age(records: Iterable[R]) -> list[R]:
    return sorted(records, key=lambda one: (one.recorded_at, one.record_id), reverse=True)


def _newest_of(records: Iterable[R], key: Callable[[R], str]) -> tuple[R, ...]:
    newest: dict[str, R] = {}
    for one in records:
        newest.setdefault(key(one), one)
    return tuple(newest.values())


def _is_about(decision: PromotionDecision, model: ModelVersion) -> bool:
    same = decision.to_version == model.version
    return same and decision.to_created_at_ms in (None, model.created_at_ms)


def _aliases(entries: Iterable[PromotionDecision], model: ModelVersion) -> dict[str, datetime]:
    """The aliases that the ledger gives this version now, and since when."""
    last: dict[str, PromotionDecision] = {}
    for one in sorted(entries, key=lambda one: one.sequence):
        if one.outcome in _MOVES:
            last[one.alias] = one
    return {alias: one.recorded_at for alias, one in sorted(last.items()) if _is_about(one, model)}


def _personal_data(lake: Lake, model: ModelVersion) -> PersonalDataReport | None:
    """The newest search through the training data that covers every feature."""
    training = model.training
    if training is None:
        return None
    wanted = set(model.features)
    return next(
        (
            one
            for one in _all(lake, PersonalDataReport)
            if one.dataset == training.dataset
            and wanted <= set(one.searched)
            and (one.partitions is None or set(training.partitions) <= set(one.partitions))
        ),
        None,
    )


def _tuning(lake: Lake, model: ModelVersion) -> TuningStudy | None:
    if model.tuning is None:
        return None
    with contextlib.suppress(NotFoundError):
        found = lake.evidence.get(TuningStudy.kind, model.tuning)
        return found if isinstance(found, TuningStudy) else None
    return None
