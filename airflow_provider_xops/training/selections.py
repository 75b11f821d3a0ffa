"""Rows of a dataset version: chosen, named so that they can be chosen again, and proved to be the same.

For training (which rows trained, which were held out), evaluation (challenger and champion on the same
holdout) and the leak gate (has either model seen these rows?). A selection holds no rows: it holds the
dataset version, the rule and the digest of exactly the rows it means. Reading it again verifies the digest.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, DataError, TrainingError, XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.digest import table_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.records import DatasetRef, Selection, digest_of
from airflow_provider_xops.training.frames import has_target
from airflow_provider_xops.training.splits import Split, random_order, split_from

__all__ = ["Chosen", "choose", "materialize", "overlap", "whole"]

log = logging.getLogger(__name__)

TRAINING, HOLDOUT = "training", "holdout"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The two sides of a split: their rows, and the selections that name them."""

    training: Selection
    training_rows: pa.Table
    holdout: Selection
    holdout_rows: pa.Table


@dataclass(frozen=True)
class SideRows:
    """Rows of one side: the table, and where each row lies (its partition, its position there, and its
    position in a scan of everything that was read)."""

    table: pa.Table
    partitions: Any
    positions: Any
    scanned: Any


def choose(
    lake: Lake,
    *,
    dataset: DatasetRef,
    partitions: Sequence[str] | None,
    columns: Sequence[str],
    target: str,
    split: Split,
    sample: float | None = None,
    seed: int = 0,
    extra: Sequence[str] = (),
) -> Chosen:
    """Split a dataset version into training and holdout rows. Rows without a target belong to neither.

    :param partitions: what is read; None: all of the version.
    :param columns: the columns whose rows and digest are meant, the target among them.
    :param sample: at most so many training rows (or that fraction, below 1), chosen by ``seed``; the
        holdout is whole.
    :param extra: columns that are read beside these and take no part in the digest.
    :raises TrainingError: ``training.split`` (the rule fits not), ``training.empty`` (a side has no rows),
        ``training.no_target`` (no such column, or no row has it).

    >>> chosen = choose(lake, dataset=ref, partitions=None, columns=["x", "y"], target="y",
    ...                 split=RandomSplit(fraction=0.2))  # doctest: +SKIP
    """
    rule = split_rule(
        lake, dataset, partitions=partitions, columns=columns, target=target, split=split, sample=sample,
        seed=seed,
    )  # fmt: skip
    sides, intervals = sides_of(lake, dataset, rule, [*columns, *extra])
    made = {}
    for side, rows in sides.items():
        refuse_empty(dataset, side, rows, split)
        digest = table_digest(rows.table.select(rule["columns"]).to_reader())
        made[side] = selection_from(dataset, rows, {**rule, "side": side}, intervals.get(side, ""), digest)
    log.info("Chose %d training and %d holdout rows of %s.", made[TRAINING].rows, made[HOLDOUT].rows, dataset)
    return Chosen(
        training=made[TRAINING], training_rows=sides[TRAINING].table,
        holdout=made[HOLDOUT], holdout_rows=sides[HOLDOUT].table,
    )  # fmt: skip


def split_rule(
    lake: Lake,
    dataset: DatasetRef,
    *,
    partitions: Sequence[str] | None,
    columns: Sequence[str],
    target: str,
    split: Split,
    sample: float | None,
    seed: int,
) -> dict[str, Any]:
    """What a selection keeps of how its rows were chosen; all but its side."""
    if sample is not None and (not 0 < sample < math.inf or sample == 1):
        raise ArgumentError(
            f"a sample of {sample} is impossible", code="argument.sample",
            why="it is a number of rows, two or more, or below 1 a fraction of them",
            todo="correct it, or leave it out to learn from all rows",
        )  # fmt: skip
    return {
        "read": named_partitions(lake, dataset, partitions), "split": split.to_json(), "target": target,
        "columns": list(columns), "sample": sample, "seed": seed,
    }  # fmt: skip


def refuse_empty(dataset: DatasetRef, side: str, rows: SideRows, split: Split) -> None:
    """:raises TrainingError: ``training.empty``: a side of the split has no rows."""
    if not rows.table.num_rows:
        raise TrainingError(
            f"the {side} side of {dataset} has no rows", code="training.empty",
            why=f"the split {json.dumps(split.to_json())} left none of the rows that have a target",
            todo="read more partitions, or change the split",
        )  # fmt: skip


def whole(
    lake: Lake,
    *,
    dataset: DatasetRef,
    partitions: Sequence[str] | None,
    columns: Sequence[str],
    target: str | None = None,
) -> Selection:
    """All rows of some partitions (with a ``target``: those that have one), as a holdout of one's own choice.

    :raises TrainingError: ``training.empty`` when there are none.
    """
    rule = {
        "read": named_partitions(lake, dataset, partitions),
        "target": target,
        "columns": list(columns),
        "side": "all",
    }
    rows = sides_of(lake, dataset, rule, list(columns))[0]["all"]
    if not rows.table.num_rows:
        raise TrainingError(
            f"no rows of {dataset} are selected", code="training.empty",
            why="the partitions have no rows with a target", todo="name partitions that have labeled rows",
        )  # fmt: skip
    digest = table_digest(rows.table.select(list(columns)).to_reader())
    return selection_from(dataset, rows, rule, "", digest)


def materialize(lake: Lake, selection: Selection, *, columns: Sequence[str]) -> pa.Table:
    """The selection's rows, with ``columns``, in canonical order; proved to be the rows it was made of.

    :param columns: of the dataset; the partition column gives the partition of each row.
    :raises DataError: ``data.selection_changed`` when the rows read have another number or digest;
        ``data.columns_missing`` when a column is not there.
    """
    rule = rule_of(selection)
    digested = list(rule.get("columns", ()))
    wanted = [name for name in dict.fromkeys([*digested, *columns]) if name != PARTITION_COLUMN]
    rows = sides_of(lake, selection.dataset, rule, wanted)[0][rule["side"]].table
    digest = table_digest(rows.select(digested).to_reader()) if digested else selection.digest
    refuse_changed(selection, rows.num_rows, digest)
    return rows.select(list(columns))


def refuse_changed(selection: Selection, rows: int, digest: str) -> None:
    """:raises DataError: ``data.selection_changed``: other rows were read than the selection recorded."""
    if rows != selection.rows or digest != selection.digest:
        raise DataError(
            f"the rows selected from {selection.dataset} are not those that were recorded",
            code="data.selection_changed",
            why=f"{rows} rows were read, {selection.rows} are recorded"
            if rows != selection.rows
            else "their digest is another one",
            todo=f"check the table with `xops lake verify {selection.dataset}`",
            context={"recorded_digest": selection.digest, "read_digest": digest},
        )


def overlap(lake: Lake, one: Selection, other: Selection) -> int:
    """How many rows two selections share.

    Rows are the same when they lie in the same place of a partition with the same content. Where a
    partition's content differs between the two versions, rows cannot be told apart by place, so all of the
    smaller side count: a corrected file holds mostly the same rows.
    """
    if one.dataset.table_uuid != other.dataset.table_uuid:
        return 0
    common = sorted(set(one.partitions) & set(other.partitions))
    if not common:
        return 0
    mine, theirs = _places(lake, one), _places(lake, other)
    digests = [read.partition_digests(lake, selection.dataset) for selection in (one, other)]
    shared = 0
    for partition in common:
        here, there = mine.get(partition, _NOWHERE), theirs.get(partition, _NOWHERE)
        if digests[0].get(partition) == digests[1].get(partition):
            shared += len(np.intersect1d(here, there, assume_unique=True))
        else:
            shared += min(len(here), len(there))
    return shared


_NOWHERE = np.zeros(0, dtype=np.int64)


def _places(lake: Lake, selection: Selection) -> dict[str, Any]:
    rule = rule_of(selection)
    rows = sides_of(lake, selection.dataset, rule, [])[0][rule["side"]]
    names, codes = np.unique(rows.partitions, return_inverse=True)
    return {str(name): rows.positions[codes == code] for code, name in enumerate(names)}


def rule_of(selection: Selection) -> dict[str, Any]:
    """How the rows of a selection were chosen."""
    if not selection.rule:
        return {"read": list(selection.partitions), "target": None, "side": "all"}
    rule: dict[str, Any] = json.loads(selection.rule)
    return rule


def named_partitions(lake: Lake, dataset: DatasetRef, partitions: Sequence[str] | None) -> Any:
    """The partitions as the rule keeps them: None (all), first and last of an unbroken range, or a list."""
    if partitions is None:
        return None
    there = sorted(read.partitions(lake, dataset))
    chosen = sorted(set(partitions))
    missing = [name for name in chosen if name not in set(there)]
    if missing:
        raise TrainingError(
            f"{dataset} has no partition {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
            code="training.partitions",
            why=f"{len(missing)} of {len(chosen)} partitions asked for are not there",
            todo="name partitions that were published, or wait for them",
        )
    if chosen == there:
        return None
    start = there.index(chosen[0]) if chosen else 0
    if len(chosen) > 2 and there[start : start + len(chosen)] == chosen:
        return {"from": chosen[0], "to": chosen[-1]}
    return chosen


def partitions_read(lake: Lake, dataset: DatasetRef, named: Any) -> list[str] | None:
    """The partitions that a rule's ``read`` stands for; None: all."""
    if isinstance(named, Mapping):
        return [
            name for name in sorted(read.partitions(lake, dataset)) if named["from"] <= name <= named["to"]
        ]
    return None if named is None else list(named)


def sides_of(
    lake: Lake, dataset: DatasetRef, rule: Mapping[str, Any], columns: Sequence[str]
) -> tuple[dict[str, SideRows], dict[str, str]]:
    """Apply a rule, reading these columns: the rows of each of its sides, and their time intervals if any."""
    target = rule.get("target")
    split = split_from(rule["split"]) if rule.get("split") else None
    wanted = list(dict.fromkeys([*columns, *([target] if target else []), *(split.columns if split else ())]))
    partitions = partitions_read(lake, dataset, rule["read"])
    table = _scan(lake, dataset, partitions, wanted, target)
    names = np.asarray(table.column(PARTITION_COLUMN).to_pandas(), dtype=object)
    rows = SideRows(table, names, _positions(names), np.arange(table.num_rows))
    if target:
        rows = _take(rows, has_target(table, target))
        if table.num_rows and not rows.table.num_rows:
            raise TrainingError(
                f"no row of {dataset} has the target {target!r}", code="training.no_target",
                why=f"all {table.num_rows} rows read are without it",
                todo="wait for the labels, or read other partitions",
            )  # fmt: skip
        if rows.table.num_rows < table.num_rows:
            left_out = table.num_rows - rows.table.num_rows
            log.info("%d of %d rows have no target and are left out.", left_out, table.num_rows)
    if split is None:
        return {"all": rows}, {}
    train, holdout = split.masks(rows.table, rows.table.column(PARTITION_COLUMN))
    times = split.intervals(rows.table) if rows.table.num_rows else None
    train = sampled(train, rule.get("sample"), rule.get("seed", 0))
    sides = {TRAINING: _take(rows, train), HOLDOUT: _take(rows, holdout)}
    return sides, dict(zip(sides, times, strict=True)) if times else {}


def _scan(
    lake: Lake, dataset: DatasetRef, partitions: Sequence[str] | None, columns: list[str], target: str | None
) -> pa.Table:
    names = read.schema_of(lake, dataset).names
    missing = [name for name in columns if name not in names]
    if missing:
        kind: type[XOpsError] = DataError
        code = "data.columns_missing"
        if missing == [target]:
            kind, code = TrainingError, "training.no_target"
        raise kind(
            f"{dataset} has no column {', '.join(missing)}", code=code,
            why=f"its columns are {', '.join(names)}", todo="name columns of the dataset",
        )  # fmt: skip
    return read.scan(lake, dataset, partitions=partitions, columns=columns, with_partition=True).read_all()


def _positions(names: Any) -> Any:
    """Each row's place in its partition; a scan gives whole partitions one after the other."""
    count = len(names)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if count else np.zeros(0, dtype=np.int64)
    return np.arange(count) - np.repeat(starts, np.diff(np.r_[starts, count]))


def _take(rows: SideRows, mask: Any) -> SideRows:
    if mask.all():
        return rows
    return SideRows(
        rows.table.filter(pa.array(mask)), rows.partitions[mask], rows.positions[mask], rows.scanned[mask]
    )


def sampled(mask: Any, sample: float | None, seed: int) -> Any:
    """The mask with at most ``sample`` rows left (below 1: that fraction).

    Of one seed, a smaller sample is a part of a larger one.
    """
    chosen = np.flatnonzero(mask)
    if sample is None:
        return mask
    size = max(1, round(sample * len(chosen))) if sample < 1 else int(sample)
    if size >= len(chosen):
        return mask
    fewer = np.zeros_like(mask)
    fewer[chosen[random_order(len(chosen), seed)[:size]]] = True
    return fewer


def selection_from(
    dataset: DatasetRef, rows: SideRows, rule: Mapping[str, Any], description: str, digest: str
) -> Selection:
    """The selection of these rows, whose digest over the rule's columns is known."""
    names, counts = np.unique(rows.partitions.astype(str), return_counts=True)
    places = [[str(name), int(count)] for name, count in zip(names, counts, strict=True)]
    return Selection(
        dataset=dataset, partitions=tuple(str(name) for name in names), rows=rows.table.num_rows,
        digest=digest,
        row_ids_digest=digest_of([places, table_digest(pa.table({"position": rows.positions}).to_reader())]),
        description=description, rule=json.dumps({**rule}, sort_keys=True, separators=(",", ":")),
    )  # fmt: skip
