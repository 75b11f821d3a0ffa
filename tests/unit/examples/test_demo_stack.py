"""The demo's processes: configuration, secrets, and that none is left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.examples.demo import stack as stack_module
from airflow_provider_xops.examples.demo.stack import Stack


def _stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path / "state", dags=tmp_path)


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    assert _stack(tmp_path).ports == _stack(tmp_path).ports


def test_a_port_taken_by_somebody_else_is_chosen_anew(tmp_path: Path) -> None:
    import socket

    before = _stack(tmp_path).ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", before["airflow"]))
        taken.listen()
        after = _stack(tmp_path).ports
    assert after["airflow"] != before["airflow"]


def test_secrets_are_made_once_and_only_the_owner_can_read_them(tmp_path: Path) -> None:
    stack = _stack(tmp_path)
    first = stack.environment()
    path = tmp_path / "state" / "secrets.json"

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _stack(tmp_path).environment()["AIRFLOW__CORE__FERNET_KEY"] == first["AIRFLOW__CORE__FERNET_KEY"]
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64


def test_the_users_own_airflow_settings_do_not_reach_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://production")
    environment = _stack(tmp_path).environment()

    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert "MLFLOW_TRACKING_URI" not in environment
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["GX_ANALYTICS_ENABLED"] == "false"


def test_the_connections_are_of_the_providers_types(tmp_path: Path) -> None:
    environment = _stack(tmp_path).environment()
    assert json.loads(environment["AIRFLOW_CONN_XOPS_LAKE_DEFAULT"])["conn_type"] == "xops_lake"
    assert json.loads(environment["AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT"])["conn_type"] == "xops_mlflow"
    assert json.loads(environment["AIRFLOW_CONN_XOPS_SERVING_DEFAULT"])["conn_type"] == "xops_serving"


def test_what_a_killed_demo_left_running_is_found_and_killed(tmp_path: Path) -> None:
    stack = _stack(tmp_path)
    unmarked = "subprocess.Popen(['sleep', '600'], env={'PATH': os.environ['PATH']}).pid"
    orphan = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, subprocess, time; print({unmarked}, flush=True); time.sleep(600)",
        ],
        env={**os.environ, stack_module.MARK: str(stack.state)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert orphan.stdout is not None
    worker = Path("/proc", orphan.stdout.readline().decode().strip())
    assert worker.exists()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    stack.kill_leftovers()

    assert orphan.wait(timeout=30) == -9
    deadline = time.monotonic() + 30
    while _lives(worker):
        assert time.monotonic() < deadline, "a worker without the mark is left"
        time.sleep(0.05)
    assert other.poll() is None
    other.communicate(b"\n", timeout=30)


def _lives(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_that_fails_says_which_why_and_where_its_log_is(tmp_path: Path) -> None:
    stack = _stack(tmp_path)
    with pytest.raises(UnavailableError) as raised:
        stack._run_once("a-step", "no_such_module_of_anybody")
    assert "no_such_module_of_anybody" in str(raised.value)
    assert str(stack.logs / "a-step.log") in str(raised.value)


def test_a_server_that_dies_while_starting_is_reported_at_once(tmp_path: Path) -> None:
    stack = _stack(tmp_path)
    stack._spawn("broken", sys.executable, "-c", "raise SystemExit('the reason')")
    with pytest.raises(UnavailableError, match="the reason"):
        stack._wait("broken", "http://127.0.0.1:9/")
    stack.stop()
