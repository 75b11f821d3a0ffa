"""`xops reproduce MODEL VERSION`: train a model version again from its record and compare."""

from __future__ import annotations

import argparse
from typing import Any

from airflow_provider_xops.commands import _common

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the command into the command line."""
    command = add(
        groups,
        "reproduce",
        _reproduce,
        "Train a model version again from its record and compare its predictions on the holdout with the"
        " original's. Exit code 1 beyond the tolerance.",
    )
    command.add_argument("model")
    command.add_argument("version", type=int)
    command.add_argument(
        "--tolerance",
        type=float,
        default=1e-9,
        help="how far a prediction may be apart: absolute up to 1, then relative (default: %(default)g)",
    )


def _reproduce(args: argparse.Namespace) -> int:
    from airflow_provider_xops.records import Outcome
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.training.reproduce import reproduce

    lake = _common.lake(args)
    found = reproduce(
        lake,
        _common.registry(args),
        get_model(lake, args.model, args.version),
        tolerance=args.tolerance,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    apart = "not comparable" if found.max_difference is None else f"{found.max_difference:.3g}"
    lines = [
        f"{found.model}: {found.outcome.value}",
        f"  largest difference of {found.rows:,} predictions: {apart} (tolerance {found.tolerance:g})",
    ]
    if found.labels_changed is not None:
        lines.append(f"  predicted classes that changed: {found.labels_changed:,}")
    if found.message:
        lines.append(f"  {found.message}")
    lines += [f"  {difference}" for difference in found.differences]
    lines.append(f"  record {found.record_id}")
    _common.show(args, found.to_json(), "\n".join(lines))
    return 0 if found.outcome is Outcome.PASSED else 1
