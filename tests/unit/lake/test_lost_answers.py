"""A commit that was made although its writer was told otherwise is found, recorded, and loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.lake import commit as module
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from tests.unit.lake.helpers import put, rows_of, segment, untouchable, user


def lose_the_answer(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The next commit to an existing table is made, and its writer gets ``error`` instead of an answer.

    Object stores do this: the PUT succeeds, its answer is lost, the client's retry finds the name taken.
    """
    real = DeltaTable.create_write_transaction

    def lost(self: Any, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        real(self, *args, **kwargs)
        raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)


def test_a_commit_whose_answer_was_lost_is_its_own_and_keeps_its_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))
    lose_the_answer(monkeypatch, CommitFailedError("a concurrent transaction has the same id"))

    result = put(lake, "t", segment("p", "2", {"a": [2]}), actor=user(2))

    assert not result.reused
    assert result.record.ref == head(lake, "t")
    assert stored_record(lake, result.record.ref) == result.record
    assert rows_of(lake, "t") == {"p": [(2,)]}
    assert verify_version(lake, result.record.ref) == []


def test_the_files_of_a_lost_answer_stay_when_a_newer_attempt_has_replaced_them(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))
    real = DeltaTable.create_write_transaction

    def overtaken(self: Any, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        real(self, *args, **kwargs)
        put(lake, "t", segment("p", "3", {"a": [3]}), actor=user(3))
        raise CommitFailedError("a concurrent transaction has the same id")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)

    result = put(lake, "t", segment("p", "2", {"a": [2]}), actor=user(2))

    assert result.record.version == 1
    assert verify_version(lake, result.record.ref) == []
    assert rows_of(lake, "t") == {"p": [(3,)]}


def test_a_first_commit_whose_answer_was_lost_keeps_its_files(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.create_table_with_add_actions

    def lost(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise DeltaError("a Delta Lake table already exists at that location")

    monkeypatch.setattr(module, "create_table_with_add_actions", lost)

    result = put(lake, "t", segment("p", "1", {"a": [1]}))

    assert (result.reused, result.record.version) == (False, 0)
    assert rows_of(lake, "t") == {"p": [(1,)]}
    assert verify_version(lake, head(lake, "t")) == []


def test_after_an_answer_that_never_came_the_next_try_finds_the_commit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))
    lose_the_answer(monkeypatch, OSError("error sending request: operation timed out"))

    with pytest.raises(UnavailableError):
        put(lake, "t", segment("p", "2", {"a": [2]}), actor=user(2))
    again = put(lake, "t", untouchable("p", "2"), actor=user(3))

    assert again.reused
    assert again.record.version == 1
    assert verify_version(lake, again.record.ref) == []
    assert len(list((Path(lake.uri) / "t" / "_delta_log").glob("*.json"))) == 2
