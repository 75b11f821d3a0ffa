"""What parsing costs: importing every module of the Airflow surface, over `airflow.sdk` alone.

``python -m benchmarks.parse [--json]``. Budget: 100 ms, so the ratio is the milliseconds over 100. Each
sample is a fresh interpreter that imports `airflow.sdk` first and is timed from there, in processor time:
imports do not wait for anything, and other work on the machine then does not count. The libraries that must
not be loaded, and that records are not made, is a test (``tests/unit/test_parse_budget.py``), no benchmark.

Importing `airflow.sdk` leaves Python's collector about to walk through all of Airflow's objects once: it does
so within some 5,000 objects more, whoever makes them. That walk is paid before the timing starts and told
apart (``inherited_collection_ms``); what our own objects make the collector do is in the figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._harness import median, report

SAMPLES = 7
BUDGET_MS = 100.0
DAGS = sorted(str(path) for path in (Path(__file__).parents[1] / "dags").glob("*.py"))

PROBE = """
import gc, importlib, importlib.util, json, pkgutil, sys, time
import airflow.sdk
before = time.process_time()
gc.collect()
inherited = time.process_time() - before
collected = []
gc.callbacks.append(lambda phase, info: collected.append(time.process_time()))
started = time.process_time()
names = ["airflow_provider_xops.get_provider_info"]
for room in ("hooks", "operators", "links", "sensors", "triggers", "decorators"):
    package = importlib.import_module("airflow_provider_xops." + room)
    names += [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
imported = time.process_time()
collector = sum(end - start for start, end in zip(collected[::2], collected[1::2]))
for number, path in enumerate(json.loads(sys.argv[1])):
    spec = importlib.util.spec_from_file_location("dag_%d" % number, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
parsed = time.process_time()
times = {"import_ms": imported - started, "collector_ms": collector, "dags_ms": parsed - imported,
         "inherited_ms": inherited}
times = {name: seconds * 1000 for name, seconds in times.items()}
print(json.dumps({"modules": len(names), **times}))
"""


def main() -> None:
    """Measure in fresh interpreters and report."""
    with tempfile.TemporaryDirectory(prefix="xops-bench-") as home:
        samples = [_sample(home) for _ in range(SAMPLES + 1)][1:]  # the first one writes bytecode
    times = [sample["import_ms"] for sample in samples]
    report(
        "parse",
        ratio=median(times) / BUDGET_MS,
        budget=1.0,
        better="lower",
        samples=[milliseconds / BUDGET_MS for milliseconds in times],
        details={
            "modules": samples[0]["modules"],
            "import_ms": round(median(times), 1),
            "of_which_collector_ms": round(median([sample["collector_ms"] for sample in samples]), 1),
            "inherited_collection_ms": round(median([sample["inherited_ms"] for sample in samples]), 1),
            "budget_ms": BUDGET_MS,
            "reference_dags": len(DAGS),
            "reference_dags_ms": round(median([sample["dags_ms"] for sample in samples]), 1),
            "over": "an interpreter that has imported airflow.sdk",
        },
    )


def _sample(home: str) -> dict[str, Any]:
    environment = {**os.environ, "AIRFLOW_HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(DAGS)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
