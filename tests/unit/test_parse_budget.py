"""Nothing heavy happens at DAG parse: a fresh interpreter imports everything a DAG file may import.

The list of modules is the test. What `airflow.sdk` itself loads is measured first and not held against us.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "deltalake",
    "great_expectations",
    "sklearn",
    "mlflow",
    "boto3",
    "botocore",
    "scipy",
    "skops",
    "fsspec",
    "optuna",
    "fairlearn",
    "shap",
    "xgboost",
    "lightgbm",
    "matplotlib",
)
# Making the records' classes takes a third of what importing all operators takes.
RECORDS = ("airflow_provider_xops._record_kinds", "airflow_provider_xops._record_models")

PROBE = """
import importlib, importlib.util, json, pkgutil, sys, time
heavy, dags = json.loads(sys.argv[1]), json.loads(sys.argv[2])
import airflow.sdk
from airflow.providers.common.compat import sdk
before = {name for name in heavy if name in sys.modules}
started = time.perf_counter()
names = ["airflow_provider_xops.get_provider_info", "airflow_provider_xops.version_compat"]
for package in json.loads(sys.argv[3]):
    names.append(package)
    found = importlib.import_module(package)
    names += [info.name for info in pkgutil.walk_packages(found.__path__, package + ".")]
for name in names:
    importlib.import_module(name)
for number, path in enumerate(dags):
    spec = importlib.util.spec_from_file_location(f"unusual_prefix_{number}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
print(json.dumps({
    "before": sorted(before),
    "loaded": sorted({name for name in heavy if name in sys.modules} - before),
    "names": names,
    "seconds": time.perf_counter() - started,
}))
"""
SURFACE = [
    f"airflow_provider_xops.{room}"
    for room in ("hooks", "operators", "links", "sensors", "triggers", "notifications", "decorators")
    if any((ROOT / "airflow_provider_xops" / room).glob("*.py"))
]
DAGS = sorted(str(path) for path in (ROOT / "dags").glob("*.py"))


def _probe(packages: list[str], dags: list[str]) -> dict[str, list[str]]:
    command = [
        sys.executable,
        "-c",
        PROBE,
        json.dumps(HEAVY + RECORDS),
        json.dumps(dags),
        json.dumps(packages),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("packages", "dags"), [(SURFACE, []), ([], DAGS), (SURFACE, DAGS)], ids=["surface", "dags", "both"]
)
def test_parsing_loads_no_heavy_module(packages: list[str], dags: list[str]) -> None:
    found = _probe(packages, dags)

    assert found["loaded"] == []


def test_the_probe_sees_every_module_of_the_surface() -> None:
    names = set(_probe(SURFACE, [])["names"])

    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in SURFACE
        for path in (ROOT / Path(*package.split("."))).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert files
    assert files <= names
    assert DAGS


def test_the_probe_notices_a_heavy_import(tmp_path: Path) -> None:
    dag = tmp_path / "heavy.py"
    dag.write_text("import numpy\nfrom airflow_provider_xops.records import Outcome\n")

    assert _probe([], [str(dag)])["loaded"] == [*sorted(RECORDS), "numpy"]


def test_light_modules_of_the_package_load_nothing_heavy() -> None:
    packages = [
        f"airflow_provider_xops.{room}" for room in ("records", "errors", "settings", "usercode", "cli")
    ]
    code = (
        f"import json, sys; [__import__(name) for name in {packages!r}]; "
        f"print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )

    assert json.loads(done.stdout) == [], done.stderr
