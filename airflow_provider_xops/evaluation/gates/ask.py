"""Asking gates: every answer with its figures, and never *passed* where something went wrong.

For evaluation, which asks the gates about its figures, and for :func:`check_gates`, which asks all of a
policy and records the answers.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.evaluation.gates.base import Case, Gate, is_number
from airflow_provider_xops.evaluation.gates.catalog import GATES
from airflow_provider_xops.evaluation.gates.policy import Policy, gates_from
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Evaluation,
    GateReport,
    GateResult,
    ModelVersion,
    Outcome,
    digest_of,
)
from airflow_provider_xops.registry.recorded import recorded

__all__ = ["ask", "ask_deferred", "check_gates", "outcome_of"]

log = logging.getLogger(__name__)


def ask(gates: Sequence[Gate], case: Case) -> tuple[GateResult, ...]:
    """The answers of the gates, in their order.

    A gate that raises is *errored*; one that says *passed* without a finite figure is *no data*.

    :raises UnavailableError: (or another retryable error) the storage did not answer: nothing is known about
        the model then, and asking again later can succeed.
    """
    return tuple(_answer(gate, case) for gate in gates)


def outcome_of(results: Sequence[GateResult]) -> Outcome:
    """The one word for all answers: failed if any failed, else errored, else no data, else passed.

    >>> outcome_of(())
    <Outcome.NO_DATA: 'no_data'>
    """
    outcomes = {_checked(result).outcome for result in results} or {Outcome.NO_DATA}
    worst_first = (Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA)
    return next((outcome for outcome in worst_first if outcome in outcomes), Outcome.PASSED)


def check_gates(
    lake: Lake,
    model: ModelVersion,
    evaluation: Evaluation | None,
    policy: Policy,
    *,
    actor: Actor,
    as_of: datetime,
) -> GateReport:
    """Ask every gate of a policy about a model version, and record the answers in the evidence.

    :param evaluation: where the figures come from; None: gates about figures have no data. Of it and of the
        model, what the evidence holds is looked at.
    :raises ArgumentError: the evaluation is of another model or not in the evidence
        (``argument.evaluation``), the model is not (``argument.model``), or the policy has no gates
        (``argument.gate``).

    >>> check_gates(lake, model, evaluation, policy_from("gates.yaml"), actor=actor, as_of=now)
    ... # doctest: +SKIP

    What it does not do: it promotes nothing, and a failed gate is in the report, not an error.
    """
    if evaluation is not None and evaluation.model != model.ref:
        raise ArgumentError(
            f"the evaluation is of {evaluation.model}, not of {model.ref}",
            code="argument.evaluation",
            todo="pass the evaluation of the model that is asked about",
        )
    if not policy.gates:
        raise ArgumentError(
            f"the policy {policy.name} has no gates",
            code="argument.gate",
            why="no gate says when a model is good enough",
            todo="name at least one gate",
        )
    case = _case(lake, model, evaluation, actor, as_of)
    results = ask(policy.gates, case)
    report = GateReport(
        recorded_at=as_of,
        produced_by=actor.producer,
        model=model.ref,
        evaluation=evaluation.record_id if evaluation else None,
        policy=policy.name,
        policy_digest=policy.digest,
        outcome=outcome_of(results),
        results=results,
        gates=tuple(gate.to_json() for gate in policy.gates),
        consulted=tuple(case.consulted),
    )
    lake.evidence.put(report)
    log.info(
        "Gates of %s for %s: %s (%s).", policy.name, model.ref, report.outcome.value,
        ", ".join(f"{result.gate} {result.outcome.value}" for result in results),
    )  # fmt: skip
    return report


def ask_deferred(
    lake: Lake,
    model: ModelVersion,
    evaluation: Evaluation,
    report: GateReport | None = None,
    *,
    actor: Actor,
    as_of: datetime,
) -> GateReport | None:
    """The report that promotion needs: one that covers what the evaluation deferred, as it is now.

    :param report: what ``check_gates`` gave for this evaluation; None: nobody has asked yet. Its gates about
        evidence and about the time are asked again, because a smoke test may have failed, an approval expired
        or data grown old since; those of your own keep their answers, for only their policy can ask them.
    :return: the given report where nothing has changed, else a new one; None if nothing was deferred and no
        report is given.
    :raises ArgumentError: ``argument.gate_report``: the report is of another evaluation, not in the evidence,
        or does not ask all deferred gates with their fields, so that promotion would be held for ever;
        ``argument.gate``: a deferred gate is one of your own, and there is no report.
    """
    evaluation = recorded(lake, evaluation, argument="evaluation")
    if report is not None:
        report = recorded(lake, report, argument="gate_report")
        if report.model != model.ref or report.evaluation != evaluation.record_id:
            raise ArgumentError(
                f"the gate report is of {report.model} and evaluation {report.evaluation}, asked about are"
                f" {model.ref} and evaluation {evaluation.record_id}",
                code="argument.gate_report",
                todo="pass the report that was made of this evaluation",
            )
        asked = {digest_of(gate) for gate in report.gates}
        missing = [gate for gate in evaluation.deferred_gates if digest_of(gate) not in asked]
        if missing:
            raise ArgumentError(
                f"the gate report of {report.policy} does not ask {len(missing)} gates that the evaluation"
                " deferred",
                code="argument.gate_report",
                why=f"the first is {missing[0].get('gate')}, with the fields that the evaluation was given",
                todo="check the same policy that the model was evaluated under",
            )
        return _asked_again(report, _case(lake, model, evaluation, actor, as_of), actor)
    if not evaluation.deferred_gates:
        return None
    deferred = Policy(name="deferred", gates=gates_from(list(evaluation.deferred_gates)))
    return check_gates(lake, model, evaluation, deferred, actor=actor, as_of=as_of)


def _case(
    lake: Lake, model: ModelVersion, evaluation: Evaluation | None, actor: Actor, as_of: datetime
) -> Case:
    """The case as the evidence has it: what was handed over may have been edited on the way."""
    model = recorded(lake, model, argument="model")
    if evaluation is not None:
        evaluation = recorded(lake, evaluation, argument="evaluation")
    case = Case(lake=lake, model=model, evaluation=evaluation, as_of=as_of, actor=actor)
    if evaluation is not None:
        case.consult(evaluation)
    return case


def _asked_again(report: GateReport, case: Case, actor: Actor) -> GateReport:
    """The report with the present answers of the gates that rest on more than the evaluation."""
    kinds = [GATES.get(str(gate.get("gate"))) for gate in report.gates]
    if len(report.results) != len(kinds):
        return report
    results = tuple(
        ask(gates_from([gate]), case)[0] if kind is not None and kind.needs_evidence else result
        for gate, kind, result in zip(report.gates, kinds, report.results, strict=True)
    )
    if results == report.results:
        return report
    consulted = dict.fromkeys((report.record_id, *report.consulted, *case.consulted))
    newer = dataclasses.replace(
        report, record_id="", recorded_at=case.as_of, produced_by=actor.producer, results=results,
        outcome=outcome_of(results), consulted=tuple(consulted),
    )  # fmt: skip
    case.lake.evidence.put(newer)
    log.info("Gates of %s asked again for %s: %s.", report.policy, report.model, newer.outcome.value)
    return newer


def _answer(gate: Gate, case: Case) -> GateResult:
    try:
        result = gate.check(case)
    except XOpsError as error:
        if error.retryable:
            raise
        log.warning("Gate %s could not be asked about %s: %s", gate.name, case.model.ref, error)
        return GateResult(gate=gate.name, outcome=Outcome.ERRORED, message=f"[{error.code}] {error.what}")
    except Exception as error:
        # The text of a foreign error may hold values of rows: its type is all that is recorded.
        log.warning("Gate %s raised a %s about %s.", gate.name, type(error).__name__, case.model.ref)
        return GateResult(
            gate=gate.name, outcome=Outcome.ERRORED, message=f"it raised a {type(error).__name__}"
        )
    answer = getattr(result, "outcome", result)
    if not isinstance(result, GateResult) or not isinstance(answer, Outcome):
        return GateResult(
            gate=gate.name, outcome=Outcome.ERRORED, message=f"it answered with a {type(answer).__name__}"
        )
    # Under its own name: an answer must not pass for that of another gate, such as the one about leaks.
    return dataclasses.replace(_checked(result), gate=gate.name)


def _checked(result: GateResult) -> GateResult:
    """The answer without NaN or infinity, for which JSON has no form; passed only with a figure."""
    # As floats: answers are part of a report's identity, and 2 is read back as 2.0.
    observed, threshold = _float(result.observed), _float(result.threshold)
    outcome, message = result.outcome, result.message
    if outcome is Outcome.PASSED and observed is None:
        outcome, message = Outcome.NO_DATA, f"it passed without a figure ({message or 'no message'})"
    return dataclasses.replace(
        result, outcome=outcome, observed=observed, threshold=threshold, message=message
    )


def _float(value: float | None) -> float | None:
    return float(value) if value is not None and is_number(value) else None
