"""User code by name: ``package.module:function`` to a callable, the version and digest of the code behind it.

For every place that runs something the user wrote or chose: transformations, suites, estimators. A name
travels between tasks, hosts and records; a function object does not. So what cannot be imported again
elsewhere by its name is refused here, with the reason.

What it does not do: it sandboxes nothing. Importing a module runs it; name only code you trust.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import UserCodeError

__all__ = ["code_version", "reference_of", "resolve_callable", "source_digest"]

# Airflow's DagBag imports every DAG file under this prefix plus a hash of its path.
DAG_FILE_PREFIX = "unusual_prefix_"
REFERENCE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")
GIT_TIMEOUT_SECONDS = 10
FORM = "name it as package.module:function, from a package that every worker can import"


def resolve_callable(ref: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function or class behind ``package.module:name``.

    :param ref: the name, or the callable itself, returned after checking that its name leads to it.
    :raises UserCodeError: ``user_code.malformed`` (not of that form, or not callable), ``user_code.lambda``,
        ``user_code.nested`` (defined inside a function), ``user_code.main`` (of ``__main__``),
        ``user_code.dag_file`` (of a DAG file), ``user_code.import_failed`` (the module raised),
        ``user_code.not_found`` (no such module or name).

    >>> resolve_callable("math:sqrt")(9.0)
    3.0
    """
    if not isinstance(ref, str):
        return _check_object(ref)
    match = REFERENCE.fullmatch(ref.strip())
    if match is None:
        raise UserCodeError(
            f"{ref!r} is not a reference to user code", code="user_code.malformed",
            why="it is not of the form package.module:function", todo=FORM,
        )  # fmt: skip
    module_name, name = match["module"], match["name"]
    _refuse_module(module_name, ref)
    found = _attribute(_import(module_name, ref), name, ref)
    if not callable(found):
        raise UserCodeError(
            f"{ref} is a {type(found).__name__}, not a function or class", code="user_code.malformed",
            todo=FORM,
        )  # fmt: skip
    target: Callable[..., Any] = found
    return target


def reference_of(ref: str | Callable[..., Any]) -> str:
    """The name ``package.module:name`` of a callable (a string is checked and returned stripped).

    :raises UserCodeError: as :func:`resolve_callable`.

    >>> import math
    >>> reference_of(math.sqrt)
    'math:sqrt'
    """
    target = resolve_callable(ref)
    return ref.strip() if isinstance(ref, str) else f"{target.__module__}:{target.__qualname__}"


def code_version(ref: str | Callable[..., Any]) -> str:
    """The version of the code behind a reference, for records: where to read what ran.

    ``git:<sha of HEAD>`` when the file that defines it is tracked in a git checkout and has no uncommitted
    change, else ``sha256:<hash>`` of that file. It says nothing about the modules which that file imports
    when they lie outside the checkout: the environment recorded with a run does.

    Whether work was done already is decided by :func:`source_digest`: HEAD is another one whenever anything
    in its repository is committed.

    :raises UserCodeError: as :func:`resolve_callable`; ``user_code.no_source`` when there is no file to hash.
    """
    file = _defining_file(ref)
    commit = _clean_commit(file) if file else None
    return f"git:{commit}" if commit else _hash(file)


def source_digest(ref: str | Callable[..., Any]) -> str:
    """``sha256:<hash>`` of the file that defines a function or class: for fingerprints of work.

    The same while nobody changes that file, whatever else is committed, and on every host that has it.

    What it does not see: modules that the file imports, and files that it reads. After changing a helper,
    change the module itself too, or an argument that it is called with; clearing the task alone gives what
    was made before.

    :raises UserCodeError: as :func:`code_version`.

    >>> source_digest("json:dumps")[:7]
    'sha256:'
    """
    return _hash(_defining_file(ref))


def _defining_file(ref: str | Callable[..., Any]) -> Path | None:
    """The file that defines it; None for a module built into the interpreter, which has none."""
    target = resolve_callable(ref)
    module_name = getattr(target, "__module__", None) or str(ref).partition(":")[0]
    file = _module_file(module_name)
    if file is None and module_name not in sys.builtin_module_names:
        raise UserCodeError(
            f"the code version of {module_name} is unknown", code="user_code.no_source",
            why="the module has no file", todo="use a function of an ordinary module",
        )  # fmt: skip
    return file


def _hash(file: Path | None) -> str:
    return "sha256:" + hashlib.sha256(file.read_bytes() if file else sys.version.encode()).hexdigest()


def _check_object(target: Any) -> Callable[..., Any]:
    module_name = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not callable(target) or isinstance(target, functools.partial) or not module_name or not name:
        raise UserCodeError(
            f"a {type(target).__name__} object is not usable as user code", code="user_code.malformed",
            why="it has no module and name that another process could import", todo=FORM,
        )  # fmt: skip
    shown = f"{module_name}:{name}"
    if "<lambda>" in name:
        raise UserCodeError(
            f"a lambda of {module_name} is not usable as user code", code="user_code.lambda",
            why="a lambda has no name that another process could import",
            todo="write it as a function of a module and " + FORM,
        )  # fmt: skip
    _refuse_module(module_name, shown, name)
    if "<locals>" in name:
        raise UserCodeError(
            f"{shown} is not usable as user code", code="user_code.nested",
            why="it is defined inside another function, so no other process can import it",
            todo="move it to the top of a module and " + FORM,
        )  # fmt: skip
    try:
        found = _attribute(_import(module_name, shown), name, shown)
    except UserCodeError as error:
        if error.code == "user_code.not_found" and _in_dags_folder(target):
            raise _dag_file_error(shown, name) from None
        raise
    if found is not target:
        raise UserCodeError(
            f"{shown} is not the object that was passed", code="user_code.not_found",
            why="importing it by its name gives another object (a decorated or replaced function)",
            todo="give it a name of its own in its module, or pass the reference as text",
        )  # fmt: skip
    checked: Callable[..., Any] = target
    return checked


def _refuse_module(module_name: str, shown: str, name: str | None = None) -> None:
    if module_name == "__main__":
        raise UserCodeError(
            f"{shown} is not usable as user code", code="user_code.main",
            why="it belongs to the script that was started, which no other process can import",
            todo="move it into a module and " + FORM,
        )  # fmt: skip
    if module_name.startswith(DAG_FILE_PREFIX):
        raise _dag_file_error(shown, name or shown.partition(":")[2])


def _dag_file_error(shown: str, name: str) -> UserCodeError:
    return UserCodeError(
        f"{name} is a function of a DAG file and not usable as user code", code="user_code.dag_file",
        why=f"Airflow loads DAG files under made-up module names ({shown.partition(':')[0]}), which no other"
        " process can import",
        todo="move it into a module beside the DAG or into a package, and " + FORM,
    )  # fmt: skip


def _in_dags_folder(target: Callable[..., Any]) -> bool:
    file = getattr(getattr(target, "__code__", None), "co_filename", None)
    if file is None:
        return False
    home = os.environ.get("AIRFLOW_HOME", "~/airflow")
    folder = Path(os.environ.get("AIRFLOW__CORE__DAGS_FOLDER") or f"{home}/dags").expanduser().resolve()
    return Path(file).resolve().is_relative_to(folder)


def _import(module_name: str, shown: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only a missing *named* module is "not found"; a module that it imports may be missing too.
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UserCodeError(
                f"{shown} does not exist", code="user_code.not_found", why=f"there is no module {error.name}",
                todo="install the package that has it where the task runs, or correct the name",
            ) from error  # fmt: skip
        why = f"it needs the module {error.name}, which is not installed"
        raise _import_failed(module_name, shown, why) from error
    except Exception as error:
        raise _import_failed(module_name, shown, f"importing it raised {type(error).__name__}") from error


def _import_failed(module_name: str, shown: str, why: str) -> UserCodeError:
    return UserCodeError(
        f"the module of {shown} cannot be imported", code="user_code.import_failed", why=why,
        todo=f"run `python -c 'import {module_name}'` where the task runs and correct what it shows",
    )  # fmt: skip


def _attribute(module: Any, name: str, shown: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=3)
            raise UserCodeError(
                f"{shown} does not exist", code="user_code.not_found",
                why=f"{getattr(found, '__name__', module.__name__)} has no {part!r}",
                todo=f"did you mean {' or '.join(near)}?" if near else "correct the name",
            )  # fmt: skip
        found = getattr(found, part)
    return found


def _module_file(module_name: str) -> Path | None:
    file = getattr(importlib.import_module(module_name), "__file__", None)
    if file is None:
        return None
    path = Path(file)
    if path.suffix == ".pyc":  # installed without source: what runs is what is hashed
        source = Path(importlib.util.source_from_cache(file)) if "__pycache__" in path.parts else path
        path = source if source.exists() else path
    return path.resolve()


def _clean_commit(file: Path) -> str | None:
    """HEAD of the checkout when the file is tracked and unchanged, else None (also: no git)."""
    command = [
        "git", "-C", str(file.parent), "--no-optional-locks", "status", "--porcelain=v2", "--branch",
        "--ignored=matching", "--untracked-files=all", "--", str(file),
    ]  # fmt: skip
    # A git hook's GIT_DIR would point at another repository than the one the file lies in.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_SECONDS, env=environment, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    commit = None
    for line in answer.splitlines():
        if line.startswith("# branch.oid "):
            commit = line.split()[2]
        elif not line.startswith("#"):
            return None  # changed, untracked or ignored
    return commit if commit and re.fullmatch(r"[0-9a-f]{40,64}", commit) else None
