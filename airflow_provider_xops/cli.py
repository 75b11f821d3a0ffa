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

from airflow_provider_xops import __version__
from airflow_provider_xops.commands import (
    adopt,
    card,
    charts,
    deploy,
    evidence,
    gates,
    lake,
    model,
    profile,
    project,
    quality,
    quarantine,
    reproduce,
    responsible,
    score,
    serve,
    variants,
)
from airflow_provider_xops.errors import XOpsError

__all__ = ["main"]

# One module a subject, in the order that --help shows.
ROOMS = (
    lake, quality, quarantine, profile, charts, evidence, adopt, model, gates, card, reproduce, responsible,
    score, serve, deploy, variants, project,
)  # fmt: skip


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

    for room in ROOMS:
        room.add_parsers(groups, add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
