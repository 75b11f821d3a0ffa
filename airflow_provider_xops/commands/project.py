"""`xops init`, `xops demo`: the reference DAGs, to read and to run."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from airflow_provider_xops.commands import _common

__all__ = ["add_parsers", "dags_folder"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    init = add(groups, "init", _init, "Copy the reference DAG files into a folder of your own.")
    init.add_argument("directory")
    init.add_argument("--force", action="store_true")
    demo = add(
        groups, "demo", _demo, "Run the reference loop on real data through a real Airflow on this machine."
    )
    demo.add_argument("--state", default=".xops")
    demo.add_argument(
        "--keep", action=argparse.BooleanOptionalAction, default=True, help="keep serving until Ctrl-C"
    )


def dags_folder() -> Path:
    """Where the reference DAG files are: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "examples" / "dags"
    return shipped if shipped.is_dir() else package.parent / "dags"


def _init(args: argparse.Namespace) -> int:
    target = Path(args.directory)
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(dags_folder().glob("*.py")):
        if (target / source.name).exists() and not args.force:
            print(f"kept    {target / source.name} (--force overwrites)")
            continue
        shutil.copyfile(source, target / source.name)
        print(f"copied  {target / source.name}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from airflow_provider_xops.examples.demo.main import run_demo

    return run_demo(state=Path(args.state), dags=dags_folder(), keep=args.keep)
