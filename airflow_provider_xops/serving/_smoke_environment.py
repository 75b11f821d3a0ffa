"""The Python environment that a model was trained in, built again from what its files say.

For the smoke test with ``environment="recorded"``: the interpreter's version and the pinned requirements that
were saved, and digested, with the model. It is built with ``uv``, which shares its cache of packages between
environments; where packages come from is said by the user's own settings (``UV_...`` variables, ``uv.toml``).
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import time
from pathlib import Path

import yaml

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving._smoke_process import Guarded, child_environment

__all__ = ["NotBuilt", "build_environment", "uv_command"]

log = logging.getLogger(__name__)

_FOR_UV = r"UV_\w+|\w+_PROXY|XDG_\w+|NETRC|PIP_CERT|REQUESTS_CA_BUNDLE"


class NotBuilt(Exception):
    """The environment could not be built; the text says why."""


def uv_command() -> list[str]:
    """How ``uv`` is called here.

    :raises ArgumentError: ``argument.extra_missing``: it is not installed.
    """
    program = shutil.which("uv")
    if program:
        return [program]
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    raise ArgumentError(
        "the recorded environment of a model cannot be built here",
        code="argument.extra_missing",
        why="the program uv is neither on the path nor a package of this Python",
        todo="pip install uv, or test in the current environment",
    )


def build_environment(model: Path, into: Path, *, python: str | None, seconds: float) -> tuple[Path, float]:
    """Build the environment that the model in folder ``model`` names; gives its Python, and the seconds it
    took.

    :param into: a folder that is there; the environment becomes a folder in it.
    :param python: the version of Python where the model's own files name none.
    :raises NotBuilt: it names no requirements, one of them cannot be installed, or it took too long.
    :raises ArgumentError: ``argument.extra_missing``.
    """
    uv, begin = uv_command(), time.monotonic()
    requirements = model / "requirements.txt"
    if not requirements.exists():
        raise NotBuilt("the model's files name no requirements")
    version = _python_of(model) or python
    place = into / "environment"
    steps = [
        ("venv", ["venv", "--no-project", *(["--python", version] if version else []), str(place)]),
        ("install", ["pip", "install", "--python", str(place / "bin" / "python"), "-r", str(requirements)]),
    ]
    environment = child_environment({"UV_NO_PROGRESS": "1", "NO_COLOR": "1"}, also=_FOR_UV)
    for name, arguments in steps:
        with Guarded(f"uv-{name}", [*uv, *arguments], folder=into, environment=environment) as program:
            ended = program.wait(max(0.0, begin + seconds - time.monotonic()))
            if ended is None:
                raise NotBuilt(f"uv {arguments[0]} was not done within {seconds:g} s")
            if ended["exit_code"] != 0:
                raise NotBuilt(f"uv {arguments[0]} ended with {ended['exit_code']}: {program.last_line()}")
    took = time.monotonic() - begin
    log.info("Built the model's recorded environment (Python %s) in %.1f s.", version or "any", took)
    return place / "bin" / "python", took


def _python_of(model: Path) -> str | None:
    try:
        found = (yaml.safe_load((model / "python_env.yaml").read_text()) or {}).get("python")
    except (OSError, yaml.YAMLError, AttributeError):
        return None
    return str(found) if found else None
