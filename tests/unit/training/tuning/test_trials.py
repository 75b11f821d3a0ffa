"""The slots of a study, in memory and in SQLite: each ends once, whatever their workers do."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

from airflow_provider_xops.errors import ArgumentError, Superseded, UnavailableError
from airflow_provider_xops.training.tuning import storage
from airflow_provider_xops.training.tuning.samplers import grid_of, pruner_of
from airflow_provider_xops.training.tuning.space import Space, space_from
from airflow_provider_xops.training.tuning.storage import Shelf, beating, open_shelf, quiet_optuna
from airflow_provider_xops.training.tuning.trials import (
    COMPLETE,
    FAILED,
    MAX_LOST,
    PRUNED,
    Board,
    Ended,
    TrialTaken,
    best_of,
    counts_of,
)

SPACE = space_from({"x": {"float": [0, 1]}, "kind": {"choice": ["a", "b"]}})
States = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_optuna():
        yield


@pytest.fixture(params=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    url = None if request.param == "memory" else f"sqlite:///{tmp_path / 'study.db'}"
    with open_shelf(url, heartbeat_seconds=1) as opened:
        yield opened


def board_on(
    shelf: Shelf, *, worker: str = "w", fence: int = 1, sampler: str = "random", space: Space = SPACE
) -> Board:
    study = optuna.create_study(
        storage=shelf.optuna_storage, study_name="s", load_if_exists=True, pruner=pruner_of("median", folds=3)
    )
    grid = grid_of(space, seed=0) if sampler == "grid" else None
    return Board(study, shelf, space=space, sampler=sampler, seed=0, grid=grid, worker=worker, fence=fence)


def end(board: Board, trial: Any, state: str = COMPLETE, value: float | None = 0.5) -> None:
    params = board.propose(trial)
    slot = trial.user_attrs["xops.slot"]
    board.tell(trial, Ended(number=trial.number, slot=slot, state=state, params=params, value=value))


def test_there_are_as_many_slots_as_asked_for(shelf: Shelf) -> None:
    board = board_on(shelf)

    taken = [board.claim(3)[0] for _ in range(3)]

    assert [trial.user_attrs["xops.slot"] for trial in taken] == [0, 1, 2]
    assert board.claim(3) == (None, True)
    for trial in taken:
        end(board, trial)
    assert board.claim(3) == (None, False)
    assert board.claim(4)[0] is not None  # more are asked for later


def test_what_ended_is_told_exactly(shelf: Shelf) -> None:
    board = board_on(shelf)
    states = {COMPLETE: 0.1 + 0.2, PRUNED: 0.25, FAILED: None}
    for state, value in states.items():
        trial, _ = board.claim(3)
        board.propose(trial)
        if state == PRUNED:
            board.report(trial, 0.25, 0)
        params = board.propose(trial)
        board.tell(
            trial,
            Ended(
                number=trial.number, slot=trial.user_attrs["xops.slot"], state=state, params=params,
                value=value, reason="no" if state == FAILED else "", seconds=1.5,
            ),
        )  # fmt: skip

    found = board.ended()

    assert {each.state: each.value for each in found} == states
    assert [each.seconds for each in found] == [1.5] * 3
    assert found[1].steps == (0.25,)
    assert found[2].reason == "no"
    assert counts_of(found) == {COMPLETE: 1, PRUNED: 1, FAILED: 1}
    assert board.spent() == 4.5


def test_a_trial_that_was_given_up_is_tried_again_with_the_same_values(shelf: Shelf) -> None:
    board = board_on(shelf)
    trial, _ = board.claim(2)
    params = board.propose(trial)

    board.give_up(trial)
    again, _ = board.claim(2)

    assert again.number != trial.number
    assert board.propose(again) == params


def test_a_slot_whose_worker_always_dies_is_given_up(shelf: Shelf) -> None:
    for attempt in range(MAX_LOST):
        board = board_on(shelf, fence=attempt)
        trial, _ = board.claim(2)
        assert trial.user_attrs["xops.slot"] == 0
        board.propose(trial)

    board = board_on(shelf, fence=MAX_LOST)
    trial, _ = board.claim(2)

    assert trial.user_attrs["xops.slot"] == 1
    end(board, trial)
    assert [each.state for each in board.ended()] == [FAILED, COMPLETE]
    assert "died" in board.ended()[0].reason


def test_a_trial_left_in_order_is_tried_again_however_often(shelf: Shelf) -> None:
    board = board_on(shelf)
    for _ in range(2 * MAX_LOST):
        trial, _ = board.claim(1)
        board.propose(trial)
        board.give_up(trial)

    trial, _ = board.claim(1)

    assert trial.user_attrs["xops.slot"] == 0
    end(board, trial)
    assert [each.state for each in board.ended()] == [COMPLETE]


def test_trials_read_back_count_as_deaths_unless_they_were_left_in_order(shelf: Shelf) -> None:
    params = {"x": 0.5, "kind": "a"}
    left = [Ended(number=number, slot=0, state="", params=params) for number in range(MAX_LOST)]
    in_order = [dataclasses.replace(each, slot=1, given_up=True) for each in left]
    board = board_on(shelf)

    board.add([*left, *in_order])

    assert [(each.slot, each.state) for each in board.ended()] == [(0, FAILED)]
    trial, _ = board.claim(2)
    assert trial.user_attrs["xops.slot"] == 1


def test_a_newer_attempt_takes_over_and_the_older_one_notices(shelf: Shelf) -> None:
    # given an attempt that is still at its trial when the next one begins
    old, new = board_on(shelf, fence=1), board_on(shelf, fence=2)
    trial, _ = old.claim(2)
    old.propose(trial)

    again, _ = new.claim(2)

    assert again.user_attrs["xops.slot"] == 0
    with pytest.raises(TrialTaken):
        old.report(trial, 0.5, 0)
    with pytest.raises(TrialTaken):
        end(old, trial)
    with pytest.raises(Superseded):
        old.claim(2)
    end(new, again)
    assert [each.number for each in new.ended()] == [again.number]


def test_nothing_new_begins_when_time_is_over(shelf: Shelf) -> None:
    board = board_on(shelf)
    trial, _ = board.claim(3)
    board.give_up(trial)

    assert board.claim(0) == (None, False)
    states = {each.state for each in board.study.trials}
    assert states == {States.FAIL}


def test_a_study_put_in_again_goes_on_as_the_first(shelf: Shelf, tmp_path: Path) -> None:
    # given a study whose third trial was left
    board = board_on(shelf)
    tried = []
    for number in range(4):
        trial, _ = board.claim(5)
        tried.append(board.propose(trial))
        if number < 3:
            end(board, trial, value=number / 3)
    known = board.ended()

    # when it is put into a storage that knows nothing
    with open_shelf(None, heartbeat_seconds=1) as other:
        second = board_on(other)
        second.add(known)

        # then
        assert second.ended() == known
        trial, _ = second.claim(5)
        assert trial.user_attrs["xops.slot"] == 3
        assert second.propose(trial) == tried[3]


def test_the_best_is_the_first_of_equals() -> None:
    ended = [
        Ended(number=9, slot=0, state=COMPLETE, params={}, value=1.0),
        Ended(number=1, slot=1, state=COMPLETE, params={}, value=1.0),
        Ended(number=2, slot=2, state=PRUNED, params={}, value=9.0),
        Ended(number=3, slot=3, state=FAILED, params={}),
        Ended(number=4, slot=4, state=COMPLETE, params={}, value=-2.0),
    ]

    assert best_of(ended, greater_is_better=True) == ended[0]
    assert best_of(ended, greater_is_better=False) == ended[4]
    assert best_of(ended[2:4], greater_is_better=True) is None


def test_a_grid_is_gone_through_once(shelf: Shelf) -> None:
    space = space_from({"a": {"int": [1, 3]}, "b": {"choice": [[1], None]}})
    board = board_on(shelf, sampler="grid", space=space)
    tried = []
    for number in range(7):
        trial, _ = board.claim(6)
        tried.append(board.propose(trial))
        if number == 2:
            board.give_up(trial)  # its combination comes again
        else:
            end(board, trial)

    assert board.claim(6) == (None, False)
    assert Counter(map(str, tried)).most_common()[0][1] == 2
    assert sorted({str(each) for each in tried}) == sorted(map(str, space.grid()))


def test_a_hand_made_trial_in_the_study_does_not_count(shelf: Shelf) -> None:
    board = board_on(shelf)
    board.study.add_trial(optuna.trial.create_trial(state=States.COMPLETE, value=1.0))

    trial, _ = board.claim(1)

    assert trial is not None
    end(board, trial)
    assert len(board.ended()) == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 10))])
def test_workers_that_stop_at_random_leave_every_slot_ended_once(tmp_path: Path, seed: int) -> None:
    """Threads as workers on one SQLite file; some give up, some leave without a word and come back."""
    url, wanted = f"sqlite:///{tmp_path / 'study.db'}", 10
    finished: list[int] = []
    errors: list[BaseException] = []

    def work(name: str) -> None:
        rng = random.Random(f"{seed}/{name}")
        try:
            with open_shelf(url, heartbeat_seconds=60) as own:
                for fence in range(1, 100):
                    board = board_on(own, worker=name, fence=fence)
                    for _ in range(3):
                        trial, running = board.claim(wanted)
                        if trial is None:
                            if not running:
                                return
                            continue
                        board.propose(trial)
                        luck = rng.random()
                        if luck < 0.1:
                            board.give_up(trial)
                        elif luck < 0.2:
                            break  # gone without a word: the next fence takes it up
                        else:
                            end(board, trial)
                            finished.append(trial.user_attrs["xops.slot"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    with open_shelf(url, heartbeat_seconds=60) as last:
        ended = board_on(last).ended()
    assert [each.slot for each in ended] == list(range(wanted))
    by_hand = Counter(finished)
    assert all(by_hand[each.slot] == (each.state == COMPLETE) for each in ended)


def test_a_silent_worker_loses_its_trial_and_one_that_is_heard_does_not(tmp_path: Path) -> None:
    import time

    url = f"sqlite:///{tmp_path / 'study.db'}"
    with open_shelf(url, heartbeat_seconds=1) as shelf:
        silent, heard, other = (board_on(shelf, worker=name) for name in ("silent", "heard", "other"))
        lost, _ = silent.claim(3)
        kept, _ = heard.claim(3)

        with beating(shelf, kept._trial_id, seconds=1):
            deadline = time.monotonic() + 20
            while other.study.trials[lost.number].state != States.FAIL and time.monotonic() < deadline:
                time.sleep(0.3)
                other.claim(0)

        assert other.study.trials[lost.number].state == States.FAIL
        assert other.study.trials[kept.number].state == States.RUNNING
        end(heard, kept)


def test_a_lock_that_is_not_given_back_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_TIMEOUT_S", 0.1)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with (
        open_shelf(url, heartbeat_seconds=1) as one,
        open_shelf(url, heartbeat_seconds=1) as other,
        one.locked("s"),
        pytest.raises(UnavailableError) as caught,
        other.locked("s"),
    ):
        pass

    assert caught.value.code == "unavailable.tuning_storage"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no SQLAlchemy URL"),
        ("oracle://somewhere/x", "oracle"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_storage_that_cannot_be_shared_is_refused(url: str, said: str) -> None:
    with pytest.raises(ArgumentError) as caught, open_shelf(url, heartbeat_seconds=1):
        pass

    assert caught.value.code == "argument.storage"
    assert said in str(caught.value)


def test_a_database_that_is_away_is_a_reason_to_try_again_and_keeps_its_password() -> None:
    url = "postgresql+psycopg2://someone:hunter2@127.0.0.1:1/nothing"

    with pytest.raises(UnavailableError) as caught, ExitStack() as stack:
        stack.enter_context(open_shelf(url, heartbeat_seconds=1))

    assert caught.value.code == "unavailable.tuning_storage"
    assert "hunter2" not in str(caught.value)
