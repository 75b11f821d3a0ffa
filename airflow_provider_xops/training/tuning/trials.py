"""Who tries what: the slots of a study, each ended exactly once, however many workers die on the way.

For :mod:`airflow_provider_xops.training.tuning.study`. A study of 50 trials has the slots 0 to 49. To take
one is to enqueue an Optuna trial that names it and to start it; a trial that its worker left is failed
without a reason, and its slot is taken again. So a study counts slots, not Optuna's trials, and the trials
that dead workers left do not shorten the search.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_xops.errors import Superseded
from airflow_provider_xops.training.tuning.samplers import optuna_module, sampler_of
from airflow_provider_xops.training.tuning.storage import Shelf, storage_answers

__all__ = ["COMPLETE", "FAILED", "PRUNED", "SLOT", "Board", "Ended", "TrialTaken", "best_of", "counts_of"]

log = logging.getLogger(__name__)

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
SLOT, WORKER, FENCE, REASON, SECONDS, NUMBER, GIVEN_UP = (
    "xops.slot", "xops.worker", "xops.fence", "xops.reason", "xops.seconds", "xops.number", "xops.given_up",
)  # fmt: skip
# A combination that takes its worker's memory would do so at each new attempt.
MAX_LOST = 3


class TrialTaken(Exception):
    """This worker was taken for dead, and its trial was given to another one."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What came of one slot.

    :param number: Optuna's number of the trial. :param state: ``complete``, ``pruned`` or ``failed``.
    :param params: the estimator's arguments that were tried.
    :param value: the mean of the metric over the folds, for a pruned trial over those until then; None for
        a failed one.
    :param steps: the mean over the folds so far, after each fold.
    :param reason: why it failed, without data values.
    :param seconds: how long it took.
    :param given_up: without a state: its worker left it in order (a kill by signal, time over, MLflow away),
        so nothing speaks against the combination.
    """

    number: int
    slot: int
    state: str
    params: dict[str, Any]
    value: float | None = None
    steps: tuple[float, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    given_up: bool = False


@dataclass
class _Slots:
    """The Optuna trials of each slot, by how the slot stands."""

    ended: dict[int, Any] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    lost: dict[int, list[Any]] = field(default_factory=dict)

    def taken(self) -> set[int]:
        return {*self.ended, *self.running, *self.waiting, *self.lost}

    def free(self, wanted: int) -> int | None:
        """The slot to try next: one that is enqueued, else one that was left, else a new one."""
        open_again = sorted(slot for slot in (self.waiting or self.lost) if slot < wanted)
        if open_again:
            return open_again[0]
        return next((slot for slot in range(wanted) if slot not in self.taken()), None)


class Board:
    """The slots of one study, as one worker sees them.

    :param study: the Optuna study; its storage is the shelf's.
    :param space: reads the trials' parameters.
    :param grid: the combinations of a grid, in the order of the slots; None for other samplers.
    :param worker: who takes trials here, the same for every attempt; ``fence`` rises with the attempts.
    """

    def __init__(
        self,
        study: Any,
        shelf: Shelf,
        *,
        space: Any,
        sampler: str,
        seed: int,
        grid: Sequence[Mapping[str, Any]] | None,
        worker: str,
        fence: int,
    ) -> None:
        self.study, self.shelf, self.space = study, shelf, space
        self._sampler, self._seed, self._grid = sampler, seed, grid
        self._worker, self._fence = worker, fence

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Alone with the study; not to be entered twice."""
        return self.shelf.locked(self.study.study_name)

    def claim(self, wanted: int) -> tuple[Any, bool]:
        """The next trial to run, or None; and whether trials of other workers still run.

        :param wanted: how many slots the study has; 0 where nothing is to begin any more.
        :raises Superseded: a newer attempt at this worker's work runs a trial (``superseded.tuning``).
        """
        optuna = optuna_module()
        with self.locked(), storage_answers():
            slots = self._reaped()
            slot = slots.free(wanted)
            if slot not in slots.waiting:
                # One that is beyond those asked for now: Optuna would start it before any other.
                self._drop(slots.waiting)
            if slot is None:
                return None, bool(slots.running)
            if slot not in slots.waiting:
                # Enqueued with its slot in one step: there is no moment at which a trial has no slot.
                fixed = {} if self._grid is None else dict(self._grid[slot])
                attributes = {"fixed_params": fixed}
                self.study.add_trial(
                    optuna.trial.create_trial(
                        state=optuna.trial.TrialState.WAITING,
                        user_attrs={SLOT: slot},
                        system_attrs=attributes,
                    )
                )
            self.study.sampler = sampler_of(self._sampler, seed=self._seed, slot=slot)
            trial = self.study.ask()
            if self.shelf.shared:
                self.shelf.optuna_storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(FENCE, self._fence)
            trial.set_user_attr(WORKER, self._worker)
            return trial, True

    def propose(self, trial: Any) -> dict[str, Any]:
        """The estimator's arguments that a taken trial is to try."""
        with storage_answers(), _unless_taken():
            arguments: dict[str, Any] = self.space.suggest(trial)
            return arguments

    def report(self, trial: Any, value: float, step: int) -> bool:
        """Tell the mean over the folds so far; gives whether the pruner ends the trial.

        :raises TrialTaken: another worker has the trial.
        """
        with storage_answers(), _unless_taken():
            trial.report(value, step)
            return bool(trial.should_prune())

    def tell(self, trial: Any, ended: Ended) -> None:
        """Record how a trial ended.

        :raises TrialTaken: another worker has the trial.
        """
        optuna = optuna_module()
        state = getattr(optuna.trial.TrialState, "FAIL" if ended.state == FAILED else ended.state.upper())
        value = ended.value if ended.state == COMPLETE else None
        with storage_answers(), _unless_taken():
            trial.set_user_attr(SECONDS, ended.seconds)
            if ended.state == FAILED:
                trial.set_user_attr(REASON, ended.reason)
            try:
                self.study.tell(trial, value, state)
            except ValueError:  # it is no longer running
                raise TrialTaken from None

    def give_up(self, trial: Any) -> None:
        """Leave a trial without having ended it: its slot is free again. Whatever fails here is left so."""
        optuna = optuna_module()
        with contextlib.suppress(Exception):
            trial.set_user_attr(GIVEN_UP, True)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def add(self, known: Sequence[Ended]) -> None:
        """Put in trials that an earlier attempt has made; one without a state was left, its slot is free."""
        optuna = optuna_module()
        states = optuna.trial.TrialState
        distributions = self.space.distributions()
        for each in known:
            ours = {SECONDS: each.seconds, WORKER: self._worker}
            reason = {REASON: each.reason} if each.state == FAILED else {}
            given_up = {GIVEN_UP: True} if each.given_up else {}
            tried = each.state in (COMPLETE, PRUNED)
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=states[each.state.upper()] if tried else states.FAIL,
                    value=each.value if tried else None,
                    params=self.space.words(each.params),
                    distributions=distributions,
                    intermediate_values=dict(enumerate(each.steps)),
                    # Optuna numbers trials as they come; the number in MLflow stays the first one.
                    user_attrs={SLOT: each.slot, NUMBER: each.number, **ours, **reason, **given_up},
                )
            )

    def ended(self) -> list[Ended]:
        """What came of every slot that has ended, by slot."""
        with storage_answers():
            slots = self._slots()
        return [self._ended(slot, trial) for slot, trial in sorted(slots.ended.items())]

    def spent(self) -> float:
        """Seconds that this worker's trials took, those of its earlier attempts included."""
        with storage_answers():
            trials = self.study.get_trials(deepcopy=False)
        own = (each.user_attrs for each in trials if each.user_attrs.get(WORKER) == self._worker)
        return sum(float(attributes.get(SECONDS, 0.0)) for attributes in own)

    def same(self, trial: Any) -> Any:
        """An earlier complete trial of exactly the same parameters; None if there is none."""
        optuna = optuna_module()
        with storage_answers():
            complete = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            return next((other for other in complete if other.params == trial.params), None)

    def _reaped(self) -> _Slots:
        """How the slots stand once every trial of a dead worker is failed. To be called under the lock."""
        optuna = optuna_module()
        optuna.storages.fail_stale_trials(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            worker, fence = trial.user_attrs.get(WORKER), trial.user_attrs.get(FENCE, 0)
            if worker == self._worker and fence > self._fence:
                raise Superseded(
                    f"trial {trial.number} belongs to a newer attempt at the same work",
                    code="superseded.tuning",
                    why="this attempt was given up and started again elsewhere",
                    todo="nothing: the newer attempt does the work",
                )
            # Taken under the lock, but without its worker's name: who took it died while doing so.
            if worker is None or (worker == self._worker and fence < self._fence):
                self._fail(trial)
        return self._slots()

    def _slots(self) -> _Slots:
        optuna = optuna_module()
        states = optuna.trial.TrialState
        slots = _Slots()
        for trial in self.study.get_trials(deepcopy=False):
            slot = trial.user_attrs.get(SLOT)
            if slot is None:
                continue  # made by hand in the same study: not ours to count
            if trial.state in (states.COMPLETE, states.PRUNED) or REASON in trial.user_attrs:
                slots.ended[slot] = trial
            elif trial.state == states.RUNNING:
                slots.running.add(slot)
            elif trial.state == states.WAITING:
                slots.waiting.add(slot)
            else:
                slots.lost.setdefault(slot, []).append(trial)
        for slot, trials in list(slots.lost.items()):
            if slot in slots.ended or slot in slots.running or slot in slots.waiting:
                del slots.lost[slot]
                continue
            # Only who had begun can have died of it.
            deaths = [
                each for each in trials if WORKER in each.user_attrs and GIVEN_UP not in each.user_attrs
            ]
            if len(deaths) >= MAX_LOST:
                slots.ended[slot] = deaths[-1]
                del slots.lost[slot]
        return slots

    def _ended(self, slot: int, trial: Any) -> Ended:
        failed = trial.state.name == "FAIL"
        left = f"its worker died {MAX_LOST} times" if failed and REASON not in trial.user_attrs else ""
        return Ended(
            number=trial.user_attrs.get(NUMBER, trial.number),
            slot=slot,
            state=FAILED if failed else trial.state.name.lower(),
            params=self.space.arguments(trial.params),
            value=None if failed else trial.value,
            steps=tuple(value for _, value in sorted(trial.intermediate_values.items())),
            reason=left or trial.user_attrs.get(REASON, ""),
            seconds=float(trial.user_attrs.get(SECONDS, 0.0)),
        )

    def _drop(self, waiting: set[int]) -> None:
        if not waiting:
            return
        states = optuna_module().trial.TrialState
        for trial in self.study.get_trials(deepcopy=False, states=(states.WAITING,)):
            if SLOT in trial.user_attrs:
                self._fail(trial)

    def _fail(self, trial: Any) -> None:
        optuna = optuna_module()
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.shelf.optuna_storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
            log.info("Trial %d was left by a worker that is gone: it is given up.", trial.number)


def best_of(ended: Sequence[Ended], *, greater_is_better: bool) -> Ended | None:
    """The complete trial with the best value, of equals the first; None where none is complete."""
    complete = [each for each in ended if each.state == COMPLETE and each.value is not None]
    sign = -1 if greater_is_better else 1
    return min(complete, key=lambda each: (sign * (each.value or 0.0), each.slot), default=None)


def counts_of(ended: Sequence[Ended]) -> dict[str, int]:
    """How many slots ended each way."""
    return {state: sum(each.state == state for each in ended) for state in (COMPLETE, PRUNED, FAILED)}


@contextlib.contextmanager
def _unless_taken() -> Iterator[None]:
    optuna = optuna_module()
    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError:
        raise TrialTaken from None
