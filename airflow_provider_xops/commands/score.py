"""`xops score` and `xops join-labels`: predictions of a past range, and labels for predictions."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import ArgumentError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import DatasetRef
    from airflow_provider_xops.serving.back_scoring import PlannedScoring

__all__ = ["add_parsers"]


def add_parsers(groups: Any, add: _common.Add) -> None:
    """Put the commands of this module into the command line."""
    score = add(
        groups,
        "score",
        _score,
        "Score partitions of a table, each exactly once. The predictions are marked as made afterwards,"
        " unless --production says that they are to be used.",
    )
    score.add_argument("model")
    which = score.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="default: the champion")
    which.add_argument(
        "--champion-of-the-day", action="store_true", help="each day by the version that was champion then"
    )
    score.add_argument("--alias", default="champion")
    score.add_argument("--table", required=True, metavar="TABLE[@VERSION]", help="what is scored")
    score.add_argument("--output", required=True, metavar="TABLE", help="where the predictions go")
    score.add_argument(
        "--range", metavar="A..B", help="days, first and last; or one partition (default: all of the version)"
    )
    score.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="input columns that go along")
    score.add_argument(
        "--reasons", type=int, default=0, metavar="N", help="the N features that moved each prediction most"
    )
    score.add_argument(
        "--batch-rows", type=int, default=50_000, metavar="ROWS", help="of a batch; two are in memory"
    )
    score.add_argument("--time-zone", default="UTC", help="of the days, for --champion-of-the-day")
    score.add_argument("--skip-days-without", action="store_true", help="leave out days that had no champion")
    score.add_argument("--production", action="store_true", help="predictions that are made to be used")
    score.add_argument("--dry-run", action="store_true", help="say what would be done")

    join = add(
        groups, "join-labels", _join, "Give predictions the labels that have arrived since, exactly once."
    )
    join.add_argument("predictions", metavar="PREDICTIONS[@VERSION]")
    join.add_argument("labels", metavar="LABELS[@VERSION]")
    join.add_argument("--label", required=True, metavar="COLUMN", help="the label, in the table of labels")
    join.add_argument("--output", required=True, metavar="TABLE", help="where labeled predictions go")
    join.add_argument(
        "--on", nargs="+", default=["prediction_id"], metavar="COLUMN", help="default: prediction_id"
    )
    join.add_argument("--range", metavar="A..B", help="partitions of the predictions (default: all)")
    join.add_argument("--newest-by", metavar="COLUMN", help="which of several labels of one key counts")
    join.add_argument("--label-as", default="label", metavar="NAME", help="what it is called in the output")
    join.add_argument(
        "--any-partition", action="store_true", help="a label may be in another partition than its prediction"
    )


def _score(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.tables import resolve_ref

    lake = _common.lake(args)
    table, version = _common.table_at(args.table)
    dataset = resolve_ref(lake, table, version)
    plan, without = _planned(args, lake, dataset)
    told = [
        {"model": str(each.model.ref), "partitions": len(each.partitions), "first": each.partitions[0],
         "last": each.partitions[-1]}
        for each in plan
    ]  # fmt: skip
    lines = [
        f"{each['model']}: {each['partitions']} partition(s), {each['first']} to {each['last']}"
        for each in told
    ]
    if without:
        lines.append(
            f"left out, without a {args.alias}: {len(without)} day(s), {without[0]} to {without[-1]}"
        )
    if args.dry_run:
        said = {"dry_run": True, "dataset": str(dataset), "plan": told, "without": list(without)}
        _common.show(args, said, "\n".join(["would score", *lines, "nothing written"]))
        return 0
    return _carry_out(args, lake, dataset, plan, without, lines)


def _carry_out(
    args: argparse.Namespace, lake: Lake, dataset: DatasetRef, plan: list[PlannedScoring],
    without: tuple[str, ...], lines: list[str],
) -> int:  # fmt: skip
    from airflow_provider_xops.serving.back_scoring import BackScored, back_score
    from airflow_provider_xops.serving.batch import ProgressLines, score

    arguments: dict[str, Any] = {
        "dataset": dataset, "output_table": args.output, "keep_columns": args.keep,
        "batch_rows": args.batch_rows, "reasons": args.reasons,
        "progress": ProgressLines(lambda line: print(line, file=sys.stderr), clock=time.monotonic),
        "actor": _common.actor(args), "as_of": _common.now(),
    }  # fmt: skip
    client = _common.registry(args)
    if args.production:
        one = plan[0]
        result = score(lake, client, model=one.model, partitions=one.partitions, **arguments)
        done = BackScored(scored=((one.model, result),))
    else:
        done = back_score(lake, client, plan=plan, without=without, **arguments)
    newest = max((result.dataset_out for _, result in done.scored), key=lambda record: record.version)
    word = "had been scored before" if done.reused else "scored"
    _common.show(
        args,
        {
            "dataset_out": str(newest.ref), "rows": done.rows, "reused": done.reused,
            "purpose": "production" if args.production else "back_scoring", "without": list(without),
            "models": [str(model.ref) for model, _ in done.scored],
            "scoring_runs": [run.record_id for _, result in done.scored for run in result.runs],
        },
        "\n".join([*lines, f"{done.rows:,} rows {word}: {newest.ref}"]),
    )  # fmt: skip
    return 0


def _planned(
    args: argparse.Namespace, lake: Lake, dataset: DatasetRef
) -> tuple[list[PlannedScoring], tuple[str, ...]]:
    from airflow_provider_xops.registry.loading import resolve_model
    from airflow_provider_xops.serving.back_scoring import PlannedScoring, plan_with_champions
    from airflow_provider_xops.serving.batch import rows_to_score

    chosen = list(rows_to_score(lake, dataset, _partitions(args.range)))
    if args.champion_of_the_day:
        if args.production:
            raise ArgumentError(
                "what the champion of each day says is made afterwards", code="argument.purpose",
                todo="leave --production out, or name a version",
            )  # fmt: skip
        return plan_with_champions(
            lake, model_name=args.model, alias=args.alias, dataset=dataset, partitions=chosen,
            time_zone=args.time_zone, on_no_champion="skip" if args.skip_days_without else "fail",
        )  # fmt: skip
    model = resolve_model(lake, args.model, alias=args.alias, version=args.version)
    if model is None:
        raise NotFoundError(
            f"{args.model} has no {args.alias}", code="not_found.champion", why="no version was promoted yet",
            todo="name one with --version",
        )  # fmt: skip
    return [PlannedScoring(model=model, partitions=tuple(chosen))], ()


def _join(args: argparse.Namespace) -> int:
    from airflow_provider_xops.lake.tables import resolve_ref
    from airflow_provider_xops.serving.labels import join_labels

    lake = _common.lake(args)
    predictions, labels = (
        resolve_ref(lake, *_common.table_at(text)) for text in (args.predictions, args.labels)
    )
    result = join_labels(
        lake,
        predictions=predictions,
        labels=labels,
        label_column=args.label,
        output_table=args.output,
        on=args.on,
        partitions=_partitions(args.range),
        same_partition=False if args.any_partition else None,
        newest_by=args.newest_by,
        label_as=args.label_as,
        actor=_common.actor(args),
        as_of=_common.now(),
    )
    _common.show(
        args,
        {
            "dataset_out": str(result.dataset_out.ref), "joined": result.joined, "waiting": result.waiting,
            "unmatched": result.unmatched, "reused": result.reused,
            "label_joins": [record.to_json() for record in result.joins],
        },
        f"{result.dataset_out.ref}{' (nothing new)' if result.reused else ''}: {result.joined:,} predictions"
        f" have their label, {result.waiting:,} wait; {result.unmatched:,} labels are of no prediction",
    )  # fmt: skip
    return 0


def _partitions(given: str | None) -> tuple[str, ...] | None:
    from airflow_provider_xops.data.ingest import expand_partitions

    return None if given is None else expand_partitions(given)
