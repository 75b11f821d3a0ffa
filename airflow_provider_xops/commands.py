"""What each `xops` command does: resolve the settings, call one function of the domain, show the result.

For :mod:`airflow_provider_xops.cli`, which parses the arguments. Heavy libraries are imported by the command
that needs them, so `xops --help` answers at once.
"""

from __future__ import annotations

import argparse
import getpass
import json
import shutil
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import (
    RECORD_TYPES,
    Actor,
    Evaluation,
    ModelVersion,
    Outcome,
    PromotionOutcome,
    json_schema,
)

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient

__all__ = [
    "adopt_model",
    "adopt_table",
    "dags_folder",
    "demo",
    "fold",
    "history",
    "init",
    "lake_hold",
    "lake_init",
    "lake_migrate",
    "lake_pins",
    "lake_verify",
    "promote",
    "reconcile",
    "record_training",
    "release",
    "rollback",
    "schema",
    "show",
    "trace",
    "training_schema",
    "vacuum",
    "validate",
]


def lake_init(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lake import init_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    info = init_lake(lake_settings_from_env(args.uri or args.lake), actor=_actor(args), as_of=_now())
    word = "created" if info.created else "already there"
    _show(
        args,
        {"lake_id": info.lake_id, "layout_version": info.layout_version, "created": info.created},
        f"lake {info.lake_id} (layout {info.layout_version}): {word}",
    )
    return 0


def lake_migrate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lake import migrate_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    info = migrate_lake(lake_settings_from_env(args.lake), actor=_actor(args), as_of=_now())
    _show(
        args,
        {"lake_id": info.lake_id, "layout_version": info.layout_version},
        f"lake {info.lake_id} has layout {info.layout_version}",
    )
    return 0


def lake_verify(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.read import verify_version
    from airflow_provider_xops.lake.tables import resolve_ref

    lake = _lake(args)
    table, version = _table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    mismatches = verify_version(lake, ref)
    text = (
        f"{ref}: every file matches its digest"
        if not mismatches
        else "\n".join(str(item) for item in mismatches)
    )
    _show(args, {"dataset": str(ref), "mismatches": [str(item) for item in mismatches]}, text)
    return 1 if mismatches else 0


def lake_pins(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.pins import pins

    found = pins(_lake(args), args.table)
    lines = [f"{pin.dataset}  {pin.reason}, for {pin.holder}" for pin in found]
    _show(args, [pin.to_json() for pin in found], "\n".join(lines) or "nothing is pinned")
    return 0


def lake_hold(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.pins import pin
    from airflow_provider_xops.lake.tables import resolve_ref

    lake = _lake(args)
    table, version = _table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    record = pin(lake, ref, reason=args.reason, holder=args.holder, actor=_actor(args), as_of=_now())
    _show(args, record.to_json(), f"{ref} is pinned: vacuum keeps its files")
    return 0


def trace(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lineage import render, trace
    from airflow_provider_xops.registry.ledger import entries

    lake = _lake(args)
    found = trace(lake, args.subject, decisions=entries(lake))
    _show(args, found.to_json(), render(found, full=args.full, limit=0 if args.full else 3))
    return 0


def show(args: argparse.Namespace) -> int:
    print(json.dumps(_lake(args).evidence.get(args.kind, args.record_id).to_json(), indent=2))
    return 0


def schema(args: argparse.Namespace) -> int:
    print(json.dumps(json_schema(args.kind), indent=2))
    return 0


def validate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.data.ingest import expand_partitions
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.quality.validate import validate

    lake = _lake(args)
    table, version = _table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    partitions = expand_partitions(args.partition) if args.partition else None
    report = validate(lake, ref, partitions=partitions, suite=args.suite, actor=_actor(args), as_of=_now())
    lines = [
        f"{ref}: {report.outcome} ({', '.join(f'{n} {word}' for word, n in report.counts.items() if n)})"
    ]
    lines += [
        f"  {check.outcome:<7} {check.check} {check.column or ''} {check.message}".rstrip()
        for check in report.checks
        if check.outcome is not Outcome.PASSED
    ]
    _show(args, report.to_json(), "\n".join([*lines, f"report: {report.report_uri}"]))
    return 0 if report.outcome is Outcome.PASSED else 1


def adopt_table(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.adopt import adopt_table

    record = adopt_table(_lake(args), args.uri, table=args.table, actor=_actor(args), as_of=_now())
    _show(
        args, record.to_json(), f"adopted as {record.ref}: {record.total_rows:,} rows, digest {record.digest}"
    )
    return 0


def adopt_model(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.adopt import adopt_model

    model = adopt_model(
        _lake(args),
        _registry(args),
        name=args.model,
        version=args.version,
        run_id=args.run_id,
        trust=args.trust,
        actor=_actor(args),
        as_of=_now(),
    )
    _show(args, model.to_json(), f"adopted {model.ref}: artifact digest {model.artifact_digest}")
    return 0


def record_training(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.adopt import record_training

    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
        payload = json.loads(text)
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{args.file} cannot be read as JSON",
            code="argument.payload",
            why=type(error).__name__,
            todo="pass a file that `xops record-training --schema` describes",
        ) from None
    model = record_training(_lake(args), _registry(args), payload, actor=_actor(args), as_of=_now())
    _show(args, model.to_json(), f"recorded {model.ref}: artifact digest {model.artifact_digest}")
    return 0


def training_schema(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.adopt import TRAINING_SCHEMA

    print(json.dumps(TRAINING_SCHEMA, indent=2))
    return 0


def promote(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.registry.promote import promote

    lake = _lake(args)
    model = get_model(lake, args.model, args.version)
    evaluation = _evaluation_of(lake, model, args.evaluation)
    if args.dry_run:
        passed = sum(gate.outcome == "passed" for gate in evaluation.gates) if evaluation else 0
        total = len(evaluation.gates) if evaluation else 0
        _show(
            args,
            {"dry_run": True, "model": str(model.ref), "gates_passed": passed, "gates": total},
            f"would decide on {model.ref}@{args.alias}: {passed} of {total} gates passed; nothing written",
        )
        return 0
    expected = evaluation.champion.version if evaluation and evaluation.champion else None
    result = promote(
        lake,
        _registry(args),
        model=model,
        alias=args.alias,
        expected=expected,
        evaluation=evaluation,
        actor=_actor(args),
        as_of=_now(),
    )
    decision = result.decision
    _show(args, decision.to_json(), f"{decision.outcome}: {model.ref} for {args.alias} ({decision.reason})")
    return 0 if decision.outcome is PromotionOutcome.PROMOTED else 1


def rollback(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.rollback import rollback

    result = rollback(
        _lake(args),
        _registry(args),
        model_name=args.model,
        alias=args.alias,
        to_version=args.to,
        reason=args.reason,
        actor=_actor(args),
        as_of=_now(),
        dry_run=args.dry_run,
    )
    verb = "would move" if args.dry_run else "moved"
    data = {
        "from_version": result.from_version,
        "to_version": result.to_version,
        "dry_run": args.dry_run,
        "decision": result.decision.to_json() if result.decision else None,
    }
    _show(args, data, f"{verb} {args.model}@{args.alias} from v{result.from_version} to v{result.to_version}")
    return 0


def release(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.rollback import release

    entry = release(
        _lake(args),
        model_name=args.model,
        version=args.version,
        alias=args.alias,
        reason=args.reason,
        actor=_actor(args),
        as_of=_now(),
    )
    _show(args, entry.to_json(), f"{args.model} v{args.version} may be promoted to {args.alias} again")
    return 0


def reconcile(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.reconcile import reconcile

    findings = reconcile(
        _lake(args),
        _registry(args),
        model_name=args.model,
        alias=args.alias,
        actor=_actor(args),
        as_of=_now(),
        dry_run=args.dry_run,
    )
    data = [{"model": f.model, "alias": f.alias, "status": f.status, "message": f.message} for f in findings]
    _show(
        args,
        data,
        "\n".join(f"{f.model}@{f.alias}: {f.status} - {f.message}" for f in findings)
        or "nothing to reconcile",
    )
    return 0 if all(f.status in ("consistent", "applied") for f in findings) else 1


def history(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.ledger import entries, verify_chain

    lake = _lake(args)
    found = entries(lake, args.model, args.alias)
    problems = verify_chain(lake, args.model, args.alias)
    lines = [
        f"{e.recorded_at:%F %T} {e.alias} #{e.sequence} {e.outcome:<11} v{e.from_version or '-'} -> "
        f"v{e.to_version or '-'}  by {e.produced_by.id}  {e.reason}".rstrip()
        for e in found
    ]
    lines += [f"PROBLEM: {problem}" for problem in problems]
    _show(
        args,
        {"entries": [e.to_json() for e in found], "problems": problems},
        "\n".join(lines) or f"no decisions on {args.model}",
    )
    return 1 if problems else 0


def fold(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.maintenance import fold_evidence

    lake = _lake(args)
    older_than = _now() - timedelta(days=args.older_than_days)
    for kind in [args.kind] if args.kind else sorted(RECORD_TYPES):
        result = fold_evidence(lake, kind, older_than=older_than, actor=_actor(args), as_of=_now())
        print(f"{kind}: {result}")
    return 0


def vacuum(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.maintenance import vacuum

    result = vacuum(
        _lake(args),
        args.table,
        retention=timedelta(days=args.retention_days),
        dry_run=args.dry_run,
        actor=_actor(args),
        as_of=_now(),
    )
    print(f"{args.table}: {result}")
    return 0


def init(args: argparse.Namespace) -> int:
    target = Path(args.directory)
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(dags_folder().glob("*.py")):
        if (target / source.name).exists() and not args.force:
            print(f"kept    {target / source.name} (--force overwrites)")
            continue
        shutil.copyfile(source, target / source.name)
        print(f"copied  {target / source.name}")
    return 0


def demo(args: argparse.Namespace) -> int:
    from airflow_provider_xops.examples.demo.main import run_demo

    return run_demo(state=Path(args.state), dags=dags_folder(), keep=args.keep)


# -- helpers -----------------------------------------------------------------------------------------


def dags_folder() -> Path:
    """Where the reference DAG files are: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    shipped = package / "examples" / "dags"
    return shipped if shipped.is_dir() else package.parent / "dags"


def _now() -> datetime:
    return datetime.now(UTC)


def _actor(args: argparse.Namespace) -> Actor:
    key = getattr(args, "key", None)
    if not key:
        key = args.key = f"cli-{uuid.uuid4().hex[:16]}"
        print(f"idempotency key: {key}", file=sys.stderr)
    return Actor.user(getpass.getuser(), key=key, fence=time.time_ns() // 1000)


def _lake(args: argparse.Namespace) -> Lake:
    from airflow_provider_xops.lake.lake import open_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    return open_lake(lake_settings_from_env(args.lake))


def _registry(args: argparse.Namespace) -> RegistryClient:
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.settings import mlflow_settings_from_env

    return RegistryClient(mlflow_settings_from_env(args.mlflow))


def _evaluation_of(lake: Lake, model: ModelVersion, record_id: str | None) -> Evaluation | None:
    if record_id:
        found = lake.evidence.get("evaluations", record_id)
        assert isinstance(found, Evaluation)
        return found
    all_of_it = [
        e for e in lake.evidence.all("evaluations") if isinstance(e, Evaluation) and e.model == model.ref
    ]
    return max(all_of_it, key=lambda e: e.recorded_at, default=None)


def _table_at(text: str) -> tuple[str, int | None]:
    table, _, version = text.partition("@")
    if version and not version.isdigit():
        raise ArgumentError(
            f"{text!r} is not TABLE or TABLE@VERSION",
            code="argument.table",
            todo="write for example flights@12",
        )
    return table, int(version) if version else None


def _show(args: argparse.Namespace, data: Any, text: str) -> None:
    print(json.dumps(data, indent=2) if getattr(args, "json", False) else text)
