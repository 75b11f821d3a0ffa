"""`xops gates ...`, `xops approve`, `xops refuse`: a policy's answers, and people's words, from a shell."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from datetime import timedelta
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.commands._evaluations import evaluation_of
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import Actor, Outcome

__all__ = ["add_parsers"]

POLICY = "a .yaml or .json file, or package.module:function"


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    gates = groups.add_parser("gates", help="check a model version against a policy").add_subparsers(
        required=True, metavar="ACTION"
    )
    check = add(gates, "check", _check, "Ask every gate of a policy; exit code 1 unless all pass.")
    check.add_argument("model")
    check.add_argument("version", type=int)
    check.add_argument("--policy", required=True, help=POLICY)
    check.add_argument(
        "--evaluation", metavar="RECORD_ID", help="default: the newest evaluation of this version"
    )
    add(gates, "show", _show, "Read a policy and print its gates; needs no lake.").add_argument(
        "policy", help=POLICY
    )
    add(gates, "schema", _schema, "Print the JSON Schema of policy files.")
    for name, run, text in (
        ("approve", _approve, "Say, as yourself, that a model version may be promoted."),
        ("refuse", _refuse, "Say, as yourself, that a model version must not be promoted."),
    ):
        word = add(groups, name, run, text)
        word.add_argument("model")
        word.add_argument("version", type=int)
        word.add_argument("--reason", required=True, help="kept in the record")
        word.add_argument("--role", default="", help="in which function you speak, such as risk")
        word.add_argument(
            "--evidence", action="append", default=[], metavar="RECORD_ID", help="what you looked at"
        )
        word.add_argument("--expires-in-days", type=float, metavar="DAYS", help="default: it never expires")


def _check(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.gates import check_gates, policy_from
    from airflow_provider_xops.registry.loading import get_model

    policy = policy_from(args.policy)
    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    evaluation = evaluation_of(lake, model, args.evaluation)
    report = check_gates(lake, model, evaluation, policy, actor=_common.actor(args), as_of=_common.now())
    lines = [f"{policy.name} for {model.ref}: {report.outcome}"]
    if evaluation is None:
        lines.append("  there is no evaluation of this version: gates about figures have no data")
    lines += [f"  {each.outcome:<8} {each.gate}  {each.message}" for each in report.results]
    lines.append(f"gate report: {report.record_id}")
    _common.show(args, report.to_json(), "\n".join(lines))
    return 0 if report.outcome is Outcome.PASSED else 1


def _show(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.gates import policy_from

    policy = policy_from(args.policy)
    gates = [gate.to_json() for gate in policy.gates]
    lines = [f"{policy.name}: {len(gates)} gates, digest {policy.digest}"]
    for gate in policy.gates:
        fields = ", ".join(f"{key}={value}" for key, value in gate.to_json().items() if key != "gate")
        when = "before promotion" if gate.needs_evidence else "at evaluation"
        lines.append(f"  {gate.kind} ({fields}), asked {when}")
    _common.show(args, {"name": policy.name, "digest": policy.digest, "gates": gates}, "\n".join(lines))
    return 0


def _schema(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.gates import gates_schema

    print(json.dumps(gates_schema(), indent=2))
    return 0


def _in_person(actor: Actor) -> Actor:
    """The actor under the account that the operating system knows: LOGNAME says whatever one wants."""
    import pwd

    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers run under numbers that have no name
        account = f"uid {os.getuid()}"
    return dataclasses.replace(actor, producer=dataclasses.replace(actor.producer, id=account))


def _approve(args: argparse.Namespace) -> int:
    return _say(args, approved=True)


def _refuse(args: argparse.Namespace) -> int:
    return _say(args, approved=False)


def _say(args: argparse.Namespace, *, approved: bool) -> int:
    from airflow_provider_xops.registry.approvals import approve
    from airflow_provider_xops.registry.loading import get_model

    days, as_of = args.expires_in_days, _common.now()
    if days is not None and not 0 < days <= 36_500:
        raise ArgumentError(
            f"--expires-in-days {days:g} is no time from now", code="argument.expires_at",
            todo="give a number of days above 0",
        )  # fmt: skip
    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    word = approve(
        lake,
        model,
        approved=approved,
        reason=args.reason,
        role=args.role,
        evidence=args.evidence,
        expires_at=None if days is None else as_of + timedelta(days=days),
        actor=_in_person(_common.actor(args)),
        as_of=as_of,
    )
    verb = "approved" if approved else "refused"
    _common.show(args, word.to_json(), f"{verb}: {model.ref} by {word.person} ({word.reason})")
    return 0
