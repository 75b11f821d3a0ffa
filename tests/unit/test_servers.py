"""The test servers themselves: they leave nothing behind, and a missing one cannot hide."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests import servers

REPOSITORY = Path(__file__).resolve().parents[2]


def _gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody reaps has ended too)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def _wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            pytest.fail(f"waited a minute for: {what}")
        time.sleep(0.05)


def test_free_ports_are_different() -> None:
    assert len(set(servers.free_ports(20))) == 20


def test_a_server_is_stopped_and_its_folder_removed_when_the_test_fails() -> None:
    seen: list[tuple[int, Path]] = []

    def failing_test() -> None:
        with servers.seaweedfs(buckets=["one"]) as server:
            seen.append((server.process.pid, server.process.folder))
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        failing_test()
    ((pid, folder),) = seen
    assert _gone(pid)
    assert not folder.exists()


def test_a_server_is_stopped_and_its_folder_removed_when_the_test_run_is_killed() -> None:
    program = textwrap.dedent(
        """
        import time
        from tests import servers
        with servers.seaweedfs(buckets=["one"]) as server:
            print(server.process.pid, server.process.folder, flush=True)
            time.sleep(300)
        """
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=dict(os.environ),
    )
    assert run.stdout is not None
    pid_text, folder = run.stdout.readline().split()
    run.send_signal(signal.SIGKILL)
    run.wait()
    _wait_for(lambda: _gone(int(pid_text)), "the orphaned server to be stopped by its guard")
    _wait_for(lambda: not Path(folder).exists(), "its folder to be removed")


def test_a_server_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    process = servers.ServerProcess(
        "broken", ["sh", "-c", "echo no disk today; exit 3"], tmp_path, servers.clean_environment()
    )
    process.start()
    try:
        with pytest.raises(servers.ServerFailed, match="no disk today"):
            process.wait_ready(lambda: False)
    finally:
        process.stop()


@pytest.mark.parametrize(("required", "summary"), [("0", "1 skipped"), ("1", "1 error")])
def test_a_skip_for_a_missing_server_fails_where_servers_are_required(
    tmp_path: Path, required: str, summary: str
) -> None:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import pytest
            from tests import servers
            from tests.conftest import *

            @pytest.fixture(scope="session")
            def seaweedfs():
                pytest.skip("weed is not installed")

            def test_needs_it(seaweedfs): ...
            """
        )
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "tests.conftest",
            "-c",
            str(REPOSITORY / "pyproject.toml"),
            "--rootdir",
            str(tmp_path),
            str(tmp_path / "test_it.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"XOPS_REQUIRE_SERVERS": required, "PYTHONPATH": str(REPOSITORY)},
    )
    assert summary in run.stdout.splitlines()[-1], run.stdout + run.stderr
