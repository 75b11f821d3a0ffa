"""`xops trace`, `xops show`, `xops schema`: what the lake knows, and in which form."""

from __future__ import annotations

import argparse
import json
from typing import Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.records import RECORD_TYPES, json_schema

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    shown = add(groups, "show", _show, "Print one evidence record.")
    shown.add_argument("kind", choices=sorted(RECORD_TYPES))
    shown.add_argument("record_id")
    chain = add(
        groups, "trace", _trace, "Print the chain of a prediction, a model version or a dataset version."
    )
    chain.add_argument("subject", metavar="SUBJECT", help="a prediction id, MODEL/VERSION or TABLE@VERSION")
    chain.add_argument("--full", action="store_true", help="leave nothing out")
    add(groups, "schema", _schema, "Print the JSON Schema of a record kind.").add_argument(
        "kind", choices=sorted(RECORD_TYPES)
    )


def _show(args: argparse.Namespace) -> int:
    print(json.dumps(_common.lake(args).evidence.get(args.kind, args.record_id).to_json(), indent=2))
    return 0


def _trace(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.lineage import render, trace
    from airflow_provider_xops.registry.ledger import entries

    lake = _common.lake(args)
    found = trace(lake, args.subject, decisions=entries(lake))
    _common.show(args, found.to_json(), render(found, full=args.full, limit=0 if args.full else 3))
    return 0


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(json_schema(args.kind), indent=2))
    return 0
