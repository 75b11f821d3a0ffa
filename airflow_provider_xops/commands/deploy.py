"""`xops deploy`, `deployments`, `check-deployment`: bringing a version into service from a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.commands._evaluations import evaluation_of
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import (
    ApprovalResult,
    Deployment,
    GateReport,
    ModelVersion,
    Outcome,
    PromotionDecision,
)

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.serving.targets.base import ServingBackend
    from airflow_provider_xops.serving.targets.health import HealthCondition
    from airflow_provider_xops.serving.targets.rollout import Deployed, Patience

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    made = add(
        groups, "deploy", _deploy, "Bring a version into service in steps; a failure leaves the old one."
    )
    made.add_argument("model", nargs="?")
    made.add_argument("version", nargs="?", type=int)
    made.add_argument("--try-out", action="store_true", help="a share only; the ledger stays as it is")
    made.add_argument("--role", choices=("canary", "shadow"), default="canary", help="with --try-out")
    made.add_argument("--steps", metavar="SHARES", help="for example 0.1,0.5,1 (the default; 0.1 to try out)")
    made.add_argument("--soak-seconds", type=float, default=60.0, help="the window after each step")
    made.add_argument("--no-golden", action="store_true", help="deploy without answers to golden rows")
    made.add_argument("--unload-previous", action="store_true", help="where the target lets one choose")
    made.add_argument(
        "--allow-new-inputs", action="store_true", help="it may need other columns than what serves"
    )
    made.add_argument(
        "--on-failure", choices=("rollback", "hold"),
        help="of the ledger's entry; default: rollback if this command has made it, else hold",
    )  # fmt: skip
    made.add_argument("--supersede", action="store_true", help="end another deployment that is under way")
    made.add_argument("--evaluation", metavar="RECORD_ID", help="default: the newest of this version")
    made.add_argument("--gate-report", metavar="RECORD_ID")
    made.add_argument("--approval", metavar="RECORD_ID", help="what came of asking people")
    made.add_argument("--abort", metavar="RECORD_ID", help="end this deployment: the old version alone again")
    made.add_argument("--reason", default="", help="with --abort; kept in the record")
    check = add(groups, "check-deployment", _check, "Look at what serves an alias, under real requests.")
    check.add_argument("model")
    check.add_argument("--seconds", type=float, default=60.0, help="how long requests are watched")
    for parser in (made, check):
        parser.add_argument("--alias", default="champion")
        _add_target(parser)
        _add_health(parser)
    past = add(groups, "deployments", _deployments, "List deployments and how each of them ended.")
    past.add_argument("model", nargs="?")
    past.add_argument("--alias")
    past.add_argument("--steps", action="store_true", help="with their steps")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("target (also from $XOPS_SERVING_*; the key only from there)")
    group.add_argument("--target", choices=("xops", "v2", "sagemaker"), help="default: xops")
    group.add_argument("--hosts", metavar="URLS", help="each replica's address, separated by commas")
    group.add_argument("--timeout-seconds", type=float, default=600.0, help="for loading and for requests")
    group.add_argument("--poll-seconds", type=float, default=1.0)


def _add_health(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("health")
    group.add_argument("--max-error-rate", type=float, default=0.01, metavar="SHARE")
    group.add_argument("--max-p99-ms", type=float, metavar="MS")
    group.add_argument("--max-p99-ratio", type=float, metavar="TIMES", help="against the previous version")
    group.add_argument("--min-requests", type=int, default=0, metavar="N")
    group.add_argument("--tolerance", type=float, default=1e-9, help="of a predicted number")


def _deploy(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.serving.targets.rollout import deploy

    if args.abort:
        return _abort(args)
    if args.model is None or args.version is None:
        raise ArgumentError(
            "no version is named", code="argument.model", todo="write `xops deploy MODEL VERSION`"
        )
    lake, client, actor = _common.lake(args), _common.registry(args), _common.actor(args)
    model = get_model(lake, args.model, args.version)
    decide, new = (None, False) if args.try_out else _decision(args, lake, client, model, actor)
    target = _target(args, lake, client, actor)
    deployed = deploy(
        lake,
        client,
        target,
        model=model,
        alias=args.alias,
        steps=_steps(args, target),
        decide=decide,
        role=args.role,
        health=_health(args),
        soak_seconds=args.soak_seconds,
        golden=not args.no_golden,
        keep_previous=not args.unload_previous,
        allow_new_inputs=args.allow_new_inputs,
        on_failure=args.on_failure or ("rollback" if new else "hold"),
        supersede=args.supersede,
        patience=_patience(args),
        actor=actor,
        clock=_common.now,
    )
    return _said(args, deployed)


def _decision(
    args: argparse.Namespace, lake: Lake, client: RegistryClient, model: ModelVersion, actor: Any
) -> tuple[Callable[[], PromotionDecision], bool]:
    """What makes the ledger's entry, or confirms the one that stands; and whether this command makes it."""
    from airflow_provider_xops.evaluation.gates import ask_deferred
    from airflow_provider_xops.registry import ledger
    from airflow_provider_xops.registry.promote import check_evaluation, promote
    from airflow_provider_xops.serving.targets.rollout import confirm_decision

    now = ledger.current(lake, model.name, args.alias)
    is_champion = now is not None and (now.to_version, now.to_created_at_ms) == (
        model.version,
        model.created_at_ms,
    )
    if now is not None and is_champion and now.idempotency_key != actor.idempotency_key:
        return lambda: confirm_decision(lake, client, now, actor=actor, as_of=_common.now()), False
    evaluation = evaluation_of(lake, model, args.evaluation, alias=args.alias)
    if evaluation is not None:
        check_evaluation(evaluation, model, args.alias)
    report: Any = lake.evidence.resolve(args.gate_report, GateReport.kind) if args.gate_report else None
    approval: Any = lake.evidence.resolve(args.approval, ApprovalResult.kind) if args.approval else None

    def decide() -> PromotionDecision:
        as_of = _common.now()
        answers = report
        if evaluation is not None:
            answers = ask_deferred(lake, model, evaluation, report, actor=actor, as_of=as_of)
        return promote(
            lake,
            client,
            model=model,
            alias=args.alias,
            expected=evaluation.champion.version if evaluation and evaluation.champion else None,
            evaluation=evaluation,
            gate_report=answers,
            approval=approval,
            allow_new_inputs=args.allow_new_inputs,
            actor=actor,
            as_of=as_of,
        ).decision

    return decide, True


def _abort(args: argparse.Namespace) -> int:
    from airflow_provider_xops.serving.targets.rollout import abort_deployment

    lake, client, actor = _common.lake(args), _common.registry(args), _common.actor(args)
    deployment = lake.evidence.resolve(args.abort, Deployment.kind)
    assert isinstance(deployment, Deployment)
    aborted = abort_deployment(
        lake,
        client,
        _target(args, lake, client, actor),
        deployment,
        reason=args.reason,
        on_failure=args.on_failure,
        patience=_patience(args),
        actor=actor,
        clock=_common.now,
    )
    said = aborted.steps[-1].details.get("ledger", "")
    _common.show(
        args, _as_json(aborted),
        f"ended deployment {deployment.record_id[:12]} of {deployment.model}" + (f"; {said}" if said else ""),
    )  # fmt: skip
    return 0


def _check(args: argparse.Namespace) -> int:
    from airflow_provider_xops.serving.targets.check import check_deployment

    lake, client, actor = _common.lake(args), _common.registry(args), _common.actor(args)
    check = check_deployment(
        lake,
        _target(args, lake, client, actor),
        model_name=args.model,
        alias=args.alias,
        health=_health(args),
        seconds=args.seconds,
        patience=_patience(args),
        actor=actor,
        clock=_common.now,
    )
    lines = [f"{check.outcome.value}: {check.model} as {check.alias} (decision {check.decision})"]
    lines += [f"  {gate.gate:<20} {gate.outcome.value:<8} {gate.message}".rstrip() for gate in check.results]
    _common.show(args, check.to_json(), "\n".join(lines))
    return 0 if check.outcome is Outcome.PASSED else 1


def _deployments(args: argparse.Namespace) -> int:
    from airflow_provider_xops.serving.targets.rollout import list_deployments

    found = list_deployments(_common.lake(args), model=args.model, alias=args.alias)
    lines = []
    for deployed in found:
        of = deployed.deployment
        lines.append(
            f"{of.recorded_at:%F %T} {of.record_id[:12]} {of.model}@{of.alias} at {of.target} {of.endpoint}"
            f" by {of.produced_by.id}: {deployed.state}"
            + (f" ({deployed.message})" if deployed.message else "")
        )
        for step in deployed.steps if args.steps else ():
            said = f"  {step.message}" if step.message else ""
            lines.append(f"    {step.number:>2} {step.step:<8} {step.weight:<5g} {step.outcome.value}{said}")
    _common.show(args, [_as_json(each) for each in found], "\n".join(lines) or "no deployments")
    return 0


def _said(args: argparse.Namespace, deployed: Deployed) -> int:
    of = deployed.deployment
    text = f"{deployed.state}: {of.model} as {of.alias} at {of.target} {of.endpoint}"
    if deployed.message:
        text += f" ({deployed.message})"
    if deployed.steps and deployed.steps[-1].details.get("ledger"):
        text += f"; {deployed.steps[-1].details['ledger']}"
    _common.show(args, _as_json(deployed), text)
    return 0 if deployed.outcome is Outcome.PASSED else 1


def _as_json(deployed: Deployed) -> dict[str, Any]:
    return {
        "state": deployed.state,
        "message": deployed.message,
        "served": {str(version): times for version, times in deployed.served.items()},
        "decision": deployed.decision.sequence if deployed.decision else None,
        "deployment": deployed.deployment.to_json(),
        "steps": [step.to_json() for step in deployed.steps],
    }


def _target(args: argparse.Namespace, lake: Lake, client: RegistryClient, actor: Any) -> ServingBackend:
    from airflow_provider_xops.serving.targets.settings import open_target, serving_settings_from_env

    settings = serving_settings_from_env(args.hosts, kind=args.target)
    return open_target(settings, lake=lake, client=client, actor=actor, clock=_common.now)


def _steps(args: argparse.Namespace, target: ServingBackend) -> tuple[float, ...]:
    if args.steps is None:
        whole = (0.1, 0.5, 1.0) if target.supports_weights else (1.0,)
        return (0.1,) if args.try_out else whole
    try:
        return tuple(float(step) for step in str(args.steps).split(","))
    except ValueError:
        raise ArgumentError(
            "--steps is not a list of shares", code="argument.steps", todo="write for example 0.1,0.5,1"
        ) from None


def _health(args: argparse.Namespace) -> HealthCondition:
    from airflow_provider_xops.serving.targets.health import HealthCondition

    return HealthCondition(
        max_error_rate=args.max_error_rate,
        max_p99_ms=args.max_p99_ms,
        max_p99_ratio=args.max_p99_ratio,
        min_requests=args.min_requests,
        golden=not getattr(args, "no_golden", False),
        tolerance=args.tolerance,
    )


def _patience(args: argparse.Namespace) -> Patience:
    from airflow_provider_xops.serving.targets.rollout import Patience

    return Patience(
        load_s=args.timeout_seconds,
        settle_s=min(args.timeout_seconds, 120.0),
        requests_s=args.timeout_seconds,
        poll_s=args.poll_seconds,
    )
