"""A small chain made of real commits and records: two days of flights, a model, a scored day.

For the tests of lineage. What other rooms write (reports, models, scoring runs, ledger entries) is written
here as records; the tables are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    ActorKind,
    DatasetRef,
    DatasetVersion,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Producer,
    PromotionDecision,
    PromotionOutcome,
    ScoringRun,
    Selection,
    SourceFile,
    ValidationReport,
    digest_of,
)

START = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def source_of(day: str) -> SourceFile:
    """The file a day came from."""
    return SourceFile(
        uri=f"s3://drop/flights/{day}.csv",
        name=f"{day}.csv",
        sha256=digest_of(["bytes", day]),
        size_bytes=1234,
    )


@dataclass
class Chain:
    """Writes one link after another; time goes on a minute with each."""

    lake: Lake
    minute: int = 0
    decisions: list[PromotionDecision] = field(default_factory=list)

    def now(self) -> datetime:
        """The next minute."""
        self.minute += 1
        return START + timedelta(minutes=self.minute)

    def actor(self, task: str) -> Actor:
        """A task attempt of the flow."""
        producer = Producer(
            kind=ActorKind.TASK,
            id=f"flights.{task}",
            dag_id="flights",
            run_id=f"manual__{self.minute}",
            task_id=task,
            map_index=-1,
            try_number=1,
        )
        return Actor(producer=producer, idempotency_key=f"{task}-{self.minute}", fence=self.minute + 1)

    def day(self, day: str, *, rows: int = 3, report: bool = True) -> DatasetVersion:
        """Ingest, validate and publish one day; gives the published version."""
        raw = self.ingest(day, rows=rows)
        checked = self.validate(raw, day)
        if report:
            self.lake.evidence.put(checked)
        return self.commit(
            "flights",
            day,
            rows=rows,
            task="publish",
            fingerprint=raw.digest,
            parents=[raw.ref],
            parent_records=[checked.record_id],
        )

    def ingest(self, day: str, *, rows: int = 3) -> DatasetVersion:
        """One day's file into the raw table."""
        return self.commit("flights__raw", day, rows=rows, task="ingest", sources=(source_of(day),))

    def commit(
        self,
        table: str,
        day: str,
        *,
        rows: int = 3,
        task: str,
        fingerprint: str | None = None,
        sources: tuple[SourceFile, ...] = (),
        **facts: Any,
    ) -> DatasetVersion:
        """One partition of a table."""
        data = pa.table({"flight": pa.array(range(rows), pa.int64())})
        segment = Segment(
            partition=day,
            fingerprint=fingerprint or digest_of([table, day, rows]),
            data=data.to_reader,
            sources=sources,
        )
        return commit(self.lake, table, [segment], actor=self.actor(task), as_of=self.now(), **facts).record

    def validate(self, version: DatasetVersion, day: str) -> ValidationReport:
        """A passed report (not stored) on one day of a version."""
        return ValidationReport(
            recorded_at=self.now(),
            produced_by=self.actor("validate").producer,
            dataset=version.ref,
            partitions=(day,),
            partition_digests=version.partition_digests,
            content_digest=version.partition_digests[0],
            suite="suites:flights",
            suite_digest="5" * 64,
            engine="pandas",
            outcome=Outcome.PASSED,
            severity=None,
            counts={"passed": 12, "failed": 0},
            rows=version.rows,
            report_uri=f"{self.lake.uri}/report.html",
        )

    def model(
        self,
        version: int,
        training: DatasetRef,
        partitions: Sequence[str],
        *,
        rows: int = 6,
        put: bool = True,
    ) -> ModelVersion:
        """A registered model trained on some partitions of a version."""
        selection = Selection(dataset=training, partitions=tuple(partitions), rows=rows, digest="7" * 64)
        model = ModelVersion(
            recorded_at=self.now(),
            produced_by=self.actor("train").producer,
            name="delay",
            version=version,
            created_at_ms=1_700_000_000_000 + version,
            run_id=f"run{version}",
            source_uri="runs:/x/model",
            training=selection,
            holdout=None,
            features=("carrier", "distance"),
            target="late",
            task="classification",
            estimator="sklearn.linear_model:LogisticRegression",
            code_version="git:abc123",
            params_digest="8" * 64,
            artifact_digest="9" * 64,
            metrics={"roc_auc": 0.71},
        )
        if put:
            self.lake.evidence.put(model)
        return model

    def promote(self, model: ModelVersion, *, before: int | None = None) -> PromotionDecision:
        """An evaluation that passed its gate, the decision resting on it, and its applied entry."""
        assert model.training is not None
        evaluation = Evaluation(
            recorded_at=self.now(),
            produced_by=self.actor("evaluate").producer,
            model=model.ref,
            champion=None,
            selection=model.training,
            gates_digest="a" * 64,
            metrics={"roc_auc": 0.71},
            champion_metrics={},
            comparisons=(),
            gates=(
                GateResult(
                    gate="roc_auc at least 0.65", outcome=Outcome.PASSED, observed=0.71, threshold=0.65
                ),
            ),
        )
        self.lake.evidence.put(evaluation)
        decided = self._entry(model, PromotionOutcome.PROMOTED, before, (evaluation.record_id,), None)
        self._entry(model, PromotionOutcome.APPLIED, before, (), decided.sequence)
        return decided

    def _entry(
        self,
        model: ModelVersion,
        outcome: PromotionOutcome,
        before: int | None,
        evidence: tuple[str, ...],
        decides: int | None,
    ) -> PromotionDecision:
        sequence = len(self.decisions) + 1
        entry = PromotionDecision(
            recorded_at=self.now(),
            produced_by=self.actor("promote").producer,
            model=model.name,
            alias="champion",
            sequence=sequence,
            outcome=outcome,
            reason="all 1 gates passed",
            expected=before,
            from_version=before,
            to_version=model.version,
            to_created_at_ms=model.created_at_ms,
            artifact_digest=model.artifact_digest,
            evidence=evidence,
            idempotency_key=f"promote-{sequence}",
            previous_hash="",
            entry_hash=f"{sequence:064x}",
            decides=decides,
        )
        self.decisions.append(entry)
        return entry

    def score(
        self, model: ModelVersion, dataset: DatasetVersion, day: str, *, put: bool = True
    ) -> ScoringRun:
        """One scored day: the predictions table's commit and the scoring run's record."""
        out = self.commit("predictions", day, task="score", parents=[dataset.ref], parent_partitions=[(day,)])
        run = ScoringRun(
            recorded_at=self.now(),
            produced_by=self.actor("score").producer,
            model_name=model.name,
            model_version=model.version,
            model_created_at_ms=model.created_at_ms,
            model_record=model.record_id,
            input_table_uuid=dataset.table_uuid,
            partition=day,
            input_digest=dataset.digest,
            output_table="predictions",
            dataset_in=dataset.ref,
            dataset_out=out.ref,
            rows=out.rows,
        )
        if put:
            self.lake.evidence.put(run)
        return run
