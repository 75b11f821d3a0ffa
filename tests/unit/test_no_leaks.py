"""What must not be in the repository: a machine's paths, an index's address, heavy imports, the ORM."""

from __future__ import annotations

import ast
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "airflow_provider_xops"
SURFACE = ("hooks", "operators", "sensors", "triggers", "notifications", "decorators", "links", "plugin")
LIGHT_MODULES = (
    "_record_base.py", "_record_kinds.py", "_record_values.py", "cli.py", "errors.py", "get_provider_info.py",
    "records.py", "settings.py", "usercode.py", "version_compat.py",
)  # fmt: skip
HEAVY = {
    "boto3", "botocore", "deltalake", "duckdb", "great_expectations", "joblib", "matplotlib", "mlflow",
    "numpy", "pandas", "pyarrow", "scipy", "skops", "sklearn", "sqlalchemy",
}  # fmt: skip
ORM = ("airflow.models", "airflow.settings", "airflow.utils.session")
_SKIPPED_SUFFIXES = {".png", ".ico", ".parquet", ".gz", ".woff2"}


def _files() -> list[Path]:
    """Every file that is, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if listed.returncode == 0:
        paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked source archive
        paths = [path for path in REPOSITORY.rglob("*") if not {".venv", ".xops"} & set(path.parts)]
    return [path for path in paths if path.is_file() and path.suffix not in _SKIPPED_SUFFIXES]


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """Modules imported when the code runs at import: not inside functions, not under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _imports(node.body)
            yield from _imports(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _imports(node.body)
            for handler in node.handlers:
                yield from _imports(handler.body)
            yield from _imports(node.orelse)
            yield from _imports(node.finalbody)
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from _imports(node.body)


def _every_import(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports([node])


def _light_files() -> list[Path]:
    found = [path for folder in SURFACE for path in (PACKAGE / folder).rglob("*.py")]
    found += [PACKAGE / name for name in LIGHT_MODULES] + list(PACKAGE.rglob("__init__.py"))
    return sorted({*found, *(REPOSITORY / "dags").glob("*.py")})


def _heavy(modules: Iterator[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("path", _light_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_heavy_is_imported_at_parse(path: Path) -> None:
    assert _heavy(_imports(ast.parse(path.read_text()).body)) == set()


def test_the_check_sees_heavy_imports_where_they_count_and_only_there() -> None:
    source = """
        from typing import TYPE_CHECKING
        import pandas as pd
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            import deltalake
        if TYPE_CHECKING:
            import numpy
        class Operator:
            import duckdb
            def execute(self):
                import sklearn
    """
    found = _heavy(_imports(ast.parse(textwrap.dedent(source)).body))
    assert found == {"pandas", "mlflow.tracking", "mlflow.tracking.MlflowClient", "deltalake", "duckdb"}


def _package_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "plugin" not in path.parents]


@pytest.mark.parametrize("path", _package_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_airflows_database_is_left_alone(path: Path) -> None:
    used = {name for name in _every_import(ast.parse(path.read_text())) if name.startswith(ORM)}
    assert used == set()


def test_no_path_of_a_machine_is_in_a_file() -> None:
    machine = re.compile(rf"{re.escape(str(REPOSITORY))}|/(?:home|Users)/[a-z]\w*/|/root/\w")
    # Paths of the official images, which are the same on every machine.
    allowed = re.compile(r"/home/airflow/")
    found = []
    for path in _files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if machine.search(allowed.sub("", line)):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}")
    assert found == []


def test_no_index_address_is_in_what_installs() -> None:
    names = [
        "constraints.txt",
        "pyproject.toml",
        "Makefile",
        ".ci/run",
        "docker/Dockerfile",
        "docker-compose.yaml",
    ]
    address = re.compile(
        r"index-url|extra-index|find-links|trusted-host|tool\.uv|PIP_INDEX|UV_INDEX|@ (?:file|http)"
    )
    assert [name for name in names if address.search((REPOSITORY / name).read_text())] == []


def test_no_temporary_folder_is_written_into_the_package() -> None:
    found = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "/tmp/" in path.read_text()]
    assert found == []


def test_every_pin_is_exact() -> None:
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line]
    assert [line for line in lines if not re.match(r"^[a-z0-9._-]+==[\w.]+( ; .+)?$", line)] == []


def test_celery_is_below_the_release_that_breaks_its_provider() -> None:
    (version,) = re.findall(
        r"^celery==([\d.]+)", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE
    )
    assert tuple(int(part) for part in version.split(".")[:2]) < (5, 7)
