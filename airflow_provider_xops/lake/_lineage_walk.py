"""The walk behind a trace: from a subject up to the source files, and down to the predictions.

For :func:`airflow_provider_xops.lake.lineage.trace`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake._lineage_graph import (
    Graph,
    concerns,
    dataset_node,
    decision_node,
    evaluation_node,
    gates_node,
    missing_node,
    model_id,
    model_node,
    partitions_text,
    prediction_node,
    replaces,
    run_node,
    scoring_node,
    selection_note,
    short,
    source_node,
    standing_of,
    validation_node,
)
from airflow_provider_xops.lake._lineage_records import Decisions, Records
from airflow_provider_xops.lake._lineage_serving import log_row, online_prediction_node, session_node
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import (
    ACCEPTED_SUFFIX,
    QUARANTINE_SUFFIX,
    RELEASED_SUFFIX,
    WAY_SUFFIXES,
    base_name,
    resolve_ref,
)
from airflow_provider_xops.records import (
    DatasetRef,
    DatasetVersion,
    Evaluation,
    GateReport,
    ModelRef,
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
    ScoringRun,
    Selection,
    ServingSession,
    SourceFile,
    ValidationReport,
)

__all__ = ["Walk"]

_NO_RECORD = "no record of it in this lake"

# What a report did to a version, by the suffix of its table.
_PUBLISHED = ("published on the strength of", "let through")
_ON_THE_STRENGTH = {
    ACCEPTED_SUFFIX: ("rows accepted after", "had others set aside"),
    QUARANTINE_SUFFIX: ("rows set aside after", "set aside"),
    RELEASED_SUFFIX: ("rows mended after", "had set aside"),
}


class Walk:
    """One trace: every record is read once, every node expanded once."""

    def __init__(self, lake: Lake, decisions: Decisions) -> None:
        self.lake = lake
        self.graph = Graph()
        self.known = Records(lake, decisions)
        self._expanded: set[object] = set()

    def prediction(self, prediction_id: str, prefix: str, row: int) -> str:
        runs = [
            run for run in self.lake.evidence.find(ScoringRun.kind, prefix) if isinstance(run, ScoringRun)
        ]
        if not runs:
            for each in self.lake.evidence.find(ServingSession.kind, prefix):
                if isinstance(each, ServingSession):
                    return self.online_prediction(prediction_id, row, each)
        if not runs or row >= runs[0].rows:
            raise NotFoundError(
                f"there is no prediction {prediction_id} in the lake at {self.lake.uri}",
                code="not_found.prediction",
                why=f"its scoring run has {runs[0].rows} rows"
                if runs
                else "no scoring run and no serving session has that id",
                todo="check the id; if the scoring task was killed just after its commit, run it again first",
            )  # fmt: skip
        node = self.graph.add(prediction_node(prediction_id, row, runs[0]))
        self.graph.link(self.scoring_run(runs[0]), node, "made by", "made")
        return node

    def online_prediction(self, prediction_id: str, number: int, session: ServingSession) -> str:
        row = log_row(self.lake, session, prediction_id)
        node = self.graph.add(online_prediction_node(prediction_id, number, session, row))
        self.graph.link(self.session(session), node, "given by", "gave")
        return node

    def session(self, session: ServingSession) -> str:
        node = self.graph.add(session_node(session))
        if self.first_time(node):
            self.graph.link(
                self.recorded_model(session.model, session.model_record), node, "served", "served in"
            )
        return node

    def recorded_model(self, ref: ModelRef, record_id: str) -> str:
        """The node of a model by its record; one that says *missing* where the lake does not have it."""
        model = self.known.get(ModelVersion, record_id)
        if model is not None:
            return self.model(model)
        return self.graph.add(
            missing_node(
                model_id(ref.name, ref.version, ref.created_at_ms), "model", f"model {ref}",
                f"no record {short(record_id)} in this lake",
            )
        )  # fmt: skip

    def model_subject(self, name: str, version: int) -> str:
        named = [model for model in self.known.models if (model.name, model.version) == (name, version)]
        if not named:
            raise NotFoundError(
                f"there is no model version {name}/{version} in the lake at {self.lake.uri}",
                code="not_found.model",
                todo="check name and version; `xops adopt` takes a model of MLflow into the chain",
            )  # fmt: skip
        newest = max(named, key=lambda model: model.created_at_ms)  # a re-created model restarts its numbers
        node = self.model(newest)
        self.uses_of_model(newest, node)
        return node

    def dataset_subject(self, table: str, version: int) -> str:
        ref = self.named_version(table, version)
        node = self.dataset(ref, None)
        self.uses_of_dataset(ref, node)
        return node

    def named_version(self, table: str, version: int) -> DatasetRef:
        try:
            return resolve_ref(self.lake, table, version, allow_raw=True)
        except NotFoundError:  # dropped or vacuumed away: evidence outlives it
            known = [each for each in self.known.versions if (each.table, each.version) == (table, version)]
            if not known:
                raise
            return max(known, key=lambda each: each.recorded_at).ref

    def scoring_run(self, run: ScoringRun) -> str:
        node = self.graph.add(scoring_node(run))
        if self.first_time(node):
            ref = ModelRef(
                name=run.model_name, version=run.model_version, created_at_ms=run.model_created_at_ms
            )
            model_node_id = self.recorded_model(ref, run.model_record)
            self.graph.link(model_node_id, node, "scored by", "used by")
            data = self.dataset(run.dataset_in, (run.partition,))
            self.graph.link(data, node, "scored rows of", "was scored by", partitions_text([run.partition]))
        return node

    def model(self, model: ModelVersion) -> str:
        entries = self.known.entries(model.name)
        node = self.graph.add(model_node(model, standing_of(model, entries)))
        if self.first_time(node):
            self.decided(model, node, entries)
            for selection, upstream, downstream in (
                (model.training, "trained on", "trained"),
                (model.holdout, "held out for its test", "tested"),
            ):
                if selection is not None:
                    data = self.dataset(selection.dataset, selection.partitions)
                    self.graph.link(data, node, upstream, downstream, selection_note(selection))
        return node

    def decided(self, model: ModelVersion, node: str, entries: Sequence[PromotionDecision]) -> None:
        cited: set[str] = set()
        for entry in entries:
            away = replaces(entry, model)
            if entry.outcome is PromotionOutcome.APPLIED or not (away or concerns(entry, model)):
                continue
            applied = next(
                (each for each in entries if each.alias == entry.alias and each.decides == entry.sequence),
                None,
            )
            decision = self.graph.add(decision_node(entry, applied))
            relation = "replaced by" if away else "decided on by"
            self.graph.link(decision, node, relation, "decided on")
            for record_id in entry.evidence:
                cited.add(record_id)
                if record_id == model.record_id:
                    continue  # the model itself, which is told already
                self.graph.link(self.evidence_of(record_id), decision, "on the evidence of", "supported")
        for evaluation in self.known.evaluations:
            if evaluation.model == model.ref and evaluation.record_id not in cited:
                self.graph.link(
                    self.graph.add(evaluation_node(evaluation)), node, "evaluated in", "evaluated"
                )

    def evidence_of(self, record_id: str) -> str:
        evaluation = self.known.get(Evaluation, record_id)
        if evaluation is not None:
            return self.graph.add(evaluation_node(evaluation))
        gates = self.known.get(GateReport, record_id)
        if gates is not None:
            return self.graph.add(gates_node(gates))
        report = self.known.get(ValidationReport, record_id)
        if report is not None:
            return self.graph.add(validation_node(report))
        model = self.known.get(ModelVersion, record_id)
        if model is not None:
            return self.graph.add(model_node(model, standing_of(model, self.known.entries(model.name))))
        return self.graph.add(
            missing_node(f"evidence:{record_id}", "evaluation", f"record {short(record_id)}", _NO_RECORD)
        )

    def dataset(self, ref: DatasetRef, partitions: Sequence[str] | None) -> str:
        """A dataset version as somebody read it, and the commits that wrote the partitions that were read."""
        wanted = tuple(sorted(partitions)) if partitions is not None else None
        node = self.dataset_version(ref)
        if self.first_time((ref, wanted)):
            for version, held in sorted(self.known.holders(ref, wanted).items()):
                self.commit(replace(ref, version=version), held)
                if version != ref.version:
                    earlier = self.dataset_version(replace(ref, version=version))
                    self.graph.link(
                        earlier,
                        node,
                        "still holds what was written as",
                        "is still held by",
                        partitions_text(held),
                    )
        return node

    def dataset_version(self, ref: DatasetRef) -> str:
        node, record = f"dataset:{ref.table_uuid}@{ref.version}", self.known.version(ref)
        if record is not None:
            partings = self.known.partings.get(ref, ()) if ref.table.endswith(ACCEPTED_SUFFIX) else ()
            return self.graph.add(dataset_node(node, record, partings))
        return self.graph.add(missing_node(node, "dataset", f"dataset {ref}", _NO_RECORD))

    def commit(self, ref: DatasetRef, partitions: tuple[str, ...]) -> None:
        """What one commit was made from, as far as these partitions of it go."""
        record = self.known.version(ref)
        if record is None or not self.first_time(("commit", ref, partitions)):
            return
        node = self.dataset_version(ref)
        reports = self.reports(record, node)
        for number, parent in enumerate(record.parents):
            data = self.dataset(parent, self.partitions_read(record, number, partitions))
            if parent in reports:
                self.graph.link(data, reports[parent], "which checked", "was checked by")
            else:
                self.graph.link(data, node, "made from", "went into")
        if record.sources:
            run = self.graph.add(run_node(record))
            self.graph.link(run, node, "written by", "wrote")
            for source in _likely_first(record.sources, partitions):
                self.graph.link(self.graph.add(source_node(source)), run, "which read", "was read by")

    def reports(self, record: DatasetVersion, node: str) -> dict[DatasetRef, str]:
        """The reports that let a commit through, by the dataset version they are about."""
        found = {}
        for record_id in record.parent_records:
            report = self.known.get(ValidationReport, record_id)
            if report is None:
                known = self.graph.add(
                    missing_node(
                        f"validation:{record_id}", "validation", f"validation {short(record_id)}", _NO_RECORD
                    )
                )
            else:
                known = self.graph.add(validation_node(report))
                found[report.dataset] = known
            said = _ON_THE_STRENGTH.get(record.table.removeprefix(base_name(record.table)), _PUBLISHED)
            self.graph.link(known, node, *said)
        return found

    def partitions_read(
        self, record: DatasetVersion, parent: int, partitions: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """The partitions of a parent that a commit read; None: all of it, or nobody recorded it."""
        source = record.parents[parent].table
        if source.endswith(WAY_SUFFIXES) and base_name(source) == base_name(record.table):
            return partitions  # on the way to a published table a partition stays the same one
        return record.parent_partitions[parent] if parent < len(record.parent_partitions) else None

    def uses_of_dataset(self, ref: DatasetRef, node: str) -> None:
        if not self.first_time(("uses", ref)):
            return
        for child in self.known.versions:
            for number, parent in enumerate(child.parents):
                if self.reaches(ref, parent, self.partitions_read(child, number, child.partitions)):
                    made = self.dataset_version(child.ref)
                    self.graph.link(node, made, "made from", "went into", partitions_text(child.partitions))
                    self.uses_of_dataset(child.ref, made)
        for model in self.known.models:
            for selection, upstream, downstream in (
                (model.training, "trained on", "trained"),
                (model.holdout, "held out for its test", "tested"),
            ):
                if selection is not None and self.reaches(ref, selection.dataset, selection.partitions):
                    user = self.graph.add(
                        model_node(model, standing_of(model, self.known.entries(model.name)))
                    )
                    self.graph.link(node, user, upstream, downstream, _through(ref, selection))
                    self.uses_of_model(model, user)
        for run in self.known.scoring_runs:
            if self.reaches(ref, run.dataset_in, (run.partition,)):
                user = self.graph.add(scoring_node(run))
                self.graph.link(
                    node, user, "scored rows of", "was scored by", partitions_text([run.partition])
                )
                self.predictions_of(run, user)

    def uses_of_model(self, model: ModelVersion, node: str) -> None:
        if not self.first_time(("uses", node)):
            return
        for run in self.known.scoring_runs:
            if (run.model_name, run.model_version, run.model_created_at_ms) == (
                model.name, model.version, model.created_at_ms,
            ):  # fmt: skip
                user = self.graph.add(scoring_node(run))
                self.graph.link(node, user, "scored by", "used by")
                self.predictions_of(run, user)
        for session in self.known.sessions:
            if session.model_record == model.record_id:
                self.graph.link(node, self.graph.add(session_node(session)), "served", "served in")

    def predictions_of(self, run: ScoringRun, node: str) -> None:
        self.graph.link(
            node, self.dataset_version(run.dataset_out), "written by", "wrote", f"{run.rows:,} predictions"
        )

    def reaches(self, ref: DatasetRef, used: DatasetRef, partitions: tuple[str, ...] | None) -> bool:
        """Whether reading these partitions of ``used`` reads something that the commit ``ref`` wrote."""
        if (ref.lake_id, ref.table_uuid) != (used.lake_id, used.table_uuid) or used.version < ref.version:
            return False
        wanted = tuple(sorted(partitions)) if partitions is not None else None
        return used == ref or ref.version in self.known.holders(used, wanted)

    def first_time(self, key: object) -> bool:
        """Whether ``key`` is expanded for the first time: the walk ends on any graph."""
        first = key not in self._expanded
        self._expanded.add(key)
        return first


def _likely_first(sources: Sequence[SourceFile], partitions: Sequence[str]) -> list[SourceFile]:
    # A record of many partitions does not say which file went into which; names often do.
    return sorted(
        sources, key=lambda source: (not any(name in source.uri for name in partitions), source.uri)
    )


def _through(ref: DatasetRef, selection: Selection) -> str:
    through = "" if selection.dataset == ref else f"through {selection.dataset}, which still holds it: "
    return through + selection_note(selection)
