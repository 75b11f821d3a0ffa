"""`xops explain` and `xops skew`: why a prediction is what it is; does scoring see what training saw?"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.records import Outcome

if TYPE_CHECKING:
    from airflow_provider_xops.records import SkewFigure
    from airflow_provider_xops.serving.explain import Explanation

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    why = add(groups, "explain", _explain, "Show what each feature added to one prediction (shows its row).")
    why.add_argument("prediction", metavar="PREDICTION_ID")
    why.add_argument(
        "--background",
        type=int,
        default=100,
        metavar="N",
        help="training rows to compare with (default: 100)",
    )
    skew = add(groups, "skew", _skew, "Compare a model's training features with the rows that are scored.")
    skew.add_argument("model")
    skew.add_argument("version", type=int)
    skew.add_argument("--table", help="the scored table (default: the one that was scored last)")
    skew.add_argument(
        "--partitions", type=int, default=7, metavar="N", help="its newest N partitions (default: 7)"
    )
    skew.add_argument(
        "--threshold", type=float, default=0.2, help="a statistic above it fails (default: 0.2)"
    )


def _explain(args: argparse.Namespace) -> int:
    from airflow_provider_xops.serving.explain import explain

    found = explain(_common.lake(args), _common.registry(args), args.prediction, background=args.background)
    _common.show(args, dataclasses.asdict(found), "\n".join(_lines(found)))
    return 1 if found.agrees is False else 0


def _lines(found: Explanation) -> list[str]:
    what = f"probability of {found.output}" if found.output else "predicted number"
    width = max(len(each.feature) for each in found.contributions)
    lines = [
        f"{found.prediction_id}: {found.prediction} by {found.model}, row {found.row} of {found.partition} in"
        f" {found.input}",
        f"{what}: {found.answer:.6g}; mean over {found.background_rows} {found.background}: {found.base:.6g}",
        *(
            f"  {each.feature:<{width}}  {each.contribution:+.6g}  (it is"
            f" {'missing' if each.value is None else each.value})"
            for each in found.contributions
        ),
        "these and the mean sum up to the answer" if found.additive
        else "each: how the answer differs from that without the feature; install the extra explain for parts"
        " that sum up",
        f"method: {found.method}",
    ]  # fmt: skip
    if found.agrees is None:
        lines.append("the written prediction is not there to be compared")
    elif not found.agrees:
        lines.append("PROBLEM: the prediction that was written is another one")
    return lines


def _skew(args: argparse.Namespace) -> int:
    from airflow_provider_xops.evaluation.plan import SkewPlan
    from airflow_provider_xops.evaluation.skew import measure
    from airflow_provider_xops.registry.loading import get_model

    lake = _common.lake(args)
    model = get_model(lake, args.model, args.version)
    plan = SkewPlan(table=args.table, partitions=args.partitions, threshold=args.threshold)
    figures = measure(lake, model, plan)
    failed = [figure for figure in figures if figure.outcome is Outcome.FAILED]
    unknown = sum(figure.outcome is Outcome.NO_DATA for figure in figures)
    told = f"{len(figures)} figures of {len(model.features)} features: {len(failed)} failed"
    lines = [
        told + (f", {unknown} without data" if unknown else ""),
        *(_line(figure) for figure in figures),
    ]
    data = {
        "model": str(model.ref),
        "failed": len(failed),
        "no_data": unknown,
        "figures": [dataclasses.asdict(figure) for figure in figures],
    }
    _common.show(args, data, "\n".join(lines))
    # What could not be measured is not known to be alike.
    return 1 if failed or unknown else 0


def _line(figure: SkewFigure) -> str:
    value = "-" if figure.statistic is None else f"{figure.statistic:.4f}"
    why = f"  {figure.message}" if figure.message else ""
    return f"  {figure.outcome.value:<7}  {figure.feature}: {figure.method} {value}{why}"
