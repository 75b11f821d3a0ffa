"""The promotion ledger: gapless, chained, one winner at a time, and tampering shows."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.settings import LakeSettings
from tests.unit.registry.builders import AS_OF, an_actor

PROMOTED, APPLIED = PromotionOutcome.PROMOTED, PromotionOutcome.APPLIED
NOMINATED, RETIRED = PromotionOutcome.NOMINATED, PromotionOutcome.RETIRED
ROLLED_BACK, RELEASED, HELD = PromotionOutcome.ROLLED_BACK, PromotionOutcome.RELEASED, PromotionOutcome.HELD


def write(
    lake: Lake, outcome: PromotionOutcome, version: int | None = None, *, alias: str = "champion", **more
) -> PromotionDecision:
    """Append one entry, whatever is there."""

    def decide(now: LedgerState) -> Draft:
        return Draft(
            outcome=outcome,
            reason="because",
            to_version=version,
            to_created_at_ms=None if version is None else version,
            from_version=now.current_version,
            **more,
        )

    return ledger.append(lake, "late", alias, decide, actor=an_actor(more.pop("key", "k")), as_of=AS_OF)[0]


def table_of(lake: Lake) -> DeltaTable:
    return DeltaTable(lake.storage.table_uri(f"{ledger.FOLDER}/{ledger.slug_of('late')}"))


def rewrite(lake: Lake, rows: list[dict]) -> None:
    """What somebody with access to the storage can do: replace the rows, keeping the transactions."""
    write_deltalake(table_of(lake), pa.Table.from_pylist(rows, schema=ledger._SCHEMA), mode="overwrite")


def rows_of(lake: Lake) -> list[dict]:
    return sorted(
        table_of(lake).to_pyarrow_table().to_pylist(), key=lambda row: (row["alias"], row["sequence"])
    )


def test_an_empty_ledger_has_no_champion_and_no_problems(lake: Lake) -> None:
    assert ledger.current(lake, "late", "champion") is None
    assert ledger.entries(lake) == []
    assert ledger.verify_chain(lake, "late") == []


def test_entries_are_numbered_for_each_alias_and_chained(lake: Lake) -> None:
    first, second = write(lake, PROMOTED, 1), write(lake, APPLIED, 1, decides=1)
    other = write(lake, PROMOTED, 1, alias="canary")

    assert [first.sequence, second.sequence, other.sequence] == [1, 2, 1]
    assert first.previous_hash == other.previous_hash == ledger.GENESIS
    assert second.previous_hash == first.entry_hash
    assert ledger.entries(lake, "late") == [other, first, second]
    assert ledger.models(lake) == ["late"]
    assert ledger.verify_chain(lake, "late") == []


def test_decide_is_asked_again_when_another_writer_was_faster(lake: Lake) -> None:
    write(lake, PROMOTED, 1)
    seen: list[int | None] = []

    def decide(now: LedgerState) -> Draft:
        seen.append(now.current_version)
        if len(seen) == 1:
            write(lake, PROMOTED, 2)  # between our read and our commit
        return Draft(outcome=HELD if now.current_version != 1 else PROMOTED, reason="r", to_version=3)

    entry, written = ledger.append(lake, "late", "champion", decide, actor=an_actor(), as_of=AS_OF)

    assert seen == [1, 2]
    assert (entry.sequence, entry.outcome, written) == (3, HELD, True)
    assert ledger.current(lake, "late", "champion").to_version == 2


def test_decide_may_give_an_existing_entry_and_nothing_is_written(lake: Lake) -> None:
    first = write(lake, PROMOTED, 1)

    entry, written = ledger.append(
        lake, "late", "champion", lambda now: now.entries[0], actor=an_actor(), as_of=AS_OF
    )

    assert (entry, written) == (first, False)
    assert len(ledger.entries(lake)) == 1


def test_the_champion_before_is_blocked_by_a_rollback_until_it_is_released(lake: Lake) -> None:
    write(lake, PROMOTED, 1)
    write(lake, PROMOTED, 2)
    write(lake, ROLLED_BACK, 1)
    assert ledger.state(lake, "late", "champion").blocked == {(2, 2)}

    write(lake, RELEASED, 2)

    now = ledger.state(lake, "late", "champion")
    assert now.blocked == frozenset()
    assert now.current_version == 1


def test_an_alias_stands_for_its_nominee_until_it_is_retired(lake: Lake) -> None:
    write(lake, NOMINATED, 1, alias="shadow")
    named = ledger.state(lake, "late", "shadow")
    assert (named.current_version, named.championships, named.unapplied) == (1, (), named.standing)
    assert ledger.current(lake, "late", "shadow") == named.standing

    write(lake, APPLIED, 1, alias="shadow", decides=1)
    write(lake, RETIRED, alias="shadow")

    ended = ledger.state(lake, "late", "shadow")
    assert (ended.current, ended.current_version) == (None, None)
    assert ended.unapplied == ended.standing
    assert ledger.verify_chain(lake, "late") == []


def test_what_is_rolled_back_from_after_a_retirement_is_not_blocked(lake: Lake) -> None:
    """The alias stood for nothing in between: nobody has left the version because it was bad."""
    write(lake, PROMOTED, 1)
    write(lake, PROMOTED, 2)
    write(lake, RETIRED)
    write(lake, ROLLED_BACK, 1)

    assert ledger.state(lake, "late", "champion").blocked == frozenset()


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda rows: rows[0].update(entry=rows[0]["entry"].replace("because", "for money")), "was changed"),
        (lambda rows: rows.pop(1), "entry 2 is missing"),
        (lambda rows: rows.pop(2), "3 entries were written, the last one there is 2"),
        (lambda rows: rows.append(dict(rows[2])), "appears twice"),
        (lambda rows: rows[0].update(to_version=9), "columns do not say what the entry says"),
    ],
)
def test_tampering_shows(lake: Lake, tamper, found: str) -> None:
    for version in (1, 2, 3):
        write(lake, PROMOTED, version)
    rows = rows_of(lake)
    tamper(rows)
    rewrite(lake, rows)

    assert any(found in problem for problem in ledger.verify_chain(lake, "late"))


@pytest.mark.parametrize("entry", ["", "garbage", "[]", "null", "{}", '{"outcome": "crowned"}'])
def test_an_entry_that_cannot_be_read_is_a_finding_and_nothing_is_decided_on(lake: Lake, entry: str) -> None:
    for version in (1, 2, 3):
        write(lake, PROMOTED, version)
    rows = rows_of(lake)
    rows[1]["entry"] = entry
    rewrite(lake, rows)

    assert "champion: entry 2 cannot be read" in ledger.verify_chain(lake, "late")
    assert ledger.aliases(lake, "late") == ["champion"]
    for read in (lambda: ledger.state(lake, "late", "champion"), lambda: ledger.entries(lake)):
        with pytest.raises(LakeError, match=r"lake\.ledger_broken.*entry 2 cannot be read"):
            read()


def test_many_entries_are_read_from_few_files(lake: Lake) -> None:
    """On a store of objects every file of data, and every commit since the last checkpoint, is a request."""
    for version in range(1, 3 * ledger.COMPACT_EVERY + 1):
        write(lake, HELD, version)

    handle = table_of(lake)
    log = Path(lake.uri, ledger.FOLDER, ledger.slug_of("late"), "_delta_log")
    checkpoint = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert len(handle.file_uris()) == 1
    assert handle.version() - checkpoint <= 1
    assert len(list(log.glob("*.json"))) == handle.version() + 1
    assert [entry.to_version for entry in ledger.entries(lake)] == list(range(1, len(rows_of(lake)) + 1))
    assert ledger.verify_chain(lake, "late") == []
    assert handle.transaction_version("late/champion") == 3 * ledger.COMPACT_EVERY


def test_a_ledger_that_was_written_before_there_were_people_and_nominations_is_read_and_goes_on(
    lake: Lake,
) -> None:
    for version in (1, 2):
        write(lake, PROMOTED, version)
    rows, previous = rows_of(lake), ledger.GENESIS
    for row in rows:
        old = json.loads(row["entry"])
        for later in ("approved_by", "expires_at", "record_id"):
            del old[later]
        old["previous_hash"] = previous
        previous = old["entry_hash"] = ledger._hash_of(old)
        row.update(entry=json.dumps(old), entry_hash=previous)
    rewrite(lake, rows)

    assert ledger.verify_chain(lake, "late") == []
    write(lake, NOMINATED, 3, approved_by=("ana",))
    assert [entry.approved_by for entry in ledger.entries(lake, "late")] == [(), (), ("ana",)]
    assert ledger.verify_chain(lake, "late") == []


def test_an_entry_rewritten_with_a_matching_hash_breaks_the_chain_behind_it(lake: Lake) -> None:
    for version in (1, 2, 3):
        write(lake, PROMOTED, version)
    rows = rows_of(lake)
    forged = json.loads(rows[1]["entry"]) | {"reason": "for money"}
    forged["entry_hash"] = ledger._hash_of(forged)
    rows[1].update(entry=json.dumps(forged), entry_hash=forged["entry_hash"])
    rewrite(lake, rows)

    assert ledger.verify_chain(lake, "late") == ["champion: entry 3 does not follow the entry before it"]


def test_a_ledger_that_lost_entries_refuses_to_decide(lake: Lake) -> None:
    for version in (1, 2):
        write(lake, PROMOTED, version)
    rewrite(lake, rows_of(lake)[:1])

    with pytest.raises(LakeError, match=r"lake\.ledger_broken"):
        write(lake, PROMOTED, 3)


def test_history_of_the_ledger_is_kept(lake: Lake) -> None:
    write(lake, PROMOTED, 1)

    assert table_of(lake).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    said = json.loads(table_of(lake).history(1)[0]["xops"])
    assert said == {"ledger": "late/champion", "sequence": 1}


def test_names_that_differ_only_in_punctuation_have_ledgers_of_their_own() -> None:
    names = ["late flights", "late-flights", "late.flights", "Late flights", "späte Flüge", "///", "."]
    slugs = [ledger.slug_of(name) for name in names]

    assert len(set(slugs)) == len(names)
    assert all(slug.replace("-", "").replace("_", "").isalnum() and slug.isascii() for slug in slugs)


class LedgerMachine(RuleBasedStateMachine):
    """Any order of entries, by two writers of which one may be interrupted, keeps the ledger's promises."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.champion: int | None = None
        self.count = 0

    @initialize()
    def make(self) -> None:
        where = LakeSettings(str(self.folder / "lake"))
        init_lake(where, actor=an_actor("init"), as_of=AS_OF)
        self.lake = open_lake(where)

    @rule(version=st.integers(1, 5))
    def promote(self, version: int) -> None:
        write(self.lake, PROMOTED, version)
        self.champion, self.count = version, self.count + 1

    @rule(version=st.integers(1, 5))
    def hold(self, version: int) -> None:
        write(self.lake, HELD, version)
        self.count += 1

    @precondition(lambda self: self.champion is not None)
    @rule(version=st.integers(1, 5))
    def roll_back(self, version: int) -> None:
        left = self.champion
        write(self.lake, ROLLED_BACK, version)
        self.champion, self.count = version, self.count + 1
        if left != version:
            assert (left, left) in ledger.state(self.lake, "late", "champion").blocked

    @rule(version=st.integers(1, 5))
    def nominate(self, version: int) -> None:
        blocked = ledger.state(self.lake, "late", "champion").blocked
        write(self.lake, NOMINATED, version)
        self.champion, self.count = version, self.count + 1
        assert ledger.state(self.lake, "late", "champion").blocked == blocked

    @rule()
    def retire(self) -> None:
        blocked = ledger.state(self.lake, "late", "champion").blocked
        write(self.lake, RETIRED)
        self.champion, self.count = None, self.count + 1
        now = ledger.state(self.lake, "late", "champion")
        assert (now.standing.sequence, now.current, now.blocked) == (self.count, None, blocked)

    @rule(version=st.integers(1, 5))
    def release(self, version: int) -> None:
        write(self.lake, RELEASED, version)
        self.count += 1
        assert (version, version) not in ledger.state(self.lake, "late", "champion").blocked

    @precondition(lambda self: hasattr(self, "lake") and ledger.state(self.lake, "late", "champion").standing)
    @rule()
    def apply(self) -> None:
        now = ledger.state(self.lake, "late", "champion")
        write(self.lake, APPLIED, self.champion, decides=now.standing.sequence)
        self.count += 1
        assert ledger.state(self.lake, "late", "champion").unapplied is None

    @rule(mine=st.integers(1, 5), theirs=st.integers(1, 5))
    def race(self, mine: int, theirs: int) -> None:
        """The other writer commits between our read and our commit."""
        calls = 0

        def decide(now: LedgerState) -> Draft:
            nonlocal calls
            calls += 1
            if calls == 1:
                write(self.lake, PROMOTED, theirs)
            return Draft(
                outcome=PROMOTED if calls == 1 else HELD, reason="r", to_version=mine, to_created_at_ms=mine
            )

        entry, _ = ledger.append(self.lake, "late", "champion", decide, actor=an_actor(), as_of=AS_OF)
        assert entry.outcome is HELD
        self.champion, self.count = theirs, self.count + 2

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "lake"):
            return
        now = ledger.state(self.lake, "late", "champion")
        assert [entry.sequence for entry in now.entries] == list(range(1, self.count + 1))
        assert now.current_version == self.champion
        assert ledger.verify_chain(self.lake, "late") == []

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


LedgerMachine.TestCase.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


@pytest.mark.parametrize(
    "change", [{"reason": "for money"}, {"to_version": 9}, {"outcome": "held"}, {"to_created_at_ms": 7}]
)
def test_nothing_is_decided_on_entries_that_somebody_has_changed(
    lake: Lake, change: dict[str, object]
) -> None:
    """Not only reconciliation finds it: a champion or a block that was changed would be acted on before."""
    for outcome, version in ((PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1)):
        write(lake, outcome, version)
    write(lake, PROMOTED, 1, alias="canary")
    rows = rows_of(lake)
    at = next(i for i, row in enumerate(rows) if (row["alias"], row["sequence"]) == ("champion", 2))
    rows[at]["entry"] = json.dumps(json.loads(rows[at]["entry"]) | change)
    rewrite(lake, rows)

    with pytest.raises(LakeError, match=r"lake\.ledger_broken.*entry 2 was changed after it was written"):
        write(lake, PROMOTED, 3)
    with pytest.raises(LakeError, match=r"lake\.ledger_broken"):
        ledger.current(lake, "late", "champion")
    current = ledger.current(lake, "late", "canary")
    assert current is not None
    assert len(rows_of(lake)) == len(rows)
