"""The main job on a small slice, as a newcomer runs it: real Airflow, real MLflow, no network but loopback.

Three weeks of history, three replayed days, one of them broken and mended; then the same command again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
STORY = {
    "history": ("2013-01-01", "2013-01-21"),
    "week": ("2013-01-22", "2013-01-24"),
    "soiled_day": "2013-01-22",
    "broken_day": "2013-01-23",
    "shifted_day": "2013-01-24",
    "retrain_after": "2013-01-23",
}
RUN = """
import sys
from pathlib import Path
from airflow_provider_xops.examples.demo.main import run_demo
from airflow_provider_xops.examples.demo.replay import Story

sys.exit(run_demo(state=Path(sys.argv[1]), dags=Path(sys.argv[2]), keep=False, story=Story(**{story!r})))
"""
# In a network namespace of its own, where only loopback exists and is up: whatever phones out fails the demo.
LOOPBACK_ONLY = """
import fcntl, os, socket, struct, sys

IFF_UP, SIOCSIFFLAGS = 1, 0x8914
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
assert [name for _, name in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
os.execv(sys.argv[1], sys.argv[1:])
"""


def _demo(state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN.format(story=STORY), str(state), str(REPOSITORY / "dags")]
    if _namespaces_work():
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            sys.executable,
            "-c",
            LOOPBACK_ONLY,
            *command,
        ]
    elif os.environ.get("XOPS_REQUIRE_SERVERS") == "1":
        pytest.fail("this machine cannot make a network namespace, so the loopback-only run is not proved")
    return subprocess.run(command, capture_output=True, text=True, timeout=850, check=False, cwd=REPOSITORY)


def _namespaces_work() -> bool:
    tool = shutil.which("unshare")
    return bool(
        tool
        and subprocess.run(
            [tool, "--user", "--map-root-user", "--net", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )


def _processes_of(state: Path) -> list[str]:
    mark = f"XOPS_DEMO_STATE={state}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    state = tmp_path_factory.mktemp("demo") / "state"
    return state, _demo(state)


def _summary(state: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((state / "summary.json").read_text())
    return summary


def test_the_loop_runs_from_raw_files_to_a_traced_prediction(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    state, done = first

    assert done.returncode == 0, done.stdout + done.stderr
    summary = _summary(state)
    assert summary["ok"], summary["checks"]
    assert summary["days_scored"] == 3
    assert summary["champion"]["metrics"]["roc_auc"] > 0.5
    assert "flights/2013-01-24.csv" in summary["trace_text"]


def test_bad_days_were_stopped_with_their_reasons_and_published_after_they_were_mended(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    state, done = first

    assert "[validation.too_many_quarantined]" in done.stdout
    assert "[validation.out_of_control]" in done.stdout
    assert "Next step:" in done.stdout
    summary = _summary(state)
    assert summary["stopped"].keys() == {STORY["broken_day"], STORY["shifted_day"]}
    (signal,) = summary["signals"]
    assert signal["since"] == STORY["shifted_day"]


def test_bad_rows_were_set_aside_and_no_row_is_lost(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    state, _ = first

    summary = _summary(state)
    tables = {table["table"]: table["rows"] for table in summary["tables"]}
    (quarantined,) = summary["quarantined"]
    assert tables["flights__quarantine"] == quarantined["quarantined"] > 0
    assert tables["flights"] + tables["flights__quarantine"] == tables["flights__raw"]


def test_nothing_is_left_running(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    state, _ = first
    assert _processes_of(state) == []


def test_a_second_run_resumes_and_repeats_nothing(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    state, _ = first
    before = _summary(state)

    again = _demo(state)

    assert again.returncode == 0, again.stdout + again.stderr
    after = _summary(state)
    for unchanged in ("tables", "dataset_versions", "validations", "decisions", "rows_scored", "prediction"):
        assert after[unchanged] == before[unchanged]
    assert _processes_of(state) == []
