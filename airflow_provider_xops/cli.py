"""`xops`: the loop from a shell, without Airflow.

For people on call, auditors and CI. Every command that changes something prints the idempotency key it acted
under and takes it back with ``--key``: the same key twice is the same act once. Destructive commands have
``--dry-run``. Exit code 0: done; 1: refused or failed, with the reason on standard error; 2: bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_xops import __version__, commands
from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.records import RECORD_TYPES

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    >>> main(["schema", "pins"]) # doctest: +ELLIPSIS
    {...}
    0
    """
    args = _parser().parse_args(argv)
    try:
        result: int = args.run(args)
    except XOpsError as error:
        if getattr(args, "json", False):
            print(json.dumps({"error": error.to_json()}, indent=2), file=sys.stderr)
        else:
            print(f"xops: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone: keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xops", description="Data to a trusted model in production, and back."
    )
    parser.add_argument("--version", action="version", version=f"xops {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--lake", metavar="URI", help="the lake (default: $XOPS_LAKE_URI)")
    common.add_argument(
        "--mlflow", metavar="URI", help="MLflow tracking server (default: $XOPS_MLFLOW_TRACKING_URI)"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--key", help="idempotency key of an earlier call, to repeat exactly that act")
    groups = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        group: Any, name: str, run: Callable[[argparse.Namespace], int], help_text: str
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = group.add_parser(
            name, parents=[common], help=help_text, description=help_text
        )
        made.set_defaults(run=run)
        return made

    lake = groups.add_parser("lake", help="create, migrate or verify a lake").add_subparsers(
        required=True, metavar="ACTION"
    )
    add(lake, "init", commands.lake_init, "Create a lake; an existing one is left as it is.").add_argument(
        "uri", nargs="?"
    )
    add(lake, "migrate", commands.lake_migrate, "Bring a lake to this version's layout.")
    add(
        lake, "verify", commands.lake_verify, "Read a version's files again and compare their digests."
    ).add_argument("table", metavar="TABLE[@VERSION]")

    add(lake, "pins", commands.lake_pins, "List the versions that vacuum keeps, and for whom.").add_argument(
        "table", nargs="?"
    )
    hold = add(lake, "hold", commands.lake_hold, "Keep a version's files whatever happens (a legal hold).")
    hold.add_argument("table", metavar="TABLE[@VERSION]")
    hold.add_argument("--reason", default="legal hold")
    hold.add_argument("--holder", required=True, help="for whom: a case number, a person, a contract")

    shown = add(groups, "show", commands.show, "Print one evidence record.")
    shown.add_argument("kind", choices=sorted(RECORD_TYPES))
    shown.add_argument("record_id")
    chain_help = "Print the chain of a prediction, a model version or a dataset version."
    chain = add(groups, "trace", commands.trace, chain_help)
    chain.add_argument("subject", metavar="SUBJECT", help="a prediction id, MODEL/VERSION or TABLE@VERSION")
    chain.add_argument("--full", action="store_true", help="leave nothing out")
    add(groups, "schema", commands.schema, "Print the JSON Schema of a record kind.").add_argument(
        "kind", choices=sorted(RECORD_TYPES)
    )
    validate = add(groups, "validate", commands.validate, "Run an expectation suite over a dataset version.")
    validate.add_argument("table", metavar="TABLE[@VERSION]")
    validate.add_argument("--suite", required=True, help="package.module:function, or a .json or .yaml file")
    validate.add_argument("--partition", help="2013-04-01 or 2013-01-01..2013-03-31 (default: all)")

    adopt = groups.add_parser("adopt", help="take what exists into the chain").add_subparsers(
        required=True, metavar="WHAT"
    )
    table = add(
        adopt, "table", commands.adopt_table, "Take an existing Delta table into the lake without copying it."
    )
    table.add_argument("uri")
    table.add_argument("--table", required=True, metavar="NAME")
    model = add(
        adopt, "model", commands.adopt_model, "Take an existing MLflow model version or run into the chain."
    )
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
        commands.record_training,
        "Record a training that ran elsewhere (JSON file, or - for standard input).",
    )
    record.add_argument("file")
    add(
        groups,
        "training-schema",
        commands.training_schema,
        "Print the JSON Schema that record-training accepts.",
    )

    promote = add(groups, "promote", commands.promote, "Decide on a model version by its evaluation's gates.")
    promote.add_argument("model")
    promote.add_argument("version", type=int)
    promote.add_argument(
        "--evaluation", metavar="RECORD_ID", help="default: the newest evaluation of this version"
    )
    back = add(
        groups,
        "rollback",
        commands.rollback,
        "Put the previous champion, or a named version, back in service.",
    )
    back.add_argument("model")
    back.add_argument("--to", type=int, metavar="VERSION")
    free = add(groups, "release", commands.release, "Unblock a version that was rolled back from.")
    free.add_argument("model")
    free.add_argument("version", type=int)
    mend = add(
        groups,
        "reconcile",
        commands.reconcile,
        "Compare MLflow's aliases with the ledger; apply what was decided.",
    )
    mend.add_argument("model")
    past = add(
        groups, "history", commands.history, "Print a model's promotion ledger and check its hash chain."
    )
    past.add_argument("model")
    for made in (promote, back, free):
        made.add_argument("--alias", default="champion")
    for made in (mend, past):
        made.add_argument("--alias", default=None)
    for made in (back, free):
        made.add_argument("--reason", required=True, help="kept in the ledger")

    fold = add(groups, "fold", commands.fold, "Fold old evidence objects into Delta tables.")
    fold.add_argument("--kind", choices=sorted(RECORD_TYPES))
    fold.add_argument("--older-than-days", type=float, default=1.0)
    vacuum = add(groups, "vacuum", commands.vacuum, "Delete data files that no kept or pinned version needs.")
    vacuum.add_argument("table")
    vacuum.add_argument("--retention-days", type=float, default=30.0)
    for made in (promote, back, mend, vacuum):
        made.add_argument("--dry-run", action="store_true", help="say what would be done")

    init = add(groups, "init", commands.init, "Copy the reference DAG files into a folder of your own.")
    init.add_argument("directory")
    init.add_argument("--force", action="store_true")
    demo = add(
        groups,
        "demo",
        commands.demo,
        "Run the reference loop on real data through a real Airflow on this machine.",
    )
    demo.add_argument("--state", default=".xops")
    demo.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=True, help="keep serving until Ctrl-C"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
