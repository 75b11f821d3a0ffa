"""The sections of an evaluation's report: what it comes to, gates, figures, provenance.

Private to :mod:`~airflow_provider_xops.evaluation.report` and :mod:`~airflow_provider_xops.evaluation.card`,
which has some of them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_xops.evaluation import interval_plots
from airflow_provider_xops.evaluation._document import (
    Block,
    Cell,
    Facts,
    Items,
    Plot,
    Plots,
    Section,
    Table,
    Text,
)
from airflow_provider_xops.evaluation._words import (
    MISSING,
    better,
    estimate,
    method_name,
    p_value,
    percent,
    plain,
    signed,
)
from airflow_provider_xops.records import Comparison, Evaluation, GateResult, ModelVersion, Outcome, Selection

__all__ = [
    "facts_of",
    "figure_section",
    "gate_section",
    "gates_table",
    "headline",
    "lead_of",
    "provenance_section",
    "selection_words",
    "worst",
]

# What needs a look comes first.
_ORDER = (Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA, Outcome.PASSED)
_HEADLINES = ("roc_auc", "roc_auc_ovr", "log_loss", "accuracy", "rmse", "mae")


def worst(gates: Sequence[GateResult]) -> Outcome | None:
    """What the gates come to; None where none was asked."""
    found = {gate.outcome for gate in gates}
    return next((outcome for outcome in _ORDER if outcome in found), None)


def headline(evaluation: Evaluation) -> str | None:
    """The metric that stands for the whole: the first tested, else the plan's first, else a usual one."""
    tested = [str(test.get("metric")) for test in evaluation.plan.get("tests") or ()]
    named = [str(metric) for metric in evaluation.plan.get("metrics") or ()]
    for metric in (*tested, *named, *_HEADLINES, *evaluation.metrics):
        if evaluation.metrics.get(metric) is not None:
            return metric
    return None


def lead_of(evaluation: Evaluation) -> list[str]:
    """What the evaluation comes to, in a few sentences."""
    return [
        line
        for line in (
            _gates_line(evaluation),
            _headline_line(evaluation),
            _tests_line(evaluation),
            *_weakness_lines(evaluation),
        )
        if line
    ]


def facts_of(evaluation: Evaluation) -> Facts:
    """What was judged, on which rows, and what it is recorded as."""
    plan, rows = evaluation.plan, evaluation.selection
    facts: list[tuple[str, Any]] = [
        ("Model", evaluation.model),
        ("Champion", evaluation.champion or "none yet"),
        *([("Evaluated for", evaluation.alias)] if evaluation.alias else []),
        ("Task", evaluation.task or MISSING),
        ("Rows", f"{rows.rows:,} of {rows.dataset}"),
        ("Partitions", _partitions(rows.partitions)),
        ("Gates", _counted(evaluation.gates) if evaluation.gates else "none were asked"),
    ]
    if plan:
        facts.append(("Confidence", percent(plan.get("confidence"))))
    facts += [
        ("Recorded", f"{evaluation.recorded_at:%Y-%m-%d %H:%M} UTC by {evaluation.produced_by.id}"),
        ("Record", evaluation.record_id),
    ]
    return Facts(facts)


def gate_section(evaluation: Evaluation) -> Section:
    """Every gate with its answer, and those that are asked before promotion."""
    blocks: list[Block] = []
    if evaluation.gates:
        blocks.append(gates_table(evaluation.gates))
    else:
        blocks.append(Text("No gate was asked, so nothing can be promoted on this evaluation."))
    if evaluation.deferred_gates:
        blocks.append(Text("Asked before promotion, because they need other evidence:"))
        blocks.append(Items([gate_words(gate) for gate in evaluation.deferred_gates]))
    return Section("Gates", blocks)


def gates_table(gates: Sequence[GateResult]) -> Table:
    """Answers of gates, those that need a look first."""
    ordered = sorted(gates, key=lambda gate: _ORDER.index(gate.outcome))
    return Table(
        ("Gate", "Outcome", "Observed", "Threshold", "Remark"),
        [
            (one.gate, one.outcome, Cell(_blank(one.observed)), Cell(_blank(one.threshold)), one.message)
            for one in ordered
        ],
    )


def gate_words(gate: Mapping[str, Any]) -> str:
    """A gate's own settings in a line: ``latency_budget (maximum_ms 50)``."""
    given = [
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in gate.items()
        if name != "gate" and value not in (None, "", [], {})
    ]
    settings = ", ".join(given)
    return f"{gate.get('gate', 'gate')}{f' ({settings})' if given else ''}"


def figure_section(evaluation: Evaluation) -> Section:
    """Every metric of both models with its interval, and the tests."""
    theirs = {one.metric: one for one in evaluation.champion_figures}
    compared = {one.metric: one for one in evaluation.comparisons if not one.hypothesis}
    compared |= {one.metric: one for one in evaluation.comparisons if one.metric not in compared}
    mine = {one.metric: one for one in evaluation.figures}
    tested = (one.metric for one in evaluation.comparisons if one.hypothesis)
    asked = {*(evaluation.plan.get("metrics") or ()), *tested}
    every = list(mine or evaluation.metrics)
    undefined = [
        metric
        for metric in every
        if metric not in asked
        and evaluation.metrics.get(metric) is None
        and evaluation.champion_metrics.get(metric) is None
    ]
    if len(undefined) == len(every):
        undefined = []
    rows = []
    for metric in (metric for metric in every if metric not in undefined):
        figure, other, difference = mine.get(metric), theirs.get(metric), compared.get(metric)
        own = _figure(figure) if figure else estimate(evaluation.metrics.get(metric))
        row: list[Any] = [metric, Cell(own)]
        if evaluation.champion:
            champion = _figure(other) if other else estimate(evaluation.champion_metrics.get(metric))
            row += [Cell(champion), Cell(_difference(difference))]
        rows.append([*row, better(metric)])
    champion_headers = (
        (f"Champion v{evaluation.champion.version}", "Difference") if evaluation.champion else ()
    )
    headers = ("Metric", f"Challenger v{evaluation.model.version}", *champion_headers, "")
    blocks: list[Block] = [Table(headers, rows)]
    blocks += _tests(evaluation)
    blocks.append(Text(_interval_words(evaluation), note=True))
    if undefined:
        words = f"Not defined for these rows and predictions: {', '.join(undefined)}."
        blocks.append(Text(words, note=True))
    return Section("Figures", blocks)


def provenance_section(evaluation: Evaluation, model: ModelVersion, champion: ModelVersion | None) -> Section:
    """Where everything comes from, to prove it again."""
    plan = evaluation.plan
    facts: list[tuple[str, Any]] = [
        ("Model record", model.record_id),
        ("Model files (SHA-256)", model.artifact_digest),
        ("Estimator", model.estimator),
        ("Code version", model.code_version),
        ("MLflow run", model.run_id or "none"),
        ("Trained on", selection_words(model.training)),
        ("Evaluated on", selection_words(evaluation.selection)),
        ("Digest of these rows", evaluation.selection.digest),
        (
            "Lake, table UUID",
            f"{evaluation.selection.dataset.lake_id}, {evaluation.selection.dataset.table_uuid}",
        ),
    ]
    if champion is not None:
        facts += [
            ("Champion's record", champion.record_id),
            ("Champion's files (SHA-256)", champion.artifact_digest),
            ("Champion trained on", selection_words(champion.training)),
        ]
    if plan:
        facts += [
            ("Resamples, seed", f"{plan.get('resamples')}, {plan.get('seed')}"),
            ("Rows resampled together by", plan.get("cluster") or "nothing: each row is independent"),
            ("Correction for several tests", plan.get("correction")),
            ("Candidates chosen from", plan.get("candidates")),
        ]
    facts.append(("Digest of gates and plan", evaluation.gates_digest))
    return Section("Provenance", [Facts(facts)])


def selection_words(selection: Selection | None) -> str:
    """Rows in words: ``1,200 rows of flights@3 (5 partitions, 2013-01-01 to 2013-01-05)``."""
    if selection is None:
        return "not recorded"
    return f"{selection.rows:,} rows of {selection.dataset} ({_partitions(selection.partitions)})"


def _gates_line(evaluation: Evaluation) -> str:
    if not evaluation.gates:
        return "No gate was asked: nothing can be promoted on this evaluation."
    line = f"Gates: {_counted(evaluation.gates)}."
    bad = [gate.gate for gate in evaluation.gates if gate.outcome is not Outcome.PASSED]
    if bad:
        line += f" Not passed: {', '.join(bad)}."
    if evaluation.deferred_gates:
        names = ", ".join(str(gate.get("gate")) for gate in evaluation.deferred_gates)
        line += f" Still to be asked before promotion: {names}."
    return line


def _headline_line(evaluation: Evaluation) -> str:
    metric = headline(evaluation)
    if metric is None:
        return "No metric could be measured."
    mine = next((one for one in evaluation.figures if one.metric == metric), None)
    line = f"{metric} is {_figure(mine) if mine else estimate(evaluation.metrics[metric])}"
    if evaluation.champion is None:
        return f"{line}; there is no champion to compare with."
    compared = next((one for one in evaluation.comparisons if one.metric == metric), None)
    if compared is None or compared.difference is None:
        return f"{line}; the difference to the champion was not measured."
    return (
        f"{line}; that is {_difference(compared)} against champion v{evaluation.champion.version}"
        f" ({better(metric)})."
    )


def _tests_line(evaluation: Evaluation) -> str:
    """What was shown about the challenger, and what was not."""
    tested = [one for one in evaluation.comparisons if one.hypothesis]
    parts = []
    for verdict, said in ((True, "Shown"), (False, "Not shown"), (None, "Not testable")):
        statements = [_statement(one) for one in tested if one.significant is verdict]
        if statements:
            parts.append(f"{said}: {'; '.join(statements)}.")
    return " ".join(parts)


def _weakness_lines(evaluation: Evaluation) -> list[str]:
    lines = []
    weak = [one for one in evaluation.slices if one.weak]
    if weak:
        names = "; ".join(one.conditions or one.name for one in weak[:3])
        more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
        lines.append(f"Worse than the other rows beyond chance: {names}{more}.")
    gaps = [one for one in evaluation.fairness if one.gap is not None and one.criterion]
    if gaps:
        largest = max(gaps, key=lambda one: one.gap or 0.0)
        shown = estimate(largest.gap, largest.gap_lower, largest.gap_upper)
        criterion = largest.criterion.replace("_", " ")
        said = f"{largest.metric}, {criterion}"
        lines.append(f"The largest gap between groups of {largest.attribute} is {shown} ({said}).")
    return lines


def _tests(evaluation: Evaluation) -> list[Block]:
    tested = [one for one in evaluation.comparisons if one.hypothesis]
    plain_ones = [one for one in evaluation.comparisons if not one.hypothesis and one.difference is not None]
    blocks: list[Block] = []
    if tested:
        blocks.append(
            Table(
                ("Statement about the challenger", "Difference", "Test", "p", "p, corrected", "Holds"),
                [
                    (
                        _statement(one),
                        Cell(_difference(one)),
                        method_name(one.test),
                        Cell(p_value(one.p_value)),
                        Cell(f"{p_value(one.adjusted_p_value)}{_correction(one)}"),
                        _holds(one),
                    )
                    for one in tested
                ],
            )
        )
    drawn = [one for one in (*tested, *plain_ones) if one.difference is not None]
    if drawn:
        caption = (
            "Intervals of the differences, each metric on its own scale, right is better; the mark is the"
            " margin. Green: the statement holds. Red: the whole interval is on the worse side."
        )
        blocks.append(Plots([Plot(interval_plots.differences(drawn), caption)]))
    return blocks


def _statement(one: Comparison) -> str:
    margin = f" than {plain(one.margin)}" if one.margin else ""
    if one.hypothesis == "non_inferiority":
        return f"{one.metric} is not worse by {plain(one.margin)} or more"
    return f"{one.metric} is better by more{margin}" if margin else f"{one.metric} is better"


def _holds(one: Comparison) -> Any:
    if one.significant is None:
        return Outcome.NO_DATA
    return Cell("yes", "o passed") if one.significant else Cell("not shown", "o warn")


def _correction(one: Comparison) -> str:
    if one.adjusted_p_value is None or one.correction in ("", "none"):
        return ""
    return f" ({method_name(one.correction)}, {one.comparisons} tests)"


def _difference(one: Comparison | None) -> str:
    return MISSING if one is None else signed(one.difference, one.lower, one.upper)


def _figure(one: Any) -> str:
    return estimate(one.value, one.lower, one.upper)


def _interval_words(evaluation: Evaluation) -> str:
    methods = sorted({method_name(one.method) for one in evaluation.figures if one.method})
    level = next((one.confidence for one in evaluation.figures if one.confidence), None)
    if not methods or level is None:
        return "These figures have no intervals."
    words = f"In brackets: {percent(level)} confidence intervals by {' or '.join(methods)}."
    if evaluation.champion:
        words += " Differences are challenger minus champion on the same rows, row by row."
    return words


def _counted(gates: Sequence[GateResult]) -> str:
    counts = {outcome: sum(gate.outcome is outcome for gate in gates) for outcome in _ORDER}
    return ", ".join(
        f"{count} {outcome.value.replace('_', ' ')}" for outcome, count in counts.items() if count
    )


def _partitions(partitions: Sequence[str]) -> str:
    if not partitions:
        return "no partition"
    if len(partitions) == 1:
        return partitions[0]
    return f"{len(partitions)} partitions, {min(partitions)} to {max(partitions)}"


def _blank(value: float | None) -> str:
    return "" if value is None else plain(value)
