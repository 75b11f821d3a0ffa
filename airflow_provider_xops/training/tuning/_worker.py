"""One worker of a study: takes trials one after the other until there are none.

Private to :mod:`airflow_provider_xops.training.tuning.study`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_xops.errors import TrainingError, XOpsError
from airflow_provider_xops.training.tuning._objective import Objective
from airflow_provider_xops.training.tuning.logbook import Logbook
from airflow_provider_xops.training.tuning.storage import beating
from airflow_provider_xops.training.tuning.trials import (
    COMPLETE,
    FAILED,
    PRUNED,
    SLOT,
    Board,
    Ended,
    TrialTaken,
)

__all__ = ["Worker"]

log = logging.getLogger(__name__)

# Errors that are the proposal's, not the data's: the trial failed, the study goes on.
OF_THE_TRIAL = (
    "training.estimator",
    "training.fit_failed",
    "training.no_sample_weight",
    "model.predict_failed",
)
# That many failures with nothing else are no bad luck.
HOPELESS_TRIALS = 5
LONGEST_PAUSE_S = 5.0


class _Pruned(Exception):
    """The pruner ends the trial."""


class _OutOfTime(Exception):
    """The time budget is used up."""


class _NotMeasured(Exception):
    """A fold has no figure of the metric."""


@dataclass
class _Folds:
    """The folds of the trial at hand so far."""

    figures: list[dict[str, float | None]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


@dataclass
class Worker:
    """Takes trials of a study until none is left.

    :param wanted: how many slots the study has, over all workers.
    :param timeout_seconds: how long this worker's trials may take in all.
    """

    board: Board
    logbook: Logbook
    objective: Objective
    metric: str
    wanted: int
    timeout_seconds: float | None
    heartbeat_seconds: int
    clock: Callable[[], float]
    _deadline: float = math.inf

    def work(self) -> None:
        """Run trials; come back when every slot has ended, or time is over and nobody runs one.

        A worker with nothing left to take waits for the others: if one of them dies, its trial is taken.
        """
        if self.timeout_seconds is not None:
            self._deadline = self.clock() + self.timeout_seconds - self.board.spent()
        waiting = False
        while True:
            trial, running = self.board.claim(0 if self._over() else self.wanted)
            if trial is not None:
                waiting = False
                self.logbook.reopen()
                self._run(trial)
                self._check_hope()
            elif running:
                if not waiting:
                    log.info("Waiting for the trials of other workers.")
                waiting = True
                time.sleep(min(self.heartbeat_seconds / 2, LONGEST_PAUSE_S))
            else:
                return

    def leave(self, *, failed: bool) -> None:
        """Close the parent run, unless other workers go on."""
        try:
            alone = not self.board.shelf.shared or not self.board.claim(0)[1]
        except XOpsError:
            return
        if alone:
            self.logbook.close("FAILED" if failed else "KILLED")

    def _run(self, trial: Any) -> None:
        with beating(self.board.shelf, trial._trial_id, seconds=self.heartbeat_seconds):
            run_id, logged = None, False
            try:
                params = self.board.propose(trial)
                slot = int(trial.user_attrs[SLOT])
                run_id = self.logbook.begin(number=trial.number, slot=slot, params=params)
                folds = _Folds()
                ended = self._judged(trial, slot, params, folds)
                # Logged before it counts: nobody who sees the study ended finds a trial without its figures.
                self.logbook.end(run_id, ended, folds=folds.figures, metric=self.metric)
                logged = True
                self.board.tell(trial, ended)
                self._say(ended)
            except TrialTaken:
                log.warning("Trial %d was given to another worker meanwhile.", trial.number)
                self._drop(run_id, logged=logged)
            except _OutOfTime:
                log.info("Time is over: trial %d is not brought to its end.", trial.number)
                self._drop(run_id)
                self.board.give_up(trial)
            except BaseException:
                self._drop(None if logged else run_id)
                self.board.give_up(trial)
                raise

    def _judged(self, trial: Any, slot: int, params: dict[str, Any], folds: _Folds) -> Ended:
        same = self.board.same(trial)
        if same is not None:
            reason = f"the same parameters as trial {same.number}: not fitted again"
            return Ended(
                number=trial.number, slot=slot, state=COMPLETE, params=params, value=same.value, reason=reason
            )
        began = self.clock()
        value, state, reason = None, COMPLETE, ""
        try:
            self.objective.measure(params, lambda _, figures: self._after_fold(trial, folds, figures))
        except _Pruned:
            state = PRUNED
        except _NotMeasured:
            state, reason = FAILED, f"{self.metric} is not defined on fold {len(folds.figures)}"
        except XOpsError as error:
            if error.code not in OF_THE_TRIAL:
                raise
            state, reason = FAILED, f"{error.code}: {error.why or error.what}"
        if state != FAILED:
            value = folds.steps[-1]
        return Ended(
            number=trial.number, slot=slot, state=state, params=params, value=value, steps=tuple(folds.steps),
            reason=reason, seconds=self.clock() - began,
        )  # fmt: skip

    def _after_fold(self, trial: Any, folds: _Folds, figures: dict[str, float | None]) -> None:
        folds.figures.append(figures)
        value = figures.get(self.metric)
        if value is None or not math.isfinite(value):
            raise _NotMeasured
        done = len(folds.figures)
        # The mean over the folds so far, so that trials can be compared before their last fold.
        folds.steps.append(math.fsum(each[self.metric] or 0.0 for each in folds.figures) / done)
        pruned = self.board.report(trial, folds.steps[-1], done - 1)
        if done == self.objective.folds.folds:
            return
        if pruned:
            raise _Pruned
        if self._over():
            raise _OutOfTime

    def _over(self) -> bool:
        return self.clock() >= self._deadline

    def _check_hope(self) -> None:
        ended = self.board.ended()
        if len(ended) < min(HOPELESS_TRIALS, self.wanted) or any(each.state != FAILED for each in ended):
            return
        raise TrainingError(
            f"the first {len(ended)} trials failed, every one", code="training.tuning_failed",
            why=ended[0].reason, todo="correct the space or the estimator's arguments",
            context={"trials": len(ended)},
        )  # fmt: skip

    def _drop(self, run_id: str | None, *, logged: bool = False) -> None:
        if run_id is not None:
            self.logbook.drop(run_id, logged=logged)

    def _say(self, ended: Ended) -> None:
        shown = "no value" if ended.value is None else f"mean {self.metric} {ended.value:.6g}"
        log.info(
            "Trial %d (%d of %d) is %s: %s in %.1f s with %s%s", ended.number, ended.slot + 1, self.wanted,
            ended.state, shown, ended.seconds, json.dumps(ended.params, sort_keys=True),
            f" ({ended.reason})" if ended.reason else "",
        )  # fmt: skip
