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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_xops.examples.demo.airflow_api import AirflowApi
from tests.servers import ServerFailed, ServerProcess, clean_environment, free_ports

__all__ = ["AirflowServer", "airflow"]

START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class AirflowServer:
    """A running Airflow."""

    url: str
    home: Path
    passwords: Mapping[str, str] = field(repr=False)
    processes: Mapping[str, ServerProcess] = field(repr=False)

    def api(self, user: str = "admin") -> AirflowApi:
        """The REST API, signed in as a user."""
        return AirflowApi(self.url, username=user, password=self.passwords[user], timeout_s=60)

    def logs(self, lines: int = 40) -> str:
        """The end of every server's log, for the message of a failed test."""
        return "\n".join(f"--- {name}\n{process.tail(lines)}" for name, process in self.processes.items())


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
