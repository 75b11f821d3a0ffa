"""A study in MLflow: one parent run, and one run nested in it for each trial.

For :mod:`airflow_provider_xops.training.tuning.study`. A trial is three requests: its run is begun, gets all
its figures at once, and is ended. What a trial was and came to stands in the run's tags, exact to the last
digit, so that a study without a database is read back from its runs when a killed attempt is tried again.

Whoever deletes the parent run in MLflow starts the study afresh.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_xops.errors import ArgumentError, Superseded, UnavailableError, XOpsError
from airflow_provider_xops.records import Actor, Selection
from airflow_provider_xops.registry import runs
from airflow_provider_xops.registry.client import KEY_TAG, RegistryClient, quoted
from airflow_provider_xops.training.tuning.trials import FAILED, Ended

__all__ = ["Logbook"]

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
RESULT_TAG = "xops.tuning_result"
TRIAL, SLOT, PARAMS = "xops.trial", "xops.slot", "xops.trial_params"
STATE, VALUE, STEPS, REASON, SECONDS = (
    "xops.trial_state", "xops.trial_value", "xops.trial_steps", "xops.trial_reason", "xops.trial_seconds",
)  # fmt: skip
GIVEN_UP = "xops.trial_given_up"
# MLflow refuses longer tags.
TAG_LENGTH = 8000


class Logbook:
    """The runs of one study.

    :param key: of the study's work; the parent carries it.
    """

    def __init__(self, client: RegistryClient, *, experiment: str, key: str) -> None:
        self._client, self._key = client, key
        self.experiment_id = client.experiment_id(experiment)
        self.run_id = ""
        self._started_at_ms = 0
        self._status = ""
        self._fence: int | None = None

    def open(self, *, name: str, actor: Actor, tags: Mapping[str, str], fenced: bool) -> None:
        """Find the parent run, or make it. With several workers, to be called under the study's lock.

        :param fenced: whether only one attempt may work on the study; then the newest has it.
        :raises Superseded: a newer attempt has it (``superseded.run``).
        """
        self._fence = actor.fence if fenced else None
        found = self._parent()
        if found is None:
            found = self._make(name, {**tags, KEY_TAG: self._key, runs.FENCE_TAG: str(actor.fence)})
        elif fenced:
            self._give_way(found)
            with self._client.session(f"taking over run {found.info.run_id}") as mlflow:
                mlflow.set_tag(found.info.run_id, runs.FENCE_TAG, str(actor.fence))
        self.run_id = str(found.info.run_id)
        self._started_at_ms = int(found.info.start_time)
        self._status = str(found.info.status)
        log.info("The study is run %s (%s).", self.run_id, self.url)

    @property
    def url(self) -> str:
        """The page of the parent run."""
        return self._client.run_url(self.run_id, self.experiment_id)

    def read(self) -> list[Ended]:
        """The trials of earlier attempts, by slot; one without a state was left by a killed attempt.

        Runs that an attempt left open are closed.
        """
        known: dict[int, Ended] = {}
        left: list[Ended] = []
        for found in self._children():
            each = _read(found)
            if each is None:
                continue
            if str(found.info.status) == "RUNNING":
                self._terminate(found.info.run_id, each.state)
            if each.state:
                known.setdefault(each.slot, each)
            else:
                left.append(each)
        return sorted([*known.values(), *left], key=lambda each: (each.slot, bool(each.state)))

    def begin(self, *, number: int, slot: int, params: Mapping[str, Any]) -> str:
        """Begin the run of a trial; gives its id."""
        text = json.dumps(params, sort_keys=True)
        if len(text) > TAG_LENGTH:
            raise ArgumentError(
                "the parameters of one trial are too long to be recorded", code="argument.space",
                why=f"MLflow keeps {TAG_LENGTH} characters, these are {len(text)}",
                todo="search short values; make long ones in a factory function",
            )  # fmt: skip
        tags = {PARENT_TAG: self.run_id, TRIAL: str(number), SLOT: str(slot), PARAMS: text}
        with self._client.session(f"starting the run of trial {number}") as mlflow:
            made = mlflow.create_run(self.experiment_id, run_name=f"trial-{number}", tags=tags)
        return str(made.info.run_id)

    def end(
        self, run_id: str, ended: Ended, *, folds: Sequence[Mapping[str, float | None]] = (), metric: str
    ) -> None:
        """Log what came of a trial, and end its run."""
        from mlflow.entities import Metric, Param, RunTag

        tags = {
            STATE: ended.state,
            VALUE: json.dumps(ended.value),
            STEPS: json.dumps(ended.steps),
            SECONDS: json.dumps(ended.seconds),
            **({REASON: ended.reason[:TAG_LENGTH]} if ended.reason else {}),
        }
        at = self._started_at_ms
        figures = [
            Metric(name, float(value), at, step)
            for step, fold in enumerate(folds)
            for name, value in fold.items()
            if value is not None
        ]
        if ended.value is not None:
            figures.append(Metric(f"{metric}_mean", ended.value, at, 0))
        params = [Param(name, str(value)[: runs._PARAM_LENGTH]) for name, value in ended.params.items()]
        with self._client.session(f"logging trial {ended.number}") as mlflow:
            mlflow.log_batch(
                run_id,
                params=params[: runs._PARAMS_A_BATCH],
                metrics=figures[: runs._METRICS_A_BATCH],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )
        self._terminate(run_id, ended.state)

    def drop(self, run_id: str, *, logged: bool = False) -> None:
        """Close the run of a trial that was not brought to its end; if MLflow is gone too, leave it so.

        :param logged: its result is there already, and does not count: another worker has the trial.
        """
        try:
            if logged:
                self._disown(run_id, STATE)
                return
            with self._client.session(f"closing run {run_id}") as mlflow:
                mlflow.set_tag(run_id, GIVEN_UP, "true")
            self._terminate(run_id, "")
        except XOpsError as error:
            log.warning("Run %s stays open until the study goes on: %s", run_id, error)

    def finish(
        self,
        ended: Sequence[Ended],
        *,
        result: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        selections: Callable[[], Mapping[str, Selection]],
        metric: str,
    ) -> None:
        """Make the runs agree with the trials, log the study's result and end the parent run.

        With several workers, to be called under the study's lock.

        :param result: identifies the result; a worker that finds it logged has nothing to do.
        :param selections: gives the rows that were used, by context; asked only where it is logged.
        :raises Superseded: a newer attempt has the study (``superseded.run``).
        """
        current = self._parent()
        if (
            current is not None
            and str(current.info.status) == "FINISHED"
            and current.data.tags.get(RESULT_TAG) == result
        ):
            return
        if current is not None:
            self._give_way(current)
        self._agree(ended, metric)
        handle = runs.RunHandle(
            run_id=self.run_id, experiment_id=self.experiment_id, key=self._key,
            started_at_ms=self._started_at_ms,
        )  # fmt: skip
        runs.log_run(
            self._client, handle, params=params, metrics=metrics, tags={**tags, RESULT_TAG: result},
            selections=selections(),
        )  # fmt: skip
        self._close_parent("FINISHED")
        # A request that got no answer may have made a twin of the parent.
        runs.close_runs_of(self._client, self.experiment_id, self._key, finished=self.run_id)

    def close(self, status: str) -> None:
        """End the parent run early (``KILLED``, ``FAILED``); the next attempt opens it again."""
        if not self.run_id:
            return
        try:
            self._close_parent(status)
            log.info("Run %s is closed as %s.", self.run_id, status)
        except XOpsError as error:
            log.warning("Run %s stays open until the next attempt closes it: %s", self.run_id, error)

    def reopen(self) -> None:
        """Show the parent as running again, after an earlier attempt has closed it."""
        if self._status in ("", "RUNNING"):
            return
        with self._client.session(f"opening run {self.run_id} again") as mlflow:
            mlflow.update_run(self.run_id, status="RUNNING")
        self._status = "RUNNING"

    def _give_way(self, parent: Any) -> None:
        if self._fence is not None and int(parent.data.tags.get(runs.FENCE_TAG, "0")) > self._fence:
            raise Superseded(
                f"run {parent.info.run_id} belongs to a newer attempt at the same work",
                code="superseded.run",
                why="this attempt was given up and started again elsewhere",
                todo="nothing: the newer attempt does the work",
            )

    def _agree(self, ended: Sequence[Ended], metric: str) -> None:
        """A worker may have died after its trial was counted and before its run was ended, or between."""
        seen: set[int] = set()
        by_number = {each.number: each for each in ended}
        for found in self._children():
            each = _read(found)
            if each is None:
                continue
            truth = by_number.get(each.number)
            if truth is None or truth.slot != each.slot or each.number in seen:
                if each.state or str(found.info.status) == "RUNNING":
                    self._disown(found.info.run_id, each.state)
                continue
            seen.add(each.number)
            if not each.state:
                self.end(found.info.run_id, truth, metric=metric)
            elif str(found.info.status) == "RUNNING":
                self._terminate(found.info.run_id, each.state)
        for each in ended:
            if each.number not in seen:
                run_id = self.begin(number=each.number, slot=each.slot, params=each.params)
                self.end(run_id, each, metric=metric)

    def _disown(self, run_id: str, state: str) -> None:
        with self._client.session(f"closing run {run_id}") as mlflow:
            if state:
                mlflow.delete_tag(run_id, STATE)
            mlflow.set_tag(run_id, runs.CLOSED_TAG, "its worker was gone, the trial was tried again")
            mlflow.set_terminated(run_id, status="KILLED")

    def _terminate(self, run_id: str, state: str) -> None:
        status = {"": "KILLED", FAILED: "FAILED"}.get(state, "FINISHED")
        with self._client.session(f"ending run {run_id}") as mlflow:
            mlflow.set_terminated(run_id, status=status)

    def _close_parent(self, status: str) -> None:
        with self._client.session(f"ending run {self.run_id}") as mlflow:
            mlflow.set_terminated(self.run_id, status=status)
        self._status = status

    def _parent(self) -> Any:
        with self._client.session("searching for the run of the study") as mlflow:
            found = mlflow.search_runs(
                [self.experiment_id],
                f"tags.`{KEY_TAG}` = {quoted(self._key)}",
                order_by=["attributes.start_time ASC"],
                max_results=1,
            )
        return found[0] if found else None

    def _make(self, name: str, tags: Mapping[str, str]) -> Any:
        try:
            with self._client.session("starting the run of the study", repeat=False) as mlflow:
                return mlflow.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        except UnavailableError:
            # The request that got no answer may have made the run.
            found = self._parent()
            if found is not None:
                return found
        with self._client.session("starting the run of the study") as mlflow:
            return mlflow.create_run(self.experiment_id, run_name=name, tags=dict(tags))

    def _children(self) -> list[Any]:
        found: list[Any] = []
        token = None
        with self._client.session("reading the trials of the study") as mlflow:
            while True:
                page = mlflow.search_runs(
                    [self.experiment_id], f"tags.`{PARENT_TAG}` = {quoted(self.run_id)}",
                    order_by=["attributes.start_time ASC"], max_results=1000, page_token=token,
                )  # fmt: skip
                found += page
                token = page.token
                if not token:
                    return found


def _read(found: Any) -> Ended | None:
    """The trial in a run's tags; None for a run that is none of ours."""
    tags = found.data.tags
    try:
        return Ended(
            number=int(tags[TRIAL]),
            slot=int(tags[SLOT]),
            state=tags.get(STATE, ""),
            params=json.loads(tags[PARAMS]),
            value=json.loads(tags.get(VALUE, "null")),
            steps=tuple(json.loads(tags.get(STEPS, "[]"))),
            reason=tags.get(REASON, ""),
            seconds=json.loads(tags.get(SECONDS, "0")),
            given_up=STATE not in tags and GIVEN_UP in tags,
        )
    except (KeyError, ValueError):
        return None
