"""The demo's processes: Airflow (SQLite, LocalExecutor), an MLflow server, a scoring server, and a lake in a
folder.

For ``xops demo`` and the system test. All state lies under one folder, all ports are free ones on loopback,
every process gets a log file, and :meth:`Stack.stop` leaves none behind: processes are found by a mark in
their environment, so even the children of a killed scheduler go.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from airflow_provider_xops.errors import UnavailableError

__all__ = ["USERS", "Stack"]

MARK = "XOPS_DEMO_STATE"
USERS = ("admin", "ana")
# Programs of the environment that runs the demo, whatever PATH says.
MODULES = ("airflow", "mlflow", "airflow_provider_xops.cli")
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 15


class Stack:
    """Starts and stops the demo's servers.

    :param state: folder of all state (``.xops``); created if missing, reused if present.
    :param dags: folder of the DAG files Airflow reads.
    :param parallelism: how many tasks may run at once.
    """

    def __init__(self, state: Path, *, dags: Path, parallelism: int = 3) -> None:
        self.state = state.resolve()
        self.dags = dags.resolve()
        self.parallelism = parallelism
        self.logs = self.state / "logs"
        self.landing = self.state / "landing"
        self.lake_uri = str(self.state / "lake")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for folder in (self.state, self.logs, self.landing):
            folder.mkdir(parents=True, exist_ok=True)
        self.ports = self._ports()
        self.airflow_url = f"http://127.0.0.1:{self.ports['airflow']}"
        self.mlflow_url = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.serving_url = f"http://127.0.0.1:{self.ports['serving']}"

    # -- what the processes see -------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The environment of every process: Airflow's configuration, the connections, telemetry off."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW_", "XOPS_"))}
        for name in ("no_proxy", "NO_PROXY"):
            keep[name] = ",".join(filter(None, [keep.get(name), "127.0.0.1", "localhost"]))
        secret = self._secrets()
        home = self.state / "airflow"
        return {
            **keep,
            MARK: str(self.state),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{keep.get('PATH', '')}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self.parallelism),
            "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "4",
            "AIRFLOW__CORE__FERNET_KEY": secret["fernet"],
            # A release asks two people.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:admin" for user in USERS),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.ports["airflow"]),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__SECRET_KEY": secret["api"],
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secret["jwt"],
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.ports["worker_log"]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self.ports["trigger_log"]),
            "AIRFLOW__SECRETS__USE_CACHE": "False",
            "AIRFLOW_CONN_XOPS_LAKE_DEFAULT": json.dumps(
                {"conn_type": "xops_lake", "extra": {"uri": self.lake_uri}}
            ),
            "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT": json.dumps(
                {"conn_type": "xops_mlflow", "host": self.mlflow_url, "extra": {"ui_url": self.mlflow_url}}
            ),
            "AIRFLOW_CONN_XOPS_SERVING_DEFAULT": json.dumps(
                {"conn_type": "xops_serving", "host": self.serving_url, "extra": {"kind": "xops"}}
            ),
            "AIRFLOW_VAR_XOPS_FLIGHTS_LANDING": str(self.landing),
            "XOPS_LAKE_URI": self.lake_uri,
            "XOPS_MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GX_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONWARNINGS": "ignore",
        }

    # -- start ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and wait until Airflow's scheduler and MLflow answer.

        :raises UnavailableError: a server did not come up; names the server and its log file.
        """
        self.kill_leftovers()
        (self.state / "mlflow").mkdir(exist_ok=True)
        (self.state / "airflow").mkdir(exist_ok=True)
        self._spawn(
            "mlflow",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.ports["mlflow"]),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{self.state}/mlflow/mlflow.db",
            "--artifacts-destination",
            str(self.state / "mlflow" / "artifacts"),
        )
        self._run_once("airflow-db-migrate", "airflow", "db", "migrate")
        self._spawn("airflow-api-server", "airflow", "api-server")
        self._spawn("airflow-scheduler", "airflow", "scheduler")
        self._spawn("airflow-dag-processor", "airflow", "dag-processor")
        self._wait("airflow-api-server", f"{self.airflow_url}/api/v2/version")
        self._wait("mlflow", f"{self.mlflow_url}/version")
        self._wait(
            "airflow-scheduler", f"{self.airflow_url}/api/v2/monitor/health", self._scheduler_is_healthy
        )

    def start_triggerer(self) -> None:
        """Start Airflow's triggerer too: nothing in the demo's flow waits for one, but the user's own DAGs
        may."""
        self._spawn("airflow-triggerer", "airflow", "triggerer")

    def start_server(self, model: str, *, log_table: str) -> None:
        """Start the scoring server of a model and wait until it can answer. It follows the promotion ledger.

        :raises UnavailableError: it did not come up.
        """
        self._spawn(
            "xops-serve", "airflow_provider_xops.cli", "serve", model, "--port", str(self.ports["serving"]),
            "--log-table", log_table, "--poll-seconds", "1",
        )  # fmt: skip
        self._wait("xops-serve", f"{self.serving_url}/v2/health/ready")

    def password(self, user: str = USERS[0]) -> str:
        """The generated password of one of Airflow's ``USERS``."""
        path = self.state / "airflow" / "simple_auth_manager_passwords.json.generated"
        return str(json.loads(path.read_text())[user])

    def died(self) -> str | None:
        """The name of a server that ended by itself, if one did."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                return f"{name} (exit code {process.returncode}, log: {self.logs / (name + '.log')})"
        return None

    # -- stop -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop every process, politely first; returns when none is left."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()
        self._processes.clear()
        self.kill_leftovers()

    def kill_leftovers(self) -> None:
        """Kill what an earlier run with the same state folder left behind (it was killed before it could
        stop)."""
        for _ in range(3):
            pids = _marked(self.state)
            if not pids:
                return
            for pid in pids:
                try:
                    # Airflow's workers write their titles over the mark: they go with the group they are in.
                    if os.getpgid(pid) == pid:
                        os.killpg(pid, signal.SIGKILL)
                    else:
                        os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)

    # -- helpers ----------------------------------------------------------------------------------------

    def _spawn(self, name: str, *command: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command] if command[0] in MODULES else list(command),
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.state,
                start_new_session=True,
            )

    def _run_once(self, name: str, *command: str) -> None:
        log = self.logs / f"{name}.log"
        with log.open("ab") as out:
            code = subprocess.run(
                [sys.executable, "-m", *command],
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.state,
                check=False,
            ).returncode
        if code:
            raise UnavailableError(
                f"{' '.join(command)} ended with exit code {code}",
                code="unavailable.demo_server",
                why=_last_line(log),
                todo=f"read {log}",
            )

    def _wait(self, name: str, url: str, healthy: Callable[[bytes], bool] | None = None) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        log = self.logs / f"{name}.log"
        while time.monotonic() < deadline:
            dead = self.died()
            if dead:
                raise UnavailableError(
                    f"{dead} ended while it was starting",
                    code="unavailable.demo_server",
                    why=_last_line(log),
                    todo="read that log; if a port was taken, run the demo again",
                )
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    body = answer.read()
                if healthy is None or healthy(body):
                    return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.3)
        raise UnavailableError(
            f"{name} did not answer within {START_TIMEOUT_S} s at {url}",
            code="unavailable.demo_server",
            why=_last_line(log),
            todo=f"read {log}",
        )

    @staticmethod
    def _scheduler_is_healthy(body: bytes) -> bool:
        return bool(json.loads(body)["scheduler"]["status"] == "healthy")

    def _ports(self) -> dict[str, int]:
        path = self.state / "ports.json"
        names = ("airflow", "mlflow", "serving", "worker_log", "trigger_log")
        if path.exists():
            known: dict[str, int] = json.loads(path.read_text())
            if set(known) == set(names) and (all(_is_free(p) for p in known.values()) or _marked(self.state)):
                return known
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        path.write_text(json.dumps(ports))
        return ports

    def _secrets(self) -> dict[str, str]:
        path = self.state / "secrets.json"
        if not path.exists():
            from cryptography.fernet import Fernet

            made = {
                "fernet": Fernet.generate_key().decode(),
                "api": secrets.token_urlsafe(48),
                "jwt": secrets.token_urlsafe(72),
            }
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(made, file)
        secret: dict[str, str] = json.loads(path.read_text())
        return secret


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _marked(state: Path) -> list[int]:
    mark = f"{MARK}={state}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*") if Path("/proc").is_dir() else ():
        pid = int(entry.name)
        if pid == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def _signal_group(process: subprocess.Popen[bytes], sig: signal.Signals) -> None:
    try:
        os.killpg(process.pid, sig)
    except ProcessLookupError:
        return


def _last_line(log: Path) -> str:
    if not log.exists():
        return "it wrote no log"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"
