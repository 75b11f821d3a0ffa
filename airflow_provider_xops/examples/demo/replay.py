"""The demo's story, step by step, against a running stack.

January to March 2013 arrive as history, are profiled, and train the first champion; a week of April is
replayed day by day. One day brings a few bad rows, which are set aside; one a broken file, which is stopped
and mended; one a file whose every value is plausible and whose distances are in another unit, which only a
control chart sees. A challenger meets the champion; every day is scored. Meanwhile a scoring server is asked
without a pause, and follows the champion. Every step has a fixed run id in Airflow, so a second run of the
demo finds what the first one did and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import NotFoundError, XOpsError
from airflow_provider_xops.examples.demo.airflow_api import AirflowApi
from airflow_provider_xops.examples.demo.passengers import Passengers
from airflow_provider_xops.examples.demo.stack import Stack
from airflow_provider_xops.examples.flights.landing import (
    break_file,
    deliver,
    landing_file,
    shift_file,
    soil_file,
)
from airflow_provider_xops.lake.lake import Lake

__all__ = ["Replay", "StepFailed", "Story", "days_between"]

MODEL = "flights_late_arrival"
POLL_S = 0.7
SWAP_TIMEOUT_S = 60
RUN_TIMEOUT_S = 420
FINAL = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True, kw_only=True)
class Story:
    """Which days the demo plays.

    :param history: first and last day loaded at once; the first champion is trained on them.
    :param week: the days replayed one by one.
    :param soiled_day: the day of ``week`` with a few bad rows in its flights file.
    :param broken_day: the day of ``week`` whose first flights file is bad throughout.
    :param shifted_day: the day of ``week`` whose first flights file has its distances in another unit.
    :param retrain_after: the day of ``week`` after which the challenger is trained.
    """

    history: tuple[str, str] = ("2013-01-01", "2013-03-31")
    week: tuple[str, str] = ("2013-04-01", "2013-04-07")
    soiled_day: str = "2013-04-02"
    broken_day: str = "2013-04-04"
    shifted_day: str = "2013-04-06"
    retrain_after: str = "2013-04-05"


class StepFailed(XOpsError):
    """A step of the demo did not do what it should: says which, why, and where its log is."""

    family = "demo"


@dataclass
class Replay:
    """Plays a :class:`Story`.

    :param say: prints one line of progress.
    """

    stack: Stack
    api: AirflowApi
    lake: Lake
    say: Callable[[str], None]
    story: Story = field(default_factory=Story)
    stopped_reasons: dict[str, str] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)

    def play(self) -> None:
        """All steps, in order.

        :raises StepFailed: at the first step that did not do what it should.
        """
        self._dags_are_loaded()
        first, last = self.story.history
        self._deliver(days_between(first, last))
        self._run("flights_dataops", "history", {"day": f"{first}..{last}"}, label=f"history {first}..{last}")
        self._run("flights_profile", "history", {}, label=f"profile {first}..{last}")
        self._run(
            "flights_training",
            "first-champion",
            {"window": f"{first}..{last}", "candidates": ["baseline"]},
            label="first champion",
        )
        passengers = self._serve(last)
        for day in days_between(*self.story.week):
            self._day(day)
            if day == self.story.retrain_after:
                conf = {"window": f"{first}..{day}", "candidates": ["baseline", "gradient_boosting"]}
                self._run("flights_training", f"retrain-{day}", conf, label="challengers meet champion")
        for day in days_between(*self.story.week):
            self._scored(day)
        self._answered(passengers)

    def _serve(self, day: str) -> Passengers:
        """Start the scoring server and begin to ask it about flights of ``day``."""
        self.stack.start_server(MODEL, log_table="flights_online")
        passengers = Passengers(self.stack.ports["serving"], self._request(day))
        passengers.start()
        self.say(
            f"online  the scoring server answers at {self.stack.serving_url}, and is asked without a pause"
        )
        return passengers

    def _request(self, day: str) -> bytes:
        from airflow_provider_xops.lake import read
        from airflow_provider_xops.lake.tables import head
        from airflow_provider_xops.registry.loading import resolve_model
        from airflow_provider_xops.serving._smoke_requests import as_request
        from airflow_provider_xops.training.frames import feature_frame

        model = resolve_model(self.lake, MODEL)
        if model is None:
            raise StepFailed(
                f"{MODEL} has no champion", code="demo.no_champion",
                why="the first training was not promoted", todo="look at its decision: `xops history`",
            )  # fmt: skip
        table = head(self.lake, "flight_features")
        rows = read.scan(self.lake, table, partitions=[day], columns=list(model.features)).read_all()
        return as_request(feature_frame(rows.slice(0, 5), model.features))

    def _answered(self, passengers: Passengers) -> None:
        """Wait until the champion answers online, too, and end the requests."""
        from airflow_provider_xops.registry import ledger

        champion = ledger.state(self.lake, MODEL, "champion").current_version
        if champion is None or not passengers.wait_for(champion, timeout_s=SWAP_TIMEOUT_S):
            self.say(f"online  v{champion} does not answer: read {self.stack.logs / 'xops-serve.log'}")
        self.online = passengers.stop()
        told = ", then ".join(f"v{version} {count}" for version, count in self.online["by_version"].items())
        self.say(
            f"online  {self.online['requests']} requests, {self.online['failed']} failed; answered by {told}"
        )

    def _day(self, day: str) -> None:
        if day == self.story.broken_day:
            self._stopped_day(day, break_file, "validate_flights", "a broken flights file arrives")
        elif day == self.story.shifted_day:
            told = "a flights file with its distances in nautical miles arrives"
            self._stopped_day(day, shift_file, "chart_flights", told)
        else:
            if self._deliver([day]) and day == self.story.soiled_day:
                soil_file(landing_file(self.stack.landing, "flights", day))
                self.say(f"{day}  a few of its flights are bad")
            self._run("flights_dataops", day, {"day": day}, label=day)

    def _stopped_day(self, day: str, damage: Callable[[Path], None], by: str, told: str) -> None:
        run_id = f"demo__{day}"
        known = self._known_run("flights_dataops", run_id)
        if known is None:
            self._deliver([day])
            damage(landing_file(self.stack.landing, "flights", day))
            self.say(f"{day}  {told}")
        if known is not None and known["state"] == "success":
            self.say(f"{day}  flights_dataops was done before")
            return
        run = self._start_and_wait("flights_dataops", day, {"day": day}, label=day)
        if run["state"] != "success":
            self.stopped_reasons[day] = self._check_it_was_stopped(run_id, day, by)
            self.say(f"{day}  the airline sends a mended file; the day is cleared and runs again")
            deliver(self.stack.landing, [day])
            self.api.clear_run("flights_dataops", run_id)
        self._run("flights_dataops", day, {"day": day}, label=f"{day} again")

    def _check_it_was_stopped(self, run_id: str, day: str, by: str) -> str:
        tasks = {task["task_id"]: task for task in self.api.tasks("flights_dataops", run_id)}
        stopped = tasks.get(by)
        if stopped is None or stopped["state"] != "failed" or tasks["publish_flights"]["state"] == "success":
            raise StepFailed(
                f"{day}: the file was not stopped by {by}",
                code="demo.not_stopped",
                why=str({name: task["state"] for name, task in tasks.items()}),
                todo="read the task logs in the Airflow UI",
            )
        reason = _reason(self.api.task_log("flights_dataops", run_id, stopped))
        self.say(f"{day}  stopped by {by} before it reached the published table: {reason}")
        return reason

    # -- running and watching -----------------------------------------------------------------------------

    def _deliver(self, days: list[str]) -> bool:
        missing = [day for day in days if not landing_file(self.stack.landing, "weather", day).exists()]
        if missing:
            deliver(self.stack.landing, missing)
            self.say(f"{missing[0] if len(missing) == 1 else f'{len(missing)} days'}  files delivered")
        return bool(missing)

    def _run(self, dag_id: str, name: str, conf: dict[str, Any], *, label: str) -> None:
        run_id = f"demo__{name}"
        known = self._known_run(dag_id, run_id)
        if known is not None and known["state"] == "success":
            self.say(f"{label}  {dag_id} was done before")
            return
        if known is not None and known["state"] == "failed":
            self.api.clear_failed(dag_id, run_id)
        run = self._start_and_wait(dag_id, name, conf, label=label)
        if run["state"] != "success":
            raise self._failure(dag_id, run_id)

    def _start_and_wait(self, dag_id: str, name: str, conf: dict[str, Any], *, label: str) -> dict[str, Any]:
        run_id = f"demo__{name}"
        run = self.api.trigger(dag_id, run_id, conf)
        seen: set[tuple[str, int, int]] = set()
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while True:
            run = self.api.run(dag_id, run_id)
            for task in self.api.tasks(dag_id, run_id):
                key = (task["task_id"], task["map_index"], task["try_number"])
                if task["state"] in FINAL and key not in seen:
                    seen.add(key)
                    self.say(
                        _line(label, task["task_id"], task["state"], self._figures(dag_id, run_id, task))
                    )
            if run["state"] in ("success", "failed"):
                return run
            self._check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"{dag_id} {run_id} did not end within {RUN_TIMEOUT_S} s",
                    code="demo.timeout",
                    todo=f"look at {self._page(dag_id, run_id)} and the logs in {self.stack.logs}",
                )
            time.sleep(POLL_S)

    def _scored(self, day: str) -> None:
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while True:
            runs = [run for run in self._scoring_runs() if run.partition == day]
            if runs:
                newest = max(runs, key=lambda run: run.recorded_at)
                self.say(
                    _line(
                        day,
                        "score",
                        "success",
                        f"{newest.rows:,} predictions by {newest.model_name} v{newest.model_version}",
                    )
                )
                return
            for run in self.api.runs("flights_scoring"):
                if run["state"] == "failed":
                    raise self._failure("flights_scoring", run["dag_run_id"])
            self._check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"{day} was not scored within {RUN_TIMEOUT_S} s",
                    code="demo.timeout",
                    todo=f"look at {self.stack.airflow_url}/dags/flights_scoring",
                )
            time.sleep(POLL_S)

    def _scoring_runs(self) -> Iterator[Any]:
        yield from self.lake.evidence.all("scoring_runs")

    def _dags_are_loaded(self) -> None:
        wanted = {
            "flights_dataops",
            "flights_profile",
            "flights_training",
            "flights_scoring",
            "xops_rollback",
        }
        deadline = time.monotonic() + 120
        while True:
            found = self.api.dags()
            if wanted <= found.keys():
                return
            errors = self.api.import_errors()
            if errors:
                raise StepFailed(
                    f"{errors[0]['filename']} does not import",
                    code="demo.import_error",
                    why=errors[0]["stack_trace"].strip().splitlines()[-1],
                    todo="mend the DAG file and run the demo again",
                )
            self._check_alive()
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"Airflow did not load {', '.join(sorted(wanted - found.keys()))}",
                    code="demo.no_dags",
                    todo=f"read {self.stack.logs / 'airflow-dag-processor.log'}",
                )
            time.sleep(POLL_S)

    def _page(self, dag_id: str, run_id: str) -> str:
        return f"{self.stack.airflow_url}/dags/{dag_id}/runs/{run_id}"

    def _known_run(self, dag_id: str, run_id: str) -> dict[str, Any] | None:
        try:
            return self.api.run(dag_id, run_id)
        except NotFoundError:
            return None

    def _check_alive(self) -> None:
        dead = self.stack.died()
        if dead:
            raise StepFailed(
                f"{dead} ended in the middle of the demo", code="demo.server_died", todo="read that log"
            )

    def _failure(self, dag_id: str, run_id: str) -> StepFailed:
        for task in self.api.tasks(dag_id, run_id):
            if task["state"] == "failed":
                return StepFailed(
                    f"{dag_id}.{task['task_id']} failed in run {run_id}",
                    code="demo.task_failed",
                    why=_reason(self.api.task_log(dag_id, run_id, task)),
                    todo=f"read its log at {self._page(dag_id, run_id)}/tasks/{task['task_id']} or under"
                    f" {self.stack.state / 'airflow' / 'logs' / f'dag_id={dag_id}' / f'run_id={run_id}'}",
                )
        return StepFailed(
            f"{dag_id} run {run_id} failed without a failed task",
            code="demo.run_failed",
            todo=f"read {self.stack.logs / 'airflow-scheduler.log'}",
        )

    def _figures(self, dag_id: str, run_id: str, task: dict[str, Any]) -> str:
        if task["state"] != "success":
            return ""
        try:
            value = self.api.xcom(dag_id, run_id, task["task_id"], task["map_index"])
        except XOpsError:
            return ""
        if isinstance(value, dict) and value.get("kind") == "evaluations":
            # Too long to be handed over whole: the comparisons are in the lake.
            value = self.lake.evidence.get("evaluations", value["record_id"]).to_json()
        return _figures_of(value) if isinstance(value, dict) else ""


def days_between(first: str, last: str) -> list[str]:
    """ISO dates from ``first`` to ``last``, both included.

    >>> days_between("2013-03-31", "2013-04-01")
    ['2013-03-31', '2013-04-01']
    """
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=i)).isoformat() for i in range((end - start).days + 1)]


def _figures_of(value: dict[str, Any]) -> str:
    kind = value.get("kind")
    if kind == "versions":
        reused = " (already there)" if value.get("reused") else ""
        return f"{value['rows']:,} rows -> {value['table']}@{value['version']}{reused}"
    if kind == "validations":
        counts = value["counts"]
        aside = value.get("quarantined") or {}
        told = f", {aside['rows']} rows set aside" if aside.get("rows") else ""
        return f"{value['outcome']}: {counts.get('passed', 0)} of {sum(counts.values())} checks passed{told}"
    if kind == "control_charts":
        signals, charts = _count(value["signals"]), _count(value["charts"])
        return f"{value['outcome'].replace('_', ' ')}: {signals} signals on {charts} charts"
    if kind == "profiles":
        return f"{value['rows']:,} rows, {_count(value['columns'])} columns"
    if kind == "models":
        metrics = value.get("metrics", {})
        return f"{value['name']} v{value['version']}" + (
            f", holdout AUC {metrics['roc_auc']:.4f}" if "roc_auc" in metrics else ""
        )
    if kind == "evaluations":
        return _evaluation_figures(value)
    if kind == "smoke_tests":
        latency = value["figures"].get("latency_p95_ms")
        return str(value["outcome"]) + (f", 95 % of requests within {latency:.0f} ms" if latency else "")
    if kind == "gate_reports":
        results = value["results"]
        passed = sum(gate["outcome"] == "passed" for gate in results) if isinstance(results, list) else None
        return f"{value['outcome']}: {passed} of {len(results)} gates passed" if passed is not None else ""
    if kind == "model_cards":
        return f"card of {value['model']['name']} v{value['model']['version']}"
    if kind == "decisions":
        return f"{value['outcome']}: {value['model']} v{value['to_version']} ({value['reason']})"
    return ""


def _evaluation_figures(value: dict[str, Any]) -> str:
    told = f"v{value['model']['version']}, AUC {value['metrics']['roc_auc']:.4f}"
    tested = [
        c
        for c in value["comparisons"]
        if c["metric"] == "roc_auc" and c["adjusted_p_value"] is not None and c["lower"] is not None
    ]
    if value["champion"] is None:
        return f"{told}, no champion yet"
    if not tested:
        return f"{told} against the champion's {value['champion_metrics']['roc_auc']:.4f}"
    test = tested[0]
    interval = f"[{test['lower']:+.4f}, {test['upper']:+.4f}]"
    return f"{told}: {test['difference']:+.4f} {interval} to the champion, p = {test['adjusted_p_value']:.2g}"


def _count(items: Any) -> int:
    """How many there are, also of a list that was too long to be handed over."""
    return int(items["count"]) if isinstance(items, dict) else len(items)


def _line(label: str, step: str, state: str, figures: str) -> str:
    return f"{label}  {step:<18} {state:<9} {figures}".rstrip()


def _reason(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        start = line.find("[")
        if "Next step:" in line and start >= 0:
            # An event and its exception say the same twice.
            code, bracket, _ = line[start:].partition("]")
            again = line.find(code + bracket, start + 1)
            told = line[start:] if again < 0 else line[start:again].rsplit(";", 1)[0]
            return told[:700].strip()
    return lines[-1][:700] if lines else "its log is empty"
