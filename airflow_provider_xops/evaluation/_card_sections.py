"""The sections of a model card, from the records of the version.

Private to :mod:`~airflow_provider_xops.evaluation.card`. What is not known says so: a card is read by people
who were not there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_xops.evaluation import _report_curves as drawn
from airflow_provider_xops.evaluation import _report_more as more
from airflow_provider_xops.evaluation import _report_parts as parts
from airflow_provider_xops.evaluation._card_facts import CardFacts
from airflow_provider_xops.evaluation._document import (
    Block,
    Cell,
    Code,
    Facts,
    Items,
    Link,
    Section,
    Table,
    Text,
    word,
)
from airflow_provider_xops.evaluation._words import estimate, plain
from airflow_provider_xops.records import Outcome, Reproduction, SmokeTest

__all__ = ["CardWords", "lead_of", "outcome_of", "sections_of", "short_sections"]

NOT_WRITTEN = "Nobody has written this down."
_FIGURES = {
    "latency_p50_ms": "median latency, ms",
    "latency_p95_ms": "95th percentile of latency, ms",
    "latency_p99_ms": "99th percentile of latency, ms",
    "load_seconds": "time to load, s",
    "peak_memory_mib": "peak memory, MiB",
    "size_mib": "size, MiB",
}
_REPORTS = "/_xops/reports/"


@dataclass(frozen=True, kw_only=True)
class CardWords:
    """What people add to the records: nothing of it can be measured."""

    intended_use: str = ""
    limits: str = ""
    contacts: tuple[str, ...] = ()


def outcome_of(facts: CardFacts) -> Outcome | None:
    """The worst of the newest evaluation's gates; None where none was asked."""
    return parts.worst(facts.evaluation.gates) if facts.evaluation else None


def lead_of(facts: CardFacts) -> list[str]:
    """What a reader needs first: is it in use, how good is it, who stands for it."""
    lines = [_status(facts)]
    if facts.evaluation is None:
        lines.append("It has not been evaluated.")
    else:
        lines += parts.lead_of(facts.evaluation)
    if facts.standing.refusals:
        people = ", ".join(sorted({one.person for one in facts.standing.refusals}))
        lines.append(f"Refused by {people}: it must not be promoted.")
    return lines


def sections_of(facts: CardFacts, words: CardWords) -> list[Section]:
    """The whole card but for the moment it was written."""
    return [
        Section("Intended use", [Text(words.intended_use or NOT_WRITTEN)]),
        Section("Limits", [Text(words.limits or NOT_WRITTEN)]),
        _details(facts, words),
        _standing(facts),
        *_training(facts),
        *_evaluation(facts),
        _operation(facts),
        *more.missing_section(_missing(facts, words)),
        _made_from(facts),
    ]


def short_sections(facts: CardFacts, words: CardWords, *, uri: str) -> list[Section]:
    """The card on one screen, for a description.

    :param uri: where the whole card is.
    """
    found = [
        Section("Intended use", [Text(words.intended_use or NOT_WRITTEN)], level=3),
        Section("Limits", [Text(words.limits or NOT_WRITTEN)], level=3),
    ]
    if facts.evaluation is not None:
        figures = parts.figure_section(facts.evaluation)
        tables = [block for block in figures.blocks if isinstance(block, Table)]
        found.append(Section("Figures", tables[:1], level=3))
        if facts.evaluation.gates:
            rows = [(one.gate, one.outcome) for one in facts.evaluation.gates]
            found.append(Section("Gates", [Table(("Gate", "Outcome"), rows)], level=3))
    found.append(Section("Training data", [Text(parts.selection_words(facts.model.training))], level=3))
    return [*found, Section("The whole card", [Items([Code(uri)])], level=3)]


def _status(facts: CardFacts) -> str:
    if not facts.aliases:
        promoted = any(one.outcome.value == "promoted" for one in facts.decisions)
        if promoted:
            return "It had been in use before this card was made, and was no longer."
        return "It was not in use when this card was made: it had no alias."
    said = ", ".join(f"{alias} since {_day(moment)}" for alias, moment in facts.aliases.items())
    return f"In use: {said}."


def _details(facts: CardFacts, words: CardWords) -> Section:
    model = facts.model
    rows: list[tuple[str, Any]] = [
        ("Model", model.ref),
        ("Task", f"{model.task} of {model.target}" if model.target else model.task),
        ("Estimator", model.estimator),
        ("Made", f"{_moment(model.recorded_at)} by {model.produced_by.id} ({model.origin})"),
        ("Contacts", ", ".join(words.contacts) or "none named"),
        ("Code version", model.code_version),
        ("Files (SHA-256)", model.artifact_digest),
        ("Size", "not recorded" if model.size_bytes is None else f"{plain(model.size_bytes / 2**20)} MiB"),
        ("MLflow run", model.run_id or "none"),
        ("Record", model.record_id),
    ]
    if model.environment:
        shown = ", ".join(f"{name} {version}" for name, version in sorted(model.environment.items()))
        rows.append(("Environment at training", shown))
    return Section("Details", [Facts(rows)])


def _standing(facts: CardFacts) -> Section:
    blocks: list[Block] = [Text(_status(facts))]
    if facts.decisions:
        rows = [
            (
                _moment(one.recorded_at),
                one.alias,
                word(one.outcome),
                one.reason,
                one.produced_by.id,
                ", ".join(record[:12] for record in one.evidence),
            )
            for one in facts.decisions
        ]
        blocks.append(Table(("When", "Alias", "Decision", "Reason", "By", "On the records"), rows))
    if facts.words:
        counting = {one.record_id for one in (*facts.standing.approvals, *facts.standing.refusals)}
        blocks.append(
            Table(
                ("When", "Person", "Role", "Said", "Reason", "Counts"),
                [
                    (
                        _moment(one.recorded_at),
                        one.person,
                        one.role,
                        Cell(*(("approved", "o passed") if one.approved else ("refused", "o failed"))),
                        one.reason,
                        "yes" if one.record_id in counting else "no longer",
                    )
                    for one in facts.words
                ],
            )
        )
    for report in facts.gate_reports:
        asked = f"Gates of {report.policy or 'a policy'}, asked {_moment(report.recorded_at)}"
        blocks += [Text(f"{asked}: {word(report.outcome)}."), parts.gates_table(report.results)]
    return Section("Decisions and approvals", blocks)


def _training(facts: CardFacts) -> list[Section]:
    model = facts.model
    rows: list[tuple[str, Any]] = [
        ("Trained on", parts.selection_words(model.training)),
        ("Digest of these rows", model.training.digest if model.training else "not recorded"),
        ("Held out", parts.selection_words(model.holdout)),
        ("Target", model.target or "not recorded"),
        ("Features", ", ".join(model.features) or "not recorded"),
        ("Validated", _validated(facts)),
        ("Personal data", _personal(facts)),
    ]
    if model.settings:
        asked = ("params", "split", "seed", "sample_weight", "class_weight")
        said = {name: model.settings[name] for name in asked if model.settings.get(name) is not None}
        rows.append(("Settings", json.dumps(said, sort_keys=True, default=str)))
    if model.cross_validation:
        rows.append(("Cross-validation", _cross_validated(model.cross_validation)))
    if facts.tuning is not None:
        ended = ", ".join(f"{count} {name}" for name, count in sorted(facts.tuning.trials.items()) if count)
        best = f"best {facts.tuning.metric} {plain(facts.tuning.best_value)} over its folds"
        rows.append(("Parameters searched", f"{ended or 'no'} trials, {best}"))
    blocks: list[Block] = [Facts(rows)]
    if facts.validations:
        blocks.append(
            Table(
                ("Validation", "Outcome", "Dataset", "Rows", "When"),
                [
                    (
                        _page(one.suite, one.report_uri),
                        one.outcome,
                        str(one.dataset),
                        Cell(f"{one.rows:,}"),
                        _moment(one.recorded_at),
                    )
                    for one in facts.validations
                ],
            )
        )
    return [Section("Training data", blocks)]


def _evaluation(facts: CardFacts) -> list[Section]:
    evaluation = facts.evaluation
    if evaluation is None:
        return [Section("Evaluation", [Text("This version has not been evaluated.")])]
    blocks: list[Block] = [parts.facts_of(evaluation)]
    if evaluation.report_uri:
        blocks.append(Items([_page("The whole evaluation report", evaluation.report_uri)]))
    if facts.earlier:
        blocks += [
            Text(f"The newest of {len(facts.evaluations)} evaluations of this version. The others:"),
            Table(
                ("When", "Rows", "Against", "Gates", "Record"),
                [
                    (
                        _moment(one.recorded_at),
                        parts.selection_words(one.selection),
                        str(one.champion or "no champion"),
                        parts.worst(one.gates) or "none were asked",
                        one.record_id,
                    )
                    for one in facts.earlier
                ],
            ),
        ]
    return [
        Section("Evaluation", blocks),
        parts.gate_section(evaluation),
        parts.figure_section(evaluation),
        *drawn.calibration_sections(evaluation),
        *drawn.threshold_section(evaluation),
        *more.closer_sections(evaluation),
    ]


def _operation(facts: CardFacts) -> Section:
    blocks: list[Block] = []
    for one in facts.smoke_tests:
        blocks += _smoke(one)
    if not facts.smoke_tests:
        blocks.append(Text("It was not exercised through a scoring server."))
    blocks += (
        _reproduced(facts.reproductions[0]) if facts.reproductions else [Text("It was not trained again.")]
    )
    if facts.scoring_runs:
        newest = facts.scoring_runs[0]
        rows = sum(one.rows for one in facts.scoring_runs)
        blocks.append(
            Text(
                f"It has scored {rows:,} rows in {len(facts.scoring_runs):,} runs, the last on"
                f" {_day(newest.recorded_at)} into {newest.output_table}."
            )
        )
    if facts.performance:
        report = facts.performance[0]
        table = [(name, Cell(estimate(value))) for name, value in report.metrics.items()]
        blocks += [
            Text(f"On labels that came later, {_day(report.recorded_at)}:"),
            Table(("Metric", "Value"), table),
        ]
    return Section("Operation", blocks)


def _smoke(one: SmokeTest) -> list[Block]:
    said = (
        f"Exercised {_moment(one.recorded_at)} in the {one.environment} environment through"
        f" {one.server or 'a server'}: {word(one.outcome)}, {one.requests:,} requests, {one.rows:,} rows"
        " compared."
    )
    if one.message:
        said += f" {one.message.rstrip('.')}."
    figures = [(_FIGURES.get(name, word(name)), Cell(plain(value))) for name, value in one.figures.items()]
    checks = [(check.check, check.outcome, check.message) for check in one.checks]
    blocks: list[Block] = [Text(said)]
    blocks += [Table(("Check", "Outcome", "Remark"), checks)] if checks else []
    return [*blocks, Table(("Figure", "Value"), figures)] if figures else blocks


def _reproduced(one: Reproduction) -> list[Block]:
    said = (
        f"Trained again {_moment(one.recorded_at)}: {word(one.outcome)}; the largest difference of a"
        f" prediction over {one.rows:,} rows is {plain(one.max_difference)} (tolerance"
        f" {plain(one.tolerance)})."
    )
    if one.message:
        said += f" {one.message.rstrip('.')}."
    return [Text(said), *([Items(list(one.differences))] if one.differences else [])]


def _missing(facts: CardFacts, words: CardWords) -> list[str]:
    model = facts.model
    found = []
    for value, name in (
        (words.intended_use, "intended use: nobody has written it down"),
        (words.limits, "limits: nobody has written them down"),
        (words.contacts, "contacts: none are named"),
        (model.training, "training data: not recorded"),
        (facts.smoke_tests, "smoke test: not measured"),
        (facts.reproductions, "reproduction: not measured"),
        (facts.personal_data, "personal data: not searched for in these training rows"),
        (model.cross_validation, "cross-validation: not asked"),
        (facts.words, "approvals: nobody has said a word"),
        (facts.performance, "performance in use: not measured"),
    ):
        if not value:
            found.append(name)
    if facts.evaluation is None:
        return [*found, "evaluation: not measured, so there are no figures, slices or groups"]
    return [*found, *more.missing_of(facts.evaluation)]


def _made_from(facts: CardFacts) -> Section:
    rows = [(one.kind, one.record_id, _moment(one.recorded_at)) for one in facts.records]
    note = "Each of these records is in the lake's evidence; xops show KIND RECORD prints it."
    return Section("Made from", [Table(("Kind", "Record", "Recorded"), rows), Text(note, note=True)])


def _validated(facts: CardFacts) -> str:
    training = facts.model.training
    if training is None or not training.partitions:
        return "not known: the training rows are not recorded"
    of, bare = len(set(training.partitions)), facts.not_validated
    if not bare:
        return f"all {of} partitions passed a validation"
    first, why = next(iter(bare.items()))
    return f"{of - len(bare)} of {of} partitions passed a validation; the first without, {first}: {why}"


def _personal(facts: CardFacts) -> str:
    report = facts.personal_data
    if report is None:
        return "not searched for"
    columns = sorted({one.column for one in report.columns if one.column})
    return f"found in {', '.join(columns)}" if columns else f"none found in {len(report.searched)} columns"


def _cross_validated(figures: dict[str, float]) -> str:
    means = {name.removesuffix("_mean"): value for name, value in figures.items() if name.endswith("_mean")}
    if not means:
        return ", ".join(f"{name} {plain(value)}" for name, value in figures.items())
    return ", ".join(
        f"{name} {plain(value)} ± {plain(figures[f'{name}_std'])}"
        if f"{name}_std" in figures
        else f"{name} {plain(value)}"
        for name, value in means.items()
    )


def _page(text: str, uri: str | None) -> str | Link:
    """A link to a page of the lake's reports, from the card beside it."""
    _, found, path = (uri or "").partition(_REPORTS)
    return Link(text, f"../{path}") if found else text


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
