"""Programs that do not outlive the task: each in a process group of its own, on a leash.

For the smoke test: the scoring server, and the building of an environment. See
:mod:`airflow_provider_xops.serving._smoke_warden` for what holds the other end of the leash.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

__all__ = ["Guarded", "child_environment", "read_report"]

LOOK_SECONDS = 0.02
STOP_SECONDS = 15.0
_WARDEN = Path(__file__).with_name("_smoke_warden.py")
# What a program needs of the task's environment. All else stays here: connections, passwords, cloud keys.
_KEPT = re.compile(
    r"PATH|HOME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_\w+|USER|LOGNAME"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR|LOKY|CUDA|NVIDIA)_\w+"
)


class Guarded:
    """A program that ends when the block ends, and when this process is killed in the middle of it.

    :param folder: for its log and its report; private to it.
    :param environment: all of its environment.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = dict(environment)
        self._report = folder / f"{name}.ended.json"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_WARDEN), str(self._report), *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        # A warden that has ended has ended its group with it; its number may be somebody else's by now.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    @property
    def ended(self) -> dict[str, Any] | None:
        """How it ended (``exit_code``, ``peak_memory_bytes``); None while it runs."""
        report = read_report(self._report)
        if report is None and self._process is not None and self._process.poll() is not None:
            return read_report(self._report) or {"exit_code": self._process.returncode}
        return report

    def stop(self) -> dict[str, Any] | None:
        """Ask it to end, and wait for that; None where it did not end in time."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b"stop\n")
                self._process.stdin.flush()
        return self.wait(STOP_SECONDS)

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """Wait for its end; None where it takes longer."""
        deadline = time.monotonic() + seconds
        while (ended := self.ended) is None and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return ended

    def last_line(self) -> str:
        """The last line it has printed that says something; without user names and passwords in addresses."""
        try:
            text = (self.folder / f"{self.name}.log").read_text(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
        return re.sub(r"//[^/\s@]*@", "//", lines[-1])[:300] if lines else ""


def child_environment(extra: Mapping[str, str] | None = None, *, also: str = "(?!)") -> dict[str, str]:
    """The environment for a program: paths, language, threads and certificates of this one's, and ``extra``.

    :param also: a regular expression of further names to keep.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if _KEPT.fullmatch(name) or re.fullmatch(also, name, flags=re.IGNORECASE)
    }
    return {**kept, **(extra or {})}


def read_report(path: Path) -> dict[str, Any] | None:
    """What a program has reported; None where it has not."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found
