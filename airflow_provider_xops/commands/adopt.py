"""`xops adopt ...`, `xops record-training`: take what exists, or was made elsewhere, into the chain."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    adopt = groups.add_parser("adopt", help="take what exists into the chain").add_subparsers(
        required=True, metavar="WHAT"
    )
    table = add(
        adopt, "table", _adopt_table, "Take an existing Delta table into the lake without copying it."
    )
    table.add_argument("uri")
    table.add_argument("--table", required=True, metavar="NAME")
    model = add(adopt, "model", _adopt_model, "Take an existing MLflow model version or run into the chain.")
    model.add_argument("model")
    which = model.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", type=int)
    which.add_argument("--run-id")
    model.add_argument(
        "--trust", action="append", default=[], metavar="TYPE", help="a type the model file may load"
    )
    record = add(
        groups,
        "record-training",
        _record_training,
        "Record a training that ran elsewhere (JSON file, or - for standard input).",
    )
    record.add_argument("file")
    add(groups, "training-schema", _training_schema, "Print the JSON Schema that record-training accepts.")


def _adopt_table(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.adopt import adopt_table

    record = adopt_table(
        _common.lake(args), args.uri, table=args.table, actor=_common.actor(args), as_of=_common.now()
    )
    _common.show(
        args, record.to_json(), f"adopted as {record.ref}: {record.total_rows:,} rows, digest {record.digest}"
    )
    return 0


def _adopt_model(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.adopt import adopt_model

    model = adopt_model(
        _common.lake(args),
        _common.registry(args),
        name=args.model,
        version=args.version,
        run_id=args.run_id,
        trust=args.trust,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    _common.show(args, model.to_json(), f"adopted {model.ref}: artifact digest {model.artifact_digest}")
    return 0


def _record_training(args: argparse.Namespace) -> int:
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
    model = record_training(
        _common.lake(args), _common.registry(args), payload, actor=_common.actor(args), as_of=_common.now()
    )
    _common.show(args, model.to_json(), f"recorded {model.ref}: artifact digest {model.artifact_digest}")
    return 0


def _training_schema(args: argparse.Namespace) -> int:
    from airflow_provider_xops.registry.adopt import TRAINING_SCHEMA

    print(json.dumps(TRAINING_SCHEMA, indent=2))
    return 0
