"""MLServer's own environment for the tests: made once on this machine, from the list ``mlserver.lock``.

For ``servers.mlserver``. MLServer pins an older FastAPI than Airflow needs, so it cannot live in the suite's
own environment. The environment is kept in the user's cache folder under the digest of the list, where the
next run (or the CI's cache) finds it; an interrupted installation is begun anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["LOCK_FILE", "InstallFailed", "mlserver_environment"]

LOCK_FILE = Path(__file__).with_name("mlserver.lock")
INSTALL_TIMEOUT_S = 900


class InstallFailed(RuntimeError):
    """The environment could not be made: no uv, no packages, or no room."""


def mlserver_environment() -> Path:
    """The folder of an environment in which ``bin/mlserver`` runs.

    :raises InstallFailed: it is not there and could not be made.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(LOCK_FILE.read_bytes() + python.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-provider-xops"
    folder = cache / f"mlserver-{digest}"
    done = folder / ".installed"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"mlserver-{digest}.lock").open("w") as lock:
        # Several test processes may want it at once: one makes it, the others wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            done.touch()
    return folder


def _install(folder: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise InstallFailed("uv, which makes MLServer's environment, is not installed")
    target = str(folder / "bin" / "python")
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", target, "--requirements", str(LOCK_FILE)],
    ):
        try:
            made = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise InstallFailed(f"installing MLServer took more than {INSTALL_TIMEOUT_S} s") from None
        if made.returncode != 0:
            raise InstallFailed(f"MLServer could not be installed: {made.stderr[-500:]}")
