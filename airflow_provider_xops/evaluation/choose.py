"""The best of several challengers, by rules that were fixed before anybody saw the figures.

For ``ChooseModelOperator``. Challengers that passed all gates come first, then the better figure decides,
then the record's id, so that the same evaluations always give the same choice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation._parts import headline_metric
from airflow_provider_xops.evaluation.plan import plan_from
from airflow_provider_xops.records import Evaluation, ModelVersion, Outcome, Selection
from airflow_provider_xops.training.metrics import METRICS, Task

__all__ = ["Choice", "choose", "warn_if_superseded"]

log = logging.getLogger(__name__)

CODE = "argument.evaluations"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best evaluation, all of them from best to worst, and the metric that decided."""

    best: Evaluation
    ranking: tuple[Evaluation, ...]
    metric: str


def choose(evaluations: Sequence[Evaluation], *, metric: str | None = None) -> Choice:
    """The best of several challengers of one model name, all judged on the same rows against one champion.

    :param evaluations: at least one; the same one twice counts once.
    :param metric: None: that of the first test of the evaluations' plan; without a test roc_auc, log_loss or
        accuracy, rmse or mae.
    :raises ArgumentError: ``argument.evaluations``: there is none, or they cannot be compared: other model
        names, rows, champions, aliases or questions, no figure of the metric at all; or they hold tests that
        were not corrected for as many candidates as there are.

    >>> choose([first, second], metric="roc_auc").best.model  # doctest: +SKIP

    What it does not do: it tests nothing. The best of several looks better than it is, for which the
    evaluations' own tests are corrected (``plan.candidates``).
    """
    given = list({each.record_id: each for each in evaluations}.values())
    if not given:
        raise _refused("no evaluation was given", "pass the output of the evaluating task")
    _check_comparable(given)
    wanted = metric or _metric_of(given[0])
    if wanted not in METRICS and not any(wanted in each.metrics for each in given):
        raise _refused(f"the metric {wanted!r} is unknown", f"use one of {', '.join(METRICS)}")
    if all(each.metrics.get(wanted) is None for each in given):
        raise _refused(f"{wanted} was measured for no candidate", "choose by another metric")
    ranking = tuple(sorted(given, key=lambda each: _standing(each, wanted)))
    for place, each in enumerate(ranking, 1):
        value = each.metrics.get(wanted)
        log.info(
            "Candidate %d of %d: %s, %s %s, gates %s (%s).", place, len(ranking), each.model, wanted,
            "not measured" if value is None else f"{value:.6g}", _gates(each), each.record_id,
        )  # fmt: skip
    log.info("Chose %s of %d by %s.", ranking[0].model, len(ranking), wanted)
    return Choice(best=ranking[0], ranking=ranking, metric=wanted)


def warn_if_superseded(best: Evaluation, champion: ModelVersion | None) -> bool:
    """Whether the champion is another one by now than the evaluation's; then a warning is in the log."""
    now = champion.ref if champion else None
    if now == best.champion:
        return False
    log.warning(
        "%s was compared with %s, and the champion is now %s: promotion will hold it.",
        best.model, best.champion or "no champion", now or "nobody",
    )  # fmt: skip
    return True


def _check_comparable(given: Sequence[Evaluation]) -> None:
    first = given[0]
    same: dict[str, list[Any]] = {
        "models of one name": [each.model.name for each in given],
        "the same rows": [_rows(each.selection) for each in given],
        "the same champion": [each.champion for each in given],
        "one alias": [each.alias for each in given if each.alias],
        "the same gates and plan": [each.gates_digest for each in given],
    }
    for what, values in same.items():
        if any(value != values[0] for value in values):
            raise _refused(
                f"the {len(given)} evaluations were not made of {what}",
                "evaluate all candidates with the same arguments, on one holdout",
            )
    candidates = int(first.plan.get("candidates", 1))
    if candidates < len(given) and any(each.hypothesis for one in given for each in one.comparisons):
        raise _refused(
            f"the tests were corrected for {candidates} candidates, and there are {len(given)}",
            f"evaluate with candidates={len(given)}: the best of several is lucky too",
        )


def _rows(selection: Selection) -> object:
    # Models of other features have other digests of the same rows; where rows lie says which ones they are.
    return selection.dataset, selection.row_ids_digest or selection.digest


def _metric_of(evaluation: Evaluation) -> str:
    tested = [each.metric for each in evaluation.comparisons if each.hypothesis]
    if tested:
        return tested[0]
    tests = plan_from(evaluation.plan or None).tests
    if tests:
        return tests[0].metric
    task = Task(evaluation.task) if evaluation.task else None
    return headline_metric(task, evaluation.metrics)


def _standing(evaluation: Evaluation, metric: str) -> tuple[bool, bool, float, str]:
    value = evaluation.metrics.get(metric)
    value = value if value is not None and math.isfinite(value) else None
    passed = all(gate.outcome is Outcome.PASSED for gate in evaluation.gates)
    better = METRICS[metric].greater_is_better if metric in METRICS else True
    figure = 0.0 if value is None else (-value if better else value)
    return not passed, value is None, figure, evaluation.record_id


def _gates(evaluation: Evaluation) -> str:
    passed = sum(gate.outcome is Outcome.PASSED for gate in evaluation.gates)
    return f"{passed} of {len(evaluation.gates)} passed" if evaluation.gates else "not asked"


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code=CODE, todo=todo)
