"""`xops promote`, `rollback`, `release`, `nominate`, `retire`, `reconcile`, `history`: the promotion ledger.

Exit codes: 0, it is as asked (promoted, rolled back, everything agrees); 1, it was decided otherwise (held,
rejected, expired), refused, or a person must look.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.commands._evaluations import evaluation_of
from airflow_provider_xops.commands._history import table_of
from airflow_provider_xops.errors import ArgumentError, LakeError
from airflow_provider_xops.records import ApprovalResult, GateReport, PromotionOutcome

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    promote = add(groups, "promote", _promote, "Decide on a model version by its evaluation's gates.")
    promote.add_argument("model")
    promote.add_argument("version", type=int)
    promote.add_argument(
        "--evaluation", metavar="RECORD_ID", help="default: the newest of this version for this alias"
    )
    promote.add_argument(
        "--gate-report",
        metavar="RECORD_ID",
        help="of `xops gates check`, asked once more; default: gates that the evaluation deferred",
    )
    promote.add_argument(
        "--approval",
        metavar="RECORD_ID",
        help="what came of asking people; default: nobody was asked",
    )
    promote.add_argument(
        "--allow-new-inputs", action="store_true", help="it may take other columns than the champion"
    )
    back = add(
        groups, "rollback", _rollback, "Put the previous champion, or a named version, back in service."
    )
    back.add_argument("model")
    back.add_argument("--to", type=int, metavar="VERSION")
    back.add_argument(
        "--unverified",
        action="store_true",
        help="emergency: do not download, prove and load the target first; the ledger says so",
    )
    free = add(groups, "release", _release, "Unblock a version that was rolled back from.")
    free.add_argument("model")
    free.add_argument("version", type=int)
    name = add(groups, "nominate", _nominate, "Give a version an alias that answers nobody, without gates.")
    name.add_argument("model")
    name.add_argument("version", type=int)
    name.add_argument("--alias", default="challenger", help="default: challenger")
    name.add_argument("--expires-in-days", type=float, metavar="DAYS", help="default: until another entry")
    end = add(groups, "retire", _retire, "Take an alias away, in the ledger and in MLflow.")
    end.add_argument("model")
    end.add_argument("--alias", required=True)
    mend = add(
        groups, "reconcile", _reconcile, "Compare MLflow's aliases with the ledger; apply what was decided."
    )
    mend.add_argument("model")
    past = add(
        groups,
        "history",
        _history,
        "Print a model's promotion ledger, what it says now, and check its hashes.",
    )
    past.add_argument("model")
    for made in (promote, back, free):
        made.add_argument("--alias", default="champion")
    for made in (mend, past):
        made.add_argument("--alias", default=None)
    for made in (back, free, name, end):
        made.add_argument("--reason", required=True, help="kept in the ledger")
    for made in (promote, back, mend):
        made.add_argument("--dry-run", action="store_true", help="say what would be done")


def _promote(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.gates import ask_deferred
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.registry.promote import check_evaluation, promote

    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    evaluation = evaluation_of(lake, model, args.evaluation, alias=args.alias)
    if evaluation is not None:
        check_evaluation(evaluation, model, args.alias)
    if args.dry_run:
        gates = evaluation.gates if evaluation else ()
        passed = sum(gate.outcome == "passed" for gate in gates)
        deferred = [str(gate.get("gate")) for gate in evaluation.deferred_gates] if evaluation else []
        later = f"; still to be asked: {', '.join(deferred)}" if deferred else ""
        _common.show(
            args,
            {
                "dry_run": True,
                "model": str(model.ref),
                "gates_passed": passed,
                "gates": len(gates),
                "deferred": deferred,
            },
            f"would decide on {model.ref}@{args.alias}: {passed} of {len(gates)} gates passed{later};"
            " nothing written",
        )
        return 0
    expected = evaluation.champion.version if evaluation and evaluation.champion else None
    actor, as_of = _common.actor(args), _common.now()
    approval = lake.evidence.resolve(args.approval, ApprovalResult.kind) if args.approval else None
    assert approval is None or isinstance(approval, ApprovalResult)
    report = lake.evidence.resolve(args.gate_report, GateReport.kind) if args.gate_report else None
    assert report is None or isinstance(report, GateReport)
    if evaluation is not None:
        report = ask_deferred(lake, model, evaluation, report, actor=actor, as_of=as_of)
    result = promote(
        lake,
        _common.registry(args),
        model=model,
        alias=args.alias,
        expected=expected,
        evaluation=evaluation,
        gate_report=report,
        approval=approval,
        allow_new_inputs=args.allow_new_inputs,
        actor=actor,
        as_of=as_of,
    )
    decision = result.decision
    people = f"; approved by {', '.join(decision.approved_by)}" if decision.approved_by else ""
    _common.show(
        args,
        decision.to_json(),
        f"{decision.outcome}: {model.ref} for {args.alias} ({decision.reason}{people})"
        + (_overtaken(result.applied) if decision.outcome is PromotionOutcome.PROMOTED else ""),
    )
    return 0 if decision.outcome is PromotionOutcome.PROMOTED and result.applied else 1


def _rollback(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.rollback import rollback

    result = rollback(
        _common.lake(args),
        _common.registry(args),
        model_name=args.model,
        alias=args.alias,
        to_version=args.to,
        reason=args.reason,
        verify=not args.unverified,
        actor=_common.actor(args),
        as_of=_common.now(),
        dry_run=args.dry_run,
    )
    verb, done = "would move" if args.dry_run else "moved", args.dry_run or result.applied
    data = {
        "from_version": result.from_version,
        "to_version": result.to_version,
        "dry_run": args.dry_run,
        "verified": result.verified,
        "decision": result.decision.to_json() if result.decision else None,
    }
    _common.show(
        args,
        data,
        f"{verb} {args.model}@{args.alias} from v{result.from_version} to v{result.to_version}"
        + _overtaken(done),
    )
    return 0 if done else 1


def _release(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.rollback import release

    entry = release(
        _common.lake(args),
        model_name=args.model,
        version=args.version,
        alias=args.alias,
        reason=args.reason,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    _common.show(args, entry.to_json(), f"{args.model} v{args.version} may be promoted to {args.alias} again")
    return 0


def _nominate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.registry.nominate import nominate

    lake, as_of = _common.lake(args), _common.now()
    days = args.expires_in_days
    if days is not None and not 0 < days <= 36_500:
        raise ArgumentError(
            f"--expires-in-days {days:g} is no time from now", code="argument.expires_at",
            todo="give a number of days above 0, 36500 at most",
        )  # fmt: skip
    result = nominate(
        lake,
        _common.registry(args),
        model=get_model(lake, args.model, args.version),
        alias=args.alias,
        reason=args.reason,
        expires_at=None if days is None else as_of + timedelta(days=days),
        actor=_common.actor(args),
        as_of=as_of,
    )
    until = result.decision.expires_at
    _common.show(
        args,
        result.decision.to_json(),
        f"{args.model}@{args.alias} is v{args.version}"
        + (f" until {until:%F %T %Z}" if until else "")
        + _overtaken(result.applied),
    )
    return 0 if result.applied else 1


def _retire(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.nominate import retire

    result = retire(
        _common.lake(args),
        _common.registry(args),
        model_name=args.model,
        alias=args.alias,
        reason=args.reason,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    _common.show(
        args,
        result.decision.to_json(),
        f"{args.model}@{args.alias} stands for nothing now{_overtaken(result.applied)}",
    )
    return 0 if result.applied else 1


def _overtaken(applied: bool) -> str:
    """That a decision of this key is an old one: what it says is not what the alias stands for."""
    return "" if applied else ": decided before, and overtaken since; `xops history` says by what"


def _reconcile(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.reconcile import reconcile

    findings = reconcile(
        _common.lake(args),
        _common.registry(args),
        model_name=args.model,
        alias=args.alias,
        actor=_common.actor(args),
        as_of=_common.now(),
        dry_run=args.dry_run,
    )
    data = [
        {
            "model": f.model,
            "alias": f.alias,
            "status": f.status,
            "message": f.message,
            "incident": f.incident.to_json() if f.incident else None,
            "mended": list(f.mended),
        }
        for f in findings
    ]
    lines = []
    for f in findings:
        lines.append(f"{f.model}@{f.alias}: {f.status} - {f.message}")
        if f.incident is not None:
            lines.append(f"  next step: {f.incident.next_step}")
    _common.show(args, data, "\n".join(lines) or "nothing to reconcile")
    return 0 if all(f.in_order for f in findings) else 1


def _history(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.ledger import entries, verify_chain

    lake = _common.lake(args)
    problems = verify_chain(lake, args.model, args.alias)
    try:
        found = entries(lake, args.model, args.alias)
    except LakeError as error:
        if error.code != "lake.ledger_broken" or not problems:
            raise
        found = []
    nothing = f"{'no decisions can be read' if problems else 'no decisions'} on {args.model}"
    lines = [table_of(args.model, found, as_of=_common.now()) if found else nothing]
    lines += [f"PROBLEM: {problem}" for problem in problems]
    _common.show(
        args,
        {"entries": [each.to_json() for each in found], "problems": problems},
        "\n".join(lines),
    )
    return 1 if problems else 0
