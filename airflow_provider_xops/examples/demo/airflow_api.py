"""A small client of Airflow's public REST API (v2), for the demo and the system test.

Only what the replay needs: trigger a run, watch it, clear it, read a task's log and XCom. Standard library
only.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from airflow_provider_xops.errors import NotFoundError, RegistryError, UnavailableError

__all__ = ["AirflowApi"]


class AirflowApi:
    """Airflow's REST API, signed in as one user.

    :raises UnavailableError: the server does not answer. :raises NotFoundError: 404.
    :raises RegistryError: any other refusal, with Airflow's own reason.
    """

    def __init__(self, url: str, *, username: str, password: str, timeout_s: float = 30) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._credentials = {"username": username, "password": password}
        self._token = ""

    def sign_in(self) -> None:
        """Get a token (they expire; :meth:`call` signs in again by itself)."""
        self._token = self._send("POST", "/auth/token", self._credentials)["access_token"]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request under ``/api/v2``; the decoded JSON answer."""
        if not self._token:
            self.sign_in()
        try:
            return self._send(method, f"/api/v2{path}", body)
        except PermissionError:
            self.sign_in()
            return self._send(method, f"/api/v2{path}", body)

    def dags(self) -> dict[str, dict[str, Any]]:
        """Every DAG by id."""
        return {dag["dag_id"]: dag for dag in self.call("GET", "/dags?limit=100")["dags"]}

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that did not import."""
        errors: list[dict[str, Any]] = self.call("GET", "/importErrors")["import_errors"]
        return errors

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> dict[str, Any]:
        """Start a run under a fixed id; if it exists already, the existing run is returned."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        try:
            run: dict[str, Any] = self.call("POST", f"/dags/{dag_id}/dagRuns", body)
        except RegistryError as error:
            if error.context.get("status") != 409:
                raise
            run = self.run(dag_id, run_id)
        return run

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        run: dict[str, Any] = self.call("GET", _run_path(dag_id, run_id))
        return run

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG, oldest first."""
        runs: list[dict[str, Any]] = self.call("GET", f"/dags/{dag_id}/dagRuns?limit=100&order_by=run_after")[
            "dag_runs"
        ]
        return runs

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances?limit=100"
        tasks: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return tasks

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Clear a run's failed and upstream-failed tasks, so that they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": True,
            "reset_dag_runs": True,
            "include_downstream": True,
        }
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear all tasks of a run."""
        self.call("POST", f"{_run_path(dag_id, run_id)}/clear", {"dry_run": False, "only_failed": False})

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """What a task returned; of a mapped one the instance ``map_index``."""
        path = (
            f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
            f"?deserialize=true&map_index={map_index}"
        )
        return self.call("GET", path)["value"]

    def task_log(self, dag_id: str, run_id: str, task: dict[str, Any]) -> str:
        """The log of a task's last try, one event a line."""
        path = (
            f"{_run_path(dag_id, run_id)}/taskInstances/{task['task_id']}/logs/{max(1, task['try_number'])}"
            f"?map_index={task['map_index']}&full_content=true"
        )
        content = self.call("GET", path)["content"]
        if isinstance(content, str):
            return content
        return "\n".join(
            " ".join(str(part) for part in (event.get("event"), _exception_text(event)) if part)
            for event in content
            if isinstance(event, dict)
        )

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            if error.code == 401 and self._token:
                self._token = ""
                raise PermissionError from error
            if error.code == 404:
                raise NotFoundError(
                    f"Airflow has no {path}",
                    code="not_found.airflow",
                    why=detail,
                    todo="look at it in the Airflow UI",
                ) from error
            raise RegistryError(
                f"Airflow refused {method} {path} with HTTP {error.code}",
                code="registry.airflow_refused",
                why=detail,
                todo="read the api-server's log",
                context={"status": error.code},
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"Airflow at {self.url} does not answer",
                code="unavailable.airflow",
                why=str(error),
                todo="read the api-server's log",
            ) from error


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id, safe='')}"


def _exception_text(event: dict[str, Any]) -> str:
    details = event.get("error_detail") or []
    return "; ".join(
        f"{item.get('exc_type')}: {item.get('exc_value')}" for item in details if isinstance(item, dict)
    )
