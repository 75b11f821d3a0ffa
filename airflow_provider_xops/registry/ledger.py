"""The promotion ledger: who decided what about which model version, in order, never changed.

For promote, roll back, reconcile and trace. One Delta table for each model, ``_xops/ledger/<slug>``; within a
model one gapless sequence for each alias. An entry is committed under the Delta application transaction
``<model>/<alias>`` at its own sequence number, *through the very handle on which the entry before was read*:
of any number of writers exactly one commits, and the others see it and decide from the new state.

Entries form a hash chain. :func:`verify_chain` finds what was changed, left out or cut off, and nothing is
decided on a chain that is broken.

What it does not do: it does not know MLflow. Aliases there are a projection of this table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from airflow_provider_xops.errors import ConflictError, LakeError, NotFoundError, XOpsError
from airflow_provider_xops.lake._delta import delta_errors
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, PromotionDecision, digest_of
from airflow_provider_xops.registry.ledger_state import MOVING, Draft, LedgerState

__all__ = [
    "Draft",
    "LedgerState",
    "aliases",
    "append",
    "current",
    "entries",
    "models",
    "state",
    "verify_chain",
]

log = logging.getLogger(__name__)

FOLDER = "_xops/ledger"
GENESIS = "0" * 64
# Sixteen racers lose at most fifteen times each; this bounds a broken storage, not a race.
ATTEMPTS = 64
# On a store of objects each file and each commit since the checkpoint is a request of every read.
COMPACT_EVERY = 10
_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("alias", pa.string(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("to_version", pa.int64()),
        pa.field("recorded_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("entry_hash", pa.string(), nullable=False),
        pa.field("entry", pa.string(), nullable=False),
    ]
)
_UNHASHED = frozenset({"entry_hash", "record_id"})


def append(
    lake: Lake,
    model: str,
    alias: str,
    decide: Callable[[LedgerState], Draft | PromotionDecision],
    *,
    actor: Actor,
    as_of: datetime,
) -> tuple[PromotionDecision, bool]:
    """Write the entry that ``decide`` makes of the ledger as it is; of many writers one at a time succeeds.

    :param decide: called with the state read; again with the newer state each time another writer was faster.
        It gives a :class:`Draft` to write, or an existing entry, and then nothing is written.
    :returns: the entry, and whether it was written now.
    :raises ConflictError: ``conflict.ledger``, after many lost races in a row.
    :raises LakeError: ``lake.ledger_broken``: an entry was changed, left out or cut off.
    :raises UnavailableError: the storage did not answer (``unavailable.ledger``).
    """
    for _ in range(ATTEMPTS):
        handle = _open_or_create(lake, model)
        now = _state_of(handle, model, alias)
        chosen = decide(now)
        if isinstance(chosen, PromotionDecision):
            return chosen, False
        entry = _entry(chosen, now, actor, as_of)
        if _commit(handle, entry):
            _compact(handle, entry)
            log.info(
                "Ledger of %s/%s: entry %d, %s (%s).",
                model,
                alias,
                entry.sequence,
                entry.outcome,
                entry.reason,
            )
            return entry, True
    raise ConflictError(
        f"the ledger of {model}/{alias} did not accept an entry in {ATTEMPTS} attempts",
        code="conflict.ledger",
        why="other writers were faster each time",
        todo="run the task again",
    )


def entries(lake: Lake, model: str | None = None, alias: str | None = None) -> list[PromotionDecision]:
    """Ledger entries by model, alias and sequence; of every model and alias unless named."""
    found: list[PromotionDecision] = []
    for slug in [slug_of(model)] if model is not None else _slugs(lake):
        handle = _open(lake, slug)
        if handle is not None:
            found.extend(entry for entry, _ in _read(handle) if alias is None or entry.alias == alias)
    return sorted(found, key=lambda entry: (entry.model, entry.alias, entry.sequence))


def models(lake: Lake) -> list[str]:
    """Names of the models that have a ledger, also where an entry cannot be read."""
    handles = (_open(lake, slug) for slug in _slugs(lake))
    return sorted({row["model"] for handle in handles if handle is not None for row in _rows(handle)})


def aliases(lake: Lake, model: str) -> list[str]:
    """The aliases that a model's ledger has entries on, also where an entry cannot be read."""
    handle = _open(lake, slug_of(model))
    return [] if handle is None else sorted({row["alias"] for row in _rows(handle)})


def state(lake: Lake, model: str, alias: str) -> LedgerState:
    """The ledger of one alias of one model as it is now.

    :raises LakeError: ``lake.ledger_broken``: an entry was changed, left out or cut off.
    """
    handle = _open(lake, slug_of(model))
    return LedgerState(model, alias, ()) if handle is None else _state_of(handle, model, alias)


def current(lake: Lake, model: str, alias: str) -> PromotionDecision | None:
    """The decision that an alias's present version rests on; None if it stands for nothing."""
    return state(lake, model, alias).current


def verify_chain(lake: Lake, model: str, alias: str | None = None) -> list[str]:
    """What is wrong with a model's ledger, one sentence each; empty if nothing is.

    Finds changed entries, missing ones (also at the end: the table's transaction number tells how many there
    were), duplicates, and references to nothing. What it cannot find: a whole table replaced by another one.
    """
    handle = _open(lake, slug_of(model))
    if handle is None:
        return []
    problems = []
    found = []
    named = set() if alias is None else {alias}
    for row in _rows(handle):
        if alias is None:
            named.add(row["alias"])
        try:
            raw = json.loads(row["entry"])
            entry = PromotionDecision.from_json({**raw, "record_id": ""})
        except (XOpsError, ValueError, TypeError):
            problems.append(f"{row['alias']}: entry {row['sequence']} cannot be read")
            continue
        found.append((entry, raw))
        shown = (
            row["model"],
            row["alias"],
            row["sequence"],
            row["outcome"],
            row["to_version"],
            row["entry_hash"],
        )
        said = (model, entry.alias, entry.sequence, str(entry.outcome), entry.to_version, entry.entry_hash)
        if shown != said or entry.model != model:
            problems.append(
                f"{row['alias']}: entry {row['sequence']}'s columns do not say what the entry says"
            )
    for name in sorted(named | ({entry.alias for entry, _ in found} if alias is None else set())):
        chain = sorted((pair for pair in found if pair[0].alias == name), key=lambda pair: pair[0].sequence)
        written = handle.transaction_version(_app_id(model, name)) or 0
        problems += [f"{name}: {problem}" for problem in _chain_problems(chain, written)]
    return problems


def slug_of(model: str) -> str:
    """The folder of a model's ledger: readable, and different for different names.

    >>> slug_of("late flights")
    'late-flights-02be09ac'
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", model).strip("-")[:60]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}".lstrip("-")


def _chain_problems(
    chain: Sequence[tuple[PromotionDecision, Mapping[str, Any]]], written: int
) -> Iterator[str]:
    previous, expected = GENESIS, 1
    known: set[int] = set()
    for entry, raw in chain:
        if entry.sequence != expected:
            yield (
                f"entry {entry.sequence} appears twice"
                if entry.sequence < expected
                else f"entry {expected} is missing"
            )
        if entry.entry_hash != _hash_of(raw):
            yield f"entry {entry.sequence} was changed after it was written"
        if entry.previous_hash != previous:
            yield f"entry {entry.sequence} does not follow the entry before it"
        if entry.decides is not None and entry.decides not in known:
            yield f"entry {entry.sequence} applies entry {entry.decides}, which moved no alias before it"
        if entry.outcome in MOVING:
            known.add(entry.sequence)
        previous, expected = entry.entry_hash, entry.sequence + 1
    if written != expected - 1:
        yield f"{written} entries were written, the last one there is {expected - 1}"


def _entry(draft: Draft, now: LedgerState, actor: Actor, as_of: datetime) -> PromotionDecision:
    head = now.head
    fields: dict[str, Any] = {
        "recorded_at": as_of,
        "produced_by": actor.producer,
        "model": now.model,
        "alias": now.alias,
        "sequence": head.sequence + 1 if head else 1,
        "idempotency_key": actor.idempotency_key,
        "previous_hash": head.entry_hash if head else GENESIS,
        **{name: getattr(draft, name) for name in Draft.__dataclass_fields__},
    }
    unhashed = PromotionDecision(**fields, entry_hash="")
    return PromotionDecision(**fields, entry_hash=_hash_of(unhashed.to_json()))


def _hash_of(entry: Mapping[str, Any]) -> str:
    """Of the entry's JSON *as it was written*: a later reader may know more fields."""
    return digest_of({name: value for name, value in entry.items() if name not in _UNHASHED})


def _commit(handle: DeltaTable, entry: PromotionDecision) -> bool:
    """Commit an entry through the handle it was decided on; False if another writer was faster."""
    row = {
        "model": entry.model,
        "alias": entry.alias,
        "sequence": entry.sequence,
        "outcome": str(entry.outcome),
        "to_version": entry.to_version,
        "recorded_at": entry.recorded_at,
        "entry_hash": entry.entry_hash,
        "entry": json.dumps(entry.to_json(), sort_keys=True),
    }
    properties = CommitProperties(
        custom_metadata={
            "xops": json.dumps({"ledger": _app_id(entry.model, entry.alias), "sequence": entry.sequence})
        },
        app_transactions=[Transaction(_app_id(entry.model, entry.alias), entry.sequence)],
    )
    table = pa.Table.from_pylist([row], schema=_SCHEMA)
    try:
        with delta_errors(f"writing to the ledger of {entry.model}"):
            write_deltalake(handle, table, mode="append", commit_properties=properties)
    except ConflictError:
        log.info(
            "Another writer was faster at entry %d of %s.", entry.sequence, _app_id(entry.model, entry.alias)
        )
        return False
    return True


def _compact(handle: DeltaTable, entry: PromotionDecision) -> None:
    """Merge the files of many entries into one, and the log of many commits: every decision reads them all.

    The rows and their order stay as they are, and so do the log's commits; a killed or lost merge changes
    nothing and is tried again later.
    """
    if entry.sequence % COMPACT_EVERY == 0:
        with contextlib.suppress(XOpsError), delta_errors(f"merging the ledger files of {entry.model}"):
            handle.optimize.compact()
            handle.create_checkpoint()


def _open(lake: Lake, slug: str) -> DeltaTable | None:
    storage = lake.storage
    try:
        with delta_errors(f"opening the ledger {slug}"):
            return DeltaTable(storage.table_uri(f"{FOLDER}/{slug}"), storage_options=storage.delta_options())
    except NotFoundError:
        return None


def _open_or_create(lake: Lake, model: str) -> DeltaTable:
    lake.storage.check_writable()
    slug = slug_of(model)
    handle = _open(lake, slug)
    if handle is not None:
        return handle
    storage = lake.storage
    try:
        with delta_errors(f"making the ledger of {model}"):
            DeltaTable.create(
                storage.table_uri(f"{FOLDER}/{slug}"),
                schema=_SCHEMA,
                mode="error",
                name=f"ledger of {model}",
                # Delta would delete commit information after 30 days.
                configuration={"delta.enableExpiredLogCleanup": "false"},
                storage_options=storage.delta_options(),
                # A retry would make the table a second time, on top of another writer's.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        log.info("Made the promotion ledger of model %s.", model)
    except XOpsError:
        # Another writer may have made it at the same moment; if not, this is the error.
        handle = _open(lake, slug)
        if handle is None:
            raise
        return handle
    return _open_or_create(lake, model)


def _slugs(lake: Lake) -> list[str]:
    prefix = f"{FOLDER}/"
    return sorted({path.removeprefix(prefix).partition("/")[0] for path in lake.storage.list(prefix)})


def _state_of(handle: DeltaTable, model: str, alias: str) -> LedgerState:
    """The entries of one alias, whose chain is whole: a champion, a block or a release that somebody changed
    afterwards is nothing to decide on."""
    mine = [pair for pair in _read(handle) if pair[0].alias == alias]
    mine.sort(key=lambda pair: pair[0].sequence)
    written = handle.transaction_version(_app_id(model, alias)) or 0
    problem = next(_chain_problems(mine, written), None)
    if problem is not None:
        raise LakeError(
            f"the ledger of {model}/{alias} is broken",
            code="lake.ledger_broken",
            why=problem,
            todo=f"run `xops reconcile {model}` and restore the table's earlier version",
        )
    return LedgerState(model, alias, tuple(entry for entry, _ in mine))


def _read(handle: DeltaTable) -> list[tuple[PromotionDecision, Mapping[str, Any]]]:
    """Every entry, and its JSON as it was written."""
    found = []
    for row in _rows(handle):
        try:
            raw = json.loads(row["entry"])
            found.append((PromotionDecision.from_json(raw), raw))
        except (XOpsError, ValueError, AttributeError, TypeError) as error:
            raise LakeError(
                f"the ledger of {row['model']}/{row['alias']} is broken",
                code="lake.ledger_broken",
                why=f"entry {row['sequence']} cannot be read: it was changed after it was written, or a newer"
                " release of this package wrote it",
                todo="update the package; if that is no help, `xops reconcile` says what is wrong",
            ) from error
    return found


def _rows(handle: DeltaTable) -> list[dict[str, Any]]:
    with delta_errors("reading a promotion ledger"):
        rows: list[dict[str, Any]] = handle.to_pyarrow_table().to_pylist()
    return rows


def _app_id(model: str, alias: str) -> str:
    return f"{model}/{alias}"
