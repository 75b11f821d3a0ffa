"""Runs one program and ends it, with all it has started, when whoever asked for it is gone.

For :mod:`airflow_provider_xops.serving._smoke_process`, which starts this file as a program, in a process
group of its own: ``python _smoke_warden.py REPORT COMMAND...``. Standard input is the leash. A line on it:
end the program politely. Its end (the parent was killed): end everything at once. However it comes to an end,
the last act is a SIGKILL to the whole group, so that no grandchild is left. REPORT then says how the program
ended and how much memory it had needed at most.

It stands between, small and without the model's code, because the program itself may hang in native code, and
because the kernel counts the memory of whoever starts a program as the least that the program has needed.

What it does not do: it cannot outlive a SIGKILL of its own; the parent ends the group then. It does not find
a grandchild that left the group for a session of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

LOOK_SECONDS = 0.05
POLITE_SECONDS = 5.0


def main(report: str, command: list[str]) -> None:
    """Run ``command`` until it ends or the leash says so; ``report`` is a file that is not there yet."""
    asked: list[int] = []
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    deadline = None
    while True:
        pid, status, usage = os.wait4(program.pid, os.WNOHANG)
        if pid:
            break
        # A fork of the parent may hold the leash after it.
        if os.getppid() != parent:
            os.killpg(0, signal.SIGKILL)
        if deadline is None and (asked or _told()):
            os.kill(program.pid, signal.SIGTERM)
            deadline = time.monotonic() + POLITE_SECONDS
        elif deadline is not None:
            time.sleep(LOOK_SECONDS)
            if time.monotonic() > deadline:
                os.kill(program.pid, signal.SIGKILL)
    unit = 1 if sys.platform == "darwin" else 1024
    ended = {"exit_code": os.waitstatus_to_exitcode(status), "peak_memory_bytes": usage.ru_maxrss * unit}
    with open(report + ".part", "w") as file:
        json.dump(ended, file)
    os.replace(report + ".part", report)
    os.killpg(0, signal.SIGKILL)


def _told() -> bool:
    """Wait a moment for a word on the leash; ends the group if nobody holds it any more."""
    readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
    if not readable:
        return False
    if not os.read(0, 64):
        os.killpg(0, signal.SIGKILL)
    return True


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
