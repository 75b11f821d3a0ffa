"""The graph that a trace is: nodes, edges, and the sentences on them.

For :mod:`airflow_provider_xops.lake.lineage`, which walks the records, and its text rendering.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_xops.records import (
    ActorKind,
    DatasetVersion,
    Evaluation,
    GateReport,
    ModelVersion,
    Producer,
    PromotionDecision,
    PromotionOutcome,
    QuarantineReport,
    Record,
    ScoringRun,
    Selection,
    SourceFile,
    ValidationReport,
)

__all__ = ["Edge", "Graph", "Node", "Trace"]

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Node:
    """One thing in the chain.

    :param kind: prediction, scoring_run, session, model, dataset, validation, run, source, decision,
        evaluation or gates.
    :param missing: why nothing is known about it ("" if its record was found).
    :param record: the whole record behind it, as JSON.
    """

    id: str
    kind: str
    title: str
    facts: Facts = ()
    missing: str = ""
    record: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The node as plain JSON."""
        return {
            "id": self.id, "kind": self.kind, "title": self.title, "missing": self.missing,
            "facts": [list(fact) for fact in self.facts], "record": self.record,
        }  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """``target`` was made from, or judged by, ``source``.

    :param upstream: how the source reads below its target ("trained on").
    :param downstream: how the target reads below its source ("trained").
    :param note: which rows or partitions.
    """

    source: str
    target: str
    upstream: str
    downstream: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The edge as plain JSON."""
        return {
            "source": self.source, "target": self.target, "upstream": self.upstream,
            "downstream": self.downstream, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Everything that led to a subject, and everything that was made from it."""

    subject: str
    root: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]

    def sources_of(self, node_id: str) -> list[tuple[Edge, Node]]:
        """What the node was made from, in the order it was found."""
        return [(edge, self.nodes[edge.source]) for edge in self.edges if edge.target == node_id]

    def products_of(self, node_id: str) -> list[tuple[Edge, Node]]:
        """What was made from the node, in the order it was found."""
        return [(edge, self.nodes[edge.target]) for edge in self.edges if edge.source == node_id]

    def of_kind(self, kind: str) -> list[Node]:
        """The nodes of one kind, in the order they were found."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def to_json(self) -> dict[str, Any]:
        """The whole graph as plain JSON, records included."""
        return {
            "subject": self.subject, "root": self.root,
            "nodes": [node.to_json() for node in self.nodes.values()],
            "edges": [edge.to_json() for edge in self.edges],
        }  # fmt: skip


class Graph:
    """A trace while it is being walked."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str, str], Edge] = {}

    def add(self, node: Node) -> str:
        """Add a node; the first one of an id stays, unless it was missing. Gives the id."""
        known = self.nodes.get(node.id)
        if known is None or (known.missing and not node.missing):
            self.nodes[node.id] = node
        return node.id

    def link(self, source: str, target: str, upstream: str, downstream: str, note: str = "") -> None:
        """Add an edge between two nodes that were added."""
        edge = Edge(source, target, upstream, downstream, note)
        self.edges.setdefault((source, target, upstream), edge)

    def trace(self, subject: str, root: str) -> Trace:
        """The finished trace."""
        return Trace(subject, root, dict(self.nodes), tuple(self.edges.values()))


def missing_node(node_id: str, kind: str, title: str, why: str) -> Node:
    """A link of the chain whose record is not there."""
    return Node(node_id, kind, title, missing=why)


def prediction_node(prediction_id: str, row: int, run: ScoringRun) -> Node:
    """One row of a predictions table."""
    facts = (
        ("row", f"{row:,} of {run.rows:,} (counted from 0) of partition {run.partition}"),
        ("stored in", str(run.dataset_out)),
    )
    return Node(f"prediction:{prediction_id}", "prediction", f"prediction {prediction_id}", facts)


def scoring_node(run: ScoringRun) -> Node:
    """One partition scored by one model version."""
    facts = (
        ("scored", f"{run.rows:,} rows of partition {run.partition}"),
        *written(run),
        ("input sha256", run.input_digest),
    )
    return Node(
        f"scoring_run:{run.record_id}",
        "scoring_run",
        f"scoring run {short(run.record_id)}",
        facts,
        record=run.to_json(),
    )


def model_node(model: ModelVersion, standing: Iterable[str]) -> Node:
    """A model version, with what the ledger says of it."""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(model.metrics.items()))
    facts = (
        *(("standing", text) for text in standing),
        ("estimator", f"{model.estimator}, {len(model.features)} features, target {model.target or 'none'}"),
        ("metrics", metrics or "none recorded"),
        *written(model, "registered"),
        ("MLflow run", model.run_id or "none"),
        ("code", model.code_version),
        ("artifact sha256", model.artifact_digest),
    )
    origin = "" if model.origin == "trained" else f" ({model.origin})"
    return Node(model_id(model.name, model.version, model.created_at_ms), "model",
                f"model {model.name} v{model.version}{origin}", facts, record=model.to_json())  # fmt: skip


def model_id(name: str, version: int, created_at_ms: int) -> str:
    """The node id of a model version; a re-created model of the same number is another node."""
    return f"model:{name}/{version}@{created_at_ms}"


def dataset_node(node_id: str, record: DatasetVersion, partings: Iterable[QuarantineReport] = ()) -> Node:
    """One version of one table.

    :param partings: of an accepted version: what was set aside or brought back when it was made.
    """
    facts = (
        (
            "holds",
            f"{record.total_rows:,} rows; this commit wrote {record.rows:,} of them,"
            f" {partitions_text(record.partitions)}",
        ),
        *written(record),
        *((("note", record.note),) if record.note else ()),
        *(fact for parting in partings for fact in _parting_facts(parting)),
        ("digest", record.digest),
    )
    return Node(node_id, "dataset", f"dataset {record.ref}", facts, record=record.to_json())


def _parting_facts(report: QuarantineReport) -> Iterable[tuple[str, str]]:
    aside = f"{report.quarantined_rows:,} of {report.rows:,} rows of {report.raw}, in {report.quarantine}"
    yield "set aside", aside
    if report.action == "released":
        yield "released", f"{report.released_rows:,} mended rows"
    if report.report_uri:
        yield "page", report.report_uri


def validation_node(report: ValidationReport) -> Node:
    """A suite's verdict on a dataset version."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items()) if count)
    worst = [check for check in report.checks if check.outcome.value in ("failed", "errored")]
    facts = (
        ("outcome", f"{report.outcome.value} ({counts or 'no checks'}) over {report.rows:,} rows"),
        *(
            ("check", f"{check.check} on {check.column or 'the table'}: {check.outcome.value}")
            for check in worst[:5]
        ),
        *written(report, "validated"),
        *((("report", report.report_uri),) if report.report_uri else ()),
    )
    return Node(f"validation:{report.record_id}", "validation",
                f"validation {short(report.record_id)}, suite {report.suite}", facts,
                record=report.to_json())  # fmt: skip


def run_node(record: DatasetVersion) -> Node:
    """The run that read source files into a raw table."""
    facts = (("by", producer_text(record.produced_by)), ("at", moment_text(record.recorded_at)))
    return Node(f"run:{record.record_id}", "run", f"ingest of {record.ref}", facts)


def source_node(source: SourceFile) -> Node:
    """A source file as it was when it was read."""
    facts = (("uri", source.uri), ("size", f"{source.size_bytes:,} bytes"), ("sha256", source.sha256))
    return Node(f"source:{source.sha256}:{source.uri}", "source", f"source file {source.name}", facts)


def decision_node(decision: PromotionDecision, applied: PromotionDecision | None) -> Node:
    """A ledger entry: who decided what, when and why."""
    to = "nothing" if decision.to_version is None else f"v{decision.to_version}"
    step = f"v{decision.from_version} -> {to}" if decision.from_version else f"to {to}"
    verb = decision.outcome.value.replace("_", " ")
    facts = [("decided", moment_text(decision.recorded_at)), ("by", producer_text(decision.produced_by))]
    facts.append(("reason", decision.reason or "none given"))
    if decision.approved_by:
        facts.append(("approved by", ", ".join(decision.approved_by)))
    if decision.outcome in MOVES:
        facts.append(
            (
                "alias set",
                moment_text(applied.recorded_at) if applied else "not recorded: run `xops reconcile`",
            )
        )
    return Node(f"decision:{decision.record_id}", "decision",
                f"decision {decision.sequence} on {decision.alias}: {verb} ({step})", tuple(facts),
                record=decision.to_json())  # fmt: skip


def evaluation_node(evaluation: Evaluation) -> Node:
    """Challenger against champion on the same rows."""
    rival = f"against v{evaluation.champion.version}" if evaluation.champion else "without a champion"
    facts = tuple(
        ("gate", f"{gate.outcome.value}: {gate.gate}" + (f" ({gate.message})" if gate.message else ""))
        for gate in evaluation.gates
    )
    compared = tuple(
        ("metric", f"{each.metric} {figure(each.challenger)}, champion {figure(each.champion)}")
        for each in evaluation.comparisons
    )
    return Node(f"evaluation:{evaluation.record_id}", "evaluation",
                f"evaluation {short(evaluation.record_id)}: v{evaluation.model.version} {rival}",
                (*facts, *compared, *written(evaluation, "evaluated")),
                record=evaluation.to_json())  # fmt: skip


def gates_node(report: GateReport) -> Node:
    """A policy's answers about a model version."""
    facts = tuple(
        ("gate", f"{gate.outcome.value}: {gate.gate}" + (f" ({gate.message})" if gate.message else ""))
        for gate in report.results
    )
    return Node(f"gates:{report.record_id}", "gates",
                f"gates of {report.policy} {short(report.record_id)}: v{report.model.version}"
                f" {report.outcome.value}",
                (*facts, *written(report, "asked")), record=report.to_json())  # fmt: skip


MOVES = (
    PromotionOutcome.PROMOTED,
    PromotionOutcome.ROLLED_BACK,
    PromotionOutcome.NOMINATED,
    PromotionOutcome.RETIRED,
)


def standing_of(model: ModelVersion, decisions: Iterable[PromotionDecision]) -> list[str]:
    """What the ledger says a model version is, one sentence an alias."""
    texts = []
    entries = sorted(decisions, key=lambda entry: entry.sequence)
    for alias in sorted({entry.alias for entry in entries}):
        moves = [entry for entry in entries if entry.alias == alias and entry.outcome in MOVES]
        for number, move in enumerate(moves):
            if not concerns(move, model):
                continue
            after = moves[number + 1] if number + 1 < len(moves) else None
            until = (
                f"until {moment_text(after.recorded_at)}"
                f" (then {'nothing' if after.to_version is None else f'v{after.to_version}'})"
                if after
                else "and still is"
            )
            texts.append(f"{alias} since {moment_text(move.recorded_at)} {until}")
    return texts


def concerns(decision: PromotionDecision, model: ModelVersion) -> bool:
    """Whether a ledger entry is about moving an alias to this model version, not to a re-created namesake."""
    same = decision.model == model.name and decision.to_version == model.version
    return same and decision.to_created_at_ms in (None, model.created_at_ms)


def replaces(decision: PromotionDecision, model: ModelVersion) -> bool:
    """Whether a ledger entry moved an alias away from this model version."""
    away = decision.outcome in MOVES and decision.from_version == model.version != decision.to_version
    # The entry does not say which namesake it was; one that was made later cannot be it.
    return away and decision.model == model.name and decision.recorded_at >= model.recorded_at


def selection_note(selection: Selection) -> str:
    """Which rows of a version, and on a second line the digest of exactly those."""
    rows = f"{selection.rows:,} rows of {partitions_text(selection.partitions)}"
    return f"{rows}\nsha256 of these rows {selection.digest}"


def partitions_text(partitions: Iterable[str] | None) -> str:
    """Partitions in a few words."""
    names = sorted(partitions or ())
    if not names or names == ["all"]:
        return "the whole table"
    if len(names) <= 3:
        return f"partition{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return f"{len(names)} partitions {names[0]} to {names[-1]}"


def written(record: Record, verb: str = "written") -> tuple[tuple[str, str], ...]:
    """When and by whom a record was written."""
    return ((verb, f"{moment_text(record.recorded_at)} by {producer_text(record.produced_by)}"),)


def producer_text(producer: Producer) -> str:
    """A task attempt or a person, as a log reader names them."""
    if producer.kind is ActorKind.TASK and producer.dag_id:
        mapped = (
            f"[{producer.map_index}]" if producer.map_index is not None and producer.map_index >= 0 else ""
        )
        tries = f", try {producer.try_number}" if producer.try_number else ""
        return f"{producer.dag_id}.{producer.task_id}{mapped} (run {producer.run_id}{tries})"
    return f"{producer.kind.value} {producer.id}"


def moment_text(moment: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def figure(value: float | None) -> str:
    """A metric, or that there is none."""
    return "none" if value is None else f"{value:.4g}"


def short(identifier: str) -> str:
    """Enough of an id to find it again."""
    return identifier[:12]
