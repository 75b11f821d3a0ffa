"""`xops lake ...`, `xops fold`, `xops compact`, `xops vacuum`: make a lake, check it, keep it in order."""

from __future__ import annotations

import argparse
import dataclasses
from datetime import timedelta
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.records import RECORD_TYPES

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    lake = groups.add_parser("lake", help="create, migrate or verify a lake").add_subparsers(
        required=True, metavar="ACTION"
    )
    add(lake, "init", _lake_init, "Create a lake; an existing one is left as it is.").add_argument(
        "uri", nargs="?"
    )
    add(lake, "migrate", _lake_migrate, "Bring a lake to this version's layout.")
    add(lake, "verify", _lake_verify, "Read a version's files again and compare their digests.").add_argument(
        "table", metavar="TABLE[@VERSION]"
    )
    add(lake, "pins", _lake_pins, "List the versions that vacuum keeps, and for whom.").add_argument(
        "table", nargs="?"
    )
    hold = add(lake, "hold", _lake_hold, "Keep a version's files whatever happens (a legal hold).")
    hold.add_argument("table", metavar="TABLE[@VERSION]")
    hold.add_argument("--reason", default="legal hold")
    hold.add_argument("--holder", required=True, help="for whom: a case number, a person, a contract")

    fold = add(groups, "fold", _fold, "Fold old evidence objects into Delta tables.")
    fold.add_argument("--kind", choices=sorted(RECORD_TYPES))
    fold.add_argument("--older-than-days", type=float, default=1.0)
    small = add(groups, "compact", _compact, "Put the small files of a prediction log together.")
    small.add_argument("table")
    small.add_argument("--partition", action="append", help="only this one (may be repeated)")
    small.add_argument(
        "--least-files", type=int, default=8, metavar="N", help="leave partitions with fewer (default: 8)"
    )
    small.add_argument("--dry-run", action="store_true", help="say what would be done")
    vacuum = add(groups, "vacuum", _vacuum, "Delete data files that no kept or pinned version needs.")
    vacuum.add_argument("table")
    vacuum.add_argument("--retention-days", type=float, default=30.0)
    vacuum.add_argument("--dry-run", action="store_true", help="say what would be done")


def _lake_init(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lake import init_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    info = init_lake(
        lake_settings_from_env(args.uri or args.lake), actor=_common.actor(args), as_of=_common.now()
    )
    word = "created" if info.created else "already there"
    _common.show(
        args,
        {"lake_id": info.lake_id, "layout_version": info.layout_version, "created": info.created},
        f"lake {info.lake_id} (layout {info.layout_version}): {word}",
    )
    return 0


def _lake_migrate(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lake import migrate_lake
    from airflow_provider_xops.settings import lake_settings_from_env

    info = migrate_lake(lake_settings_from_env(args.lake), actor=_common.actor(args), as_of=_common.now())
    _common.show(
        args,
        {"lake_id": info.lake_id, "layout_version": info.layout_version},
        f"lake {info.lake_id} has layout {info.layout_version}",
    )
    return 0


def _lake_verify(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.read import verify_version
    from airflow_provider_xops.lake.tables import resolve_ref

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    mismatches = verify_version(lake, ref)
    text = (
        f"{ref}: every file matches its digest"
        if not mismatches
        else "\n".join(str(item) for item in mismatches)
    )
    _common.show(args, {"dataset": str(ref), "mismatches": [str(item) for item in mismatches]}, text)
    return 1 if mismatches else 0


def _lake_pins(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.pins import pins

    found = pins(_common.lake(args), args.table)
    lines = [f"{pin.dataset}  {pin.reason}, for {pin.holder}" for pin in found]
    _common.show(args, [pin.to_json() for pin in found], "\n".join(lines) or "nothing is pinned")
    return 0


def _lake_hold(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.pins import pin
    from airflow_provider_xops.lake.tables import resolve_ref

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    ref = resolve_ref(lake, table, version, allow_raw=True)
    record = pin(
        lake, ref, reason=args.reason, holder=args.holder, actor=_common.actor(args), as_of=_common.now()
    )
    _common.show(args, record.to_json(), f"{ref} is pinned: vacuum keeps its files")
    return 0


def _fold(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.maintenance import fold_evidence

    lake = _common.lake(args)
    older_than = _common.now() - timedelta(days=args.older_than_days)
    for kind in [args.kind] if args.kind else sorted(RECORD_TYPES):
        result = fold_evidence(
            lake, kind, older_than=older_than, actor=_common.actor(args), as_of=_common.now()
        )
        print(f"{kind}: {result}")
    return 0


def _compact(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.compaction import compact

    result = compact(
        _common.lake(args),
        args.table,
        partitions=args.partition,
        least_files=args.least_files,
        dry_run=args.dry_run,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    verb = "would become" if result.dry_run else "became"
    _common.show(
        args,
        dataclasses.asdict(result),
        f"{args.table}: {result.files_removed} files of {len(result.partitions)} partitions {verb}"
        f" {result.files_added}, {result.rows} rows",
    )
    return 0


def _vacuum(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.maintenance import vacuum

    result = vacuum(
        _common.lake(args),
        args.table,
        retention=timedelta(days=args.retention_days),
        dry_run=args.dry_run,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    print(f"{args.table}: {result}")
    return 0
