"""Programs on a leash: ended with their children however the task comes to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_xops.serving import smoke
from airflow_provider_xops.serving._smoke_process import Guarded, child_environment

# A program with a child of its own; neither ever ends, nor minds a polite word.
STUBBORN = "trap '' TERM; sleep 1000 & echo started > started; sleep 1000"


def alive(marker: str) -> list[int]:
    """The processes that carry ``marker`` in their environment, without zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MARKER={marker}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def wait_for(happened: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def guarded(folder: Path, script: str) -> Guarded:
    environment = child_environment({"MARKER": str(folder)})
    return Guarded("program", ["sh", "-c", script], folder=folder, environment=environment)


def test_a_program_says_how_it_ended_and_how_much_memory_it_needed(tmp_path: Path) -> None:
    script = f"exec {sys.executable} -c 'held = b\"x\" * (200 << 20); raise SystemExit(5)'"
    with guarded(tmp_path, script) as program:
        ended = program.wait(60)
    assert ended is not None
    assert ended["exit_code"] == 5
    # 200 MiB and an interpreter: not the memory of this test's own process.
    assert 200 << 20 < ended["peak_memory_bytes"] < 300 << 20


def test_memory_of_this_process_is_not_counted_as_the_programs(tmp_path: Path) -> None:
    held = bytearray(300 << 20)
    with guarded(tmp_path, "exit 0") as program:
        ended = program.wait(60)
    assert len(held) == 300 << 20
    assert ended is not None
    assert ended["peak_memory_bytes"] < 100 << 20


def test_leaving_the_block_by_a_kill_ends_the_program_and_its_children(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def task() -> None:
        with guarded(tmp_path, STUBBORN):
            wait_for((tmp_path / "started").exists)
            assert len(alive(str(tmp_path))) >= 3
            raise Killed

    with pytest.raises(Killed):
        task()
    wait_for(lambda: not alive(str(tmp_path)))


def test_a_program_that_ends_leaves_no_child_behind(tmp_path: Path) -> None:
    with guarded(tmp_path, "sleep 1000 & exit 0") as program:
        assert program.wait(20) is not None
        wait_for(lambda: not alive(str(tmp_path)))


def test_a_program_that_does_not_mind_is_ended_after_a_while(tmp_path: Path) -> None:
    with guarded(tmp_path, STUBBORN) as program:
        wait_for((tmp_path / "started").exists)
        ended = program.stop()
    assert ended is not None
    assert ended["exit_code"] == -signal.SIGKILL
    wait_for(lambda: not alive(str(tmp_path)))


def test_a_sigkill_of_the_task_ends_the_program_and_its_children(tmp_path: Path) -> None:
    task_code = (
        "import sys, time; from pathlib import Path; from tests.unit.serving import test_smoke_process as t\n"
        "folder = Path(sys.argv[1])\n"
        "with t.guarded(folder, t.STUBBORN): time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", task_code, str(tmp_path)]) as task:
        wait_for((tmp_path / "started").exists, 60)
        assert len(alive(str(tmp_path))) >= 3
        os.kill(task.pid, signal.SIGKILL)
    wait_for(lambda: not alive(str(tmp_path)))


def test_a_fork_that_holds_the_leash_does_not_keep_the_program_alive(tmp_path: Path) -> None:
    # A fork inherits the pipe, as Popen keeps it from programs only.
    task_code = (
        "import os, sys, time; from pathlib import Path\n"
        "from tests.unit.serving import test_smoke_process as t\n"
        "folder = Path(sys.argv[1])\n"
        "with t.guarded(folder, t.STUBBORN):\n"
        "    if os.fork() == 0: time.sleep(30); os._exit(0)\n"
        "    time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", task_code, str(tmp_path)], start_new_session=True) as task:
        wait_for((tmp_path / "started").exists, 60)
        os.kill(task.pid, signal.SIGKILL)
        try:
            wait_for(lambda: not alive(str(tmp_path)), 10)
        finally:
            os.killpg(task.pid, signal.SIGKILL)


def test_the_task_s_secrets_stay_with_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW_CONN_LAKE", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "hunter2-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    kept = child_environment({"ONE": "more"})
    assert "hunter2-secret" not in kept.values()
    assert (kept["OMP_NUM_THREADS"], kept["ONE"], kept["PATH"]) == ("2", "more", os.environ["PATH"])
    assert child_environment(also=r"UV_\w+")["UV_INDEX_URL"] == "hunter2-secret"


def test_the_model_computes_with_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in smoke._ONE_THREAD:
        monkeypatch.delenv(name, raising=False)
    assert set(smoke._ONE_THREAD.items()) <= set(smoke._environment({}).items())
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert smoke._environment({})["OMP_NUM_THREADS"] == "4"


def test_the_last_line_has_no_password(tmp_path: Path) -> None:
    with guarded(
        tmp_path, "echo first; echo no such thing at https://me:hunter2@example.org/simple; echo"
    ) as it:
        it.wait(20)
        assert it.last_line() == "no such thing at https://example.org/simple"
