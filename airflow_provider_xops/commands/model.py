"""`xops promote`, `rollback`, `release`, `reconcile`, `history`: the promotion ledger from a shell."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.commands._evaluations import evaluation_of
from airflow_provider_xops.records import GateReport, PromotionOutcome

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    promote = add(groups, "promote", _promote, "Decide on a model version by its evaluation's gates.")
    promote.add_argument("model")
    promote.add_argument("version", type=int)
    promote.add_argument(
        "--evaluation", metavar="RECORD_ID", help="default: the newest evaluation of this version"
    )
    promote.add_argument(
        "--gate-report",
        metavar="RECORD_ID",
        help="of `xops gates check`, asked once more; default: gates that the evaluation deferred",
    )
    back = add(
        groups, "rollback", _rollback, "Put the previous champion, or a named version, back in service."
    )
    back.add_argument("model")
    back.add_argument("--to", type=int, metavar="VERSION")
    free = add(groups, "release", _release, "Unblock a version that was rolled back from.")
    free.add_argument("model")
    free.add_argument("version", type=int)
    mend = add(
        groups, "reconcile", _reconcile, "Compare MLflow's aliases with the ledger; apply what was decided."
    )
    mend.add_argument("model")
    past = add(groups, "history", _history, "Print a model's promotion ledger and check its hash chain.")
    past.add_argument("model")
    for made in (promote, back, free):
        made.add_argument("--alias", default="champion")
    for made in (mend, past):
        made.add_argument("--alias", default=None)
    for made in (back, free):
        made.add_argument("--reason", required=True, help="kept in the ledger")
    for made in (promote, back, mend):
        made.add_argument("--dry-run", action="store_true", help="say what would be done")


def _promote(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.gates import ask_deferred
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.registry.promote import promote

    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    evaluation = evaluation_of(lake, model, args.evaluation)
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
        actor=actor,
        as_of=as_of,
    )
    decision = result.decision
    _common.show(
        args, decision.to_json(), f"{decision.outcome}: {model.ref} for {args.alias} ({decision.reason})"
    )
    return 0 if decision.outcome is PromotionOutcome.PROMOTED else 1


def _rollback(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.rollback import rollback

    result = rollback(
        _common.lake(args),
        _common.registry(args),
        model_name=args.model,
        alias=args.alias,
        to_version=args.to,
        reason=args.reason,
        actor=_common.actor(args),
        as_of=_common.now(),
        dry_run=args.dry_run,
    )
    verb = "would move" if args.dry_run else "moved"
    data = {
        "from_version": result.from_version,
        "to_version": result.to_version,
        "dry_run": args.dry_run,
        "decision": result.decision.to_json() if result.decision else None,
    }
    _common.show(
        args, data, f"{verb} {args.model}@{args.alias} from v{result.from_version} to v{result.to_version}"
    )
    return 0


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
    data = [{"model": f.model, "alias": f.alias, "status": f.status, "message": f.message} for f in findings]
    _common.show(
        args,
        data,
        "\n".join(f"{f.model}@{f.alias}: {f.status} - {f.message}" for f in findings)
        or "nothing to reconcile",
    )
    return 0 if all(f.status in ("consistent", "applied") for f in findings) else 1


def _history(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.ledger import entries, verify_chain

    lake = _common.lake(args)
    found = entries(lake, args.model, args.alias)
    problems = verify_chain(lake, args.model, args.alias)
    lines = [
        f"{e.recorded_at:%F %T} {e.alias} #{e.sequence} {e.outcome:<11} v{e.from_version or '-'} -> "
        f"v{e.to_version or '-'}  by {e.produced_by.id}  {e.reason}".rstrip()
        for e in found
    ]
    lines += [f"PROBLEM: {problem}" for problem in problems]
    _common.show(
        args,
        {"entries": [e.to_json() for e in found], "problems": problems},
        "\n".join(lines) or f"no decisions on {args.model}",
    )
    return 1 if problems else 0
