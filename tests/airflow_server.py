"""A real Airflow for the tests: API server, scheduler, DAG processor and triggerer, with users who sign in.

For tests of what needs other processes than the test's own: people answering through the REST API, watchers
in the triggerer. As the servers in ``servers.py``: on free loopback ports, each in its own process group, and
ended by a guard when the test run is killed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.examples.demo.airflow_api import AirflowApi
from tests.servers import ServerFailed, ServerProcess, clean_environment, free_ports

__all__ = ["AirflowServer", "airflow", "patiently"]

START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class AirflowServer:
    """A running Airflow, and short words for what tests do to it."""

    url: str
    home: Path
    passwords: Mapping[str, str] = field(repr=False)
    processes: Mapping[str, ServerProcess] = field(repr=False)
    _apis: dict[str, AirflowApi] = field(default_factory=dict, init=False, repr=False)

    def api(self, user: str = "admin") -> AirflowApi:
        """The REST API, signed in as a user; once for all."""
        if user not in self._apis:
            self._apis[user] = AirflowApi(
                self.url, username=user, password=self.passwords[user], timeout_s=60
            )
        return self._apis[user]

    def start(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run, unless it is there."""
        patiently(lambda: self.api().trigger(dag_id, run_id, dict(conf or {})))

    def state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        """The state of a task that is not mapped; None where it has none yet."""
        tasks = patiently(lambda: self.api().tasks(dag_id, run_id))
        return next((task["state"] for task in tasks if task["task_id"] == task_id), None)

    def answer(
        self,
        user: str,
        dag_id: str,
        run_id: str,
        task_id: str,
        *,
        yes: bool = True,
        reason: str | None = None,
    ) -> int:
        """Answer a question through the REST API; gives the status of the API's answer."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        body: dict[str, Any] = {"chosen_options": ["Approve" if yes else "Reject"], "params_input": {}}
        if reason is not None:
            body["params_input"] = {"reason": reason}
        try:
            patiently(lambda: self.api(user).call("PATCH", path, body))
        except RegistryError as error:
            return int(error.context["status"])
        return 200

    def page(self, path: str, user: str = "admin") -> Any:
        """What a page outside the REST API gives a user who is signed in, as JSON."""
        body = json.dumps({"username": user, "password": self.passwords[user]}).encode()
        kind = {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/auth/token", body, kind), timeout=60
        ) as answer:
            token = json.load(answer)["access_token"]
        asked = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def until(self, true: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        """Wait for something that real processes do.

        :raises AssertionError: it did not come, with what the servers said.
        """
        deadline = time.monotonic() + seconds
        while not (found := patiently(true)):
            assert time.monotonic() < deadline, f"{what} did not come\n{self.logs()}"
            time.sleep(0.5)
        return found

    def dags_are_there(self, *dag_ids: str) -> None:
        """Wait until the DAGs can be run; none of the files may have an error."""

        def there() -> bool:
            errors = self.api().import_errors()
            assert not errors, errors[0]["stack_trace"]
            return set(dag_ids) <= set(self.api().dags())

        self.until(there, f"the DAGs {', '.join(dag_ids)}")

    def parked(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Wait until a task waits, and the scheduler has heard that its worker is gone.

        A task that goes on before that is failed by Airflow 3.3, which takes the end of the worker that asked
        for the end of one that never began. People are slower.
        """
        self.until(
            lambda: self.state(dag_id, run_id, task_id) in ("awaiting_input", "deferred"),
            f"{task_id} of {run_id}",
        )
        log = self.home / "airflow-scheduler.log"
        heard = f"Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        self.until(lambda: heard in log.read_text(errors="replace"), f"the scheduler's word on {task_id}")

    def ended(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """The run, once it is over."""

        def over() -> dict[str, Any] | None:
            run = self.api().run(dag_id, run_id)
            return run if run["state"] in ("success", "failed") else None

        found: dict[str, Any] = self.until(over, f"the end of {run_id}")
        return found

    def why_failed(self, dag_id: str, run_id: str) -> str:
        """The ends of the logs of the tasks that did not succeed."""
        return "\n".join(
            f"{task['task_id']}: {task['state']}\n{self.api().task_log(dag_id, run_id, task)[-3000:]}"
            for task in self.api().tasks(dag_id, run_id)
            if task["state"] not in ("success", "upstream_failed")
        )

    def logs(self, lines: int = 40) -> str:
        """The end of every server's log, for the message of a failed test."""
        return "\n".join(f"--- {name}\n{process.tail(lines)}" for name, process in self.processes.items())


def patiently(ask: Callable[[], Any]) -> Any:
    """What a request gives; repeated where Airflow's SQLite was busy (HTTP 500, and nothing was changed)."""
    for _ in range(20):
        try:
            return ask()
        except RegistryError as error:
            if error.context.get("status") != 500:
                raise
            time.sleep(0.5)
    return ask()


@contextlib.contextmanager
def airflow(
    dags: Mapping[str, str],
    *,
    users: Mapping[str, str],
    environment: Mapping[str, str],
    triggerer: bool = True,
    parallelism: int = 4,
) -> Iterator[AirflowServer]:
    """Airflow on SQLite with a LocalExecutor, ready to run the DAGs.

    :param dags: names and texts of DAG files.
    :param users: user names with their roles (``admin``, ``op``, ``user``, ``viewer``); ``admin`` is added.
    :param environment: more environment of every process: connections for example.
    :raises ServerFailed: a server did not start.
    """
    home = Path(tempfile.mkdtemp(prefix="xops-airflow-"))
    processes: dict[str, ServerProcess] = {}
    try:
        (home / "dags").mkdir()
        for name, text in dags.items():
            (home / "dags" / name).write_text(text)
        everybody = {"admin": "admin", **users}
        passwords = {name: secrets.token_urlsafe(12) for name in everybody}
        (home / "passwords.json").write_text(json.dumps(passwords))
        ports = dict(zip(("api", "worker_log", "trigger_log"), free_ports(3), strict=True))
        url = f"http://127.0.0.1:{ports['api']}"
        variables = clean_environment(
            {**_configuration(home, url, ports, everybody, parallelism), **environment}
        )
        made = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=variables, cwd=home, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S,
        )  # fmt: skip
        if made.returncode:
            raise ServerFailed(f"airflow db migrate ended with {made.returncode}:\n{made.stderr[-3000:]}")
        names = ["api-server", "scheduler", "dag-processor", *(["triggerer"] if triggerer else [])]
        for name in names:
            command = [sys.executable, "-m", "airflow", name]
            processes[name] = ServerProcess(f"airflow-{name}", command, home, variables)
            processes[name].start()
        server = AirflowServer(url, home, passwords, processes)
        _wait_healthy(server, names)
        yield server
    finally:
        with ThreadPoolExecutor() as together:
            list(together.map(ServerProcess.stop, processes.values()))
        shutil.rmtree(home, ignore_errors=True)


def _configuration(
    home: Path, url: str, ports: Mapping[str, int], users: Mapping[str, str], parallelism: int
) -> dict[str, str]:
    secret = secrets.token_urlsafe(72)
    sections: dict[str, dict[str, Any]] = {
        "core": {
            "dags_folder": home / "dags", "load_examples": False, "executor": "LocalExecutor",
            "parallelism": parallelism, "dags_are_paused_at_creation": False, "fernet_key": "",
            "simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in users.items()),
            "simple_auth_manager_all_admins": False,
            "simple_auth_manager_passwords_file": home / "passwords.json",
            "execution_api_server_url": f"{url}/execution/", "dagbag_import_timeout": 300,
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60"},
        "api": {
            "host": "127.0.0.1", "port": ports["api"], "base_url": url, "secret_key": secret, "workers": 1,
        },
        "api_auth": {"jwt_secret": secret},
        "scheduler": {"scheduler_idle_sleep_time": 0.2, "trigger_timeout_check_interval": 1},
        "dag_processor": {"min_file_process_interval": 300, "refresh_interval": 300},
        "logging": {
            "worker_log_server_port": ports["worker_log"], "trigger_log_server_port": ports["trigger_log"],
            "base_log_folder": home / "logs",
        },
        # A busy machine is slow, not broken.
        "workers": {"execution_api_timeout": 60},
        "usage_data_collection": {"enabled": False},
    }  # fmt: skip
    return {
        "AIRFLOW_HOME": str(home),
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **{
            f"AIRFLOW__{section.upper()}__{name.upper()}": str(value)
            for section, options in sections.items()
            for name, value in options.items()
        },
    }


def _wait_healthy(server: AirflowServer, names: list[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    wanted = [name.replace("-", "_") for name in names if name != "api-server"]
    while True:
        health: dict[str, Any] = {}
        with (
            contextlib.suppress(urllib.error.URLError, OSError, ValueError),
            urllib.request.urlopen(f"{server.url}/api/v2/monitor/health", timeout=10) as answer,
        ):
            health = json.load(answer)
        if health and all((health.get(name) or {}).get("status") == "healthy" for name in wanted):
            return
        ended = [name for name, process in server.processes.items() if not process.alive()]
        if ended:
            raise ServerFailed(f"{ended[0]} ended while starting:\n{server.processes[ended[0]].tail()}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"Airflow is not healthy after {START_TIMEOUT_S:.0f} s:\n{server.logs()}")
        time.sleep(0.3)
