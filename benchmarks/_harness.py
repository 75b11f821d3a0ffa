"""What the benchmarks share: measuring, memory, and one way to report.

Every benchmark is a module with ``main()``; it measures, then calls :func:`report` once, which prints one
line for a person or, with ``--json``, one JSON object: ``name, ratio, budget, better, n, sd, details``. A
ratio is ours over the peer's or the floor's (see ``details``), so the machine cancels out; ``better`` says
which side of the budget is good.
"""

from __future__ import annotations

import gc
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["alternate", "machine", "measure", "median", "peak_memory", "percentile", "report"]

Better = Literal["lower", "higher"]
_MIB = 1024 * 1024


def measure(function: Callable[[], object], n: int = 5, *, warmup: int = 1) -> list[float]:
    """Seconds of ``n`` calls, after ``warmup`` unmeasured ones; garbage is collected before each call.

    >>> len(measure(lambda: None, 3))
    3
    """
    for _ in range(warmup):
        function()
    samples = []
    for _ in range(n):
        gc.collect()
        started = time.perf_counter()
        function()
        samples.append(time.perf_counter() - started)
    return samples


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], n: int = 5, *, warmup: int = 1
) -> tuple[list[float], list[float]]:
    """Like :func:`measure` for two functions in turn, so that a slow minute of the machine falls on both."""
    measure(ours, 0, warmup=warmup)
    measure(theirs, 0, warmup=warmup)
    pairs = [(measure(ours, 1, warmup=0)[0], measure(theirs, 1, warmup=0)[0]) for _ in range(n)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def median(samples: Sequence[float]) -> float:
    """The middle sample."""
    return statistics.median(samples)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 95)
    4.0
    """
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def peak_memory(function: Callable[..., object], *arguments: Any) -> float:
    """Peak resident memory in MiB of a fresh interpreter that runs ``function(*arguments)``.

    The interpreter is spawned, not forked: nothing of this process counts. ``function`` must be importable.

    :raises RuntimeError: the function raised or its process died.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_report, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = "its process died"
    process.join()
    if isinstance(outcome, str):
        raise RuntimeError(f"{getattr(function, '__name__', function)}: {outcome}")
    return float(outcome)


def machine() -> dict[str, Any]:
    """What the numbers were measured on, without naming the machine."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_end": round(os.getloadavg()[0], 1),
    }


def report(
    name: str,
    *,
    ratio: float,
    budget: float,
    better: Better,
    samples: Sequence[float],
    details: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Print the result and return it.

    :param ratio: the figure the budget is about.
    :param better: ``lower`` when the ratio must not exceed the budget, ``higher`` when it must reach it.
    :param samples: the single measurements behind the figure (``n`` and ``sd`` are theirs).
    :param details: everything a reader needs to judge the figure: medians, sizes, the peer and its version.
    """
    within = ratio <= budget if better == "lower" else ratio >= budget
    result = {
        "name": name,
        "ratio": round(ratio, 4),
        "budget": budget,
        "better": better,
        "n": len(samples),
        "sd": round(statistics.stdev(samples), 6) if len(samples) > 1 else 0.0,
        "details": {**(details or {}), "within_budget": within, "machine": machine()},
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps(result), flush=True)
    else:
        sign = "<=" if better == "lower" else ">="
        verdict = "within" if within else "OVER" if better == "lower" else "UNDER"
        spread = f"n={result['n']}, sd={result['sd']}"
        print(f"{name:<12} {ratio:10.3f}  budget {sign} {budget:g}  {verdict} budget  ({spread})", flush=True)
        for key, value in (details or {}).items():
            print(f"    {key}: {value}", flush=True)
    return result


def _run_and_report(sender: Any, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        function(*arguments)
    except BaseException as error:  # the parent must hear of every end
        sender.send(f"{type(error).__name__}: {error}")
        raise
    sender.send(_own_peak_mib())


def _own_peak_mib() -> float:
    """Peak resident memory of this program image.

    Not ``ru_maxrss`` on Linux: it survives exec, so a child of a large process begins with its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MIB
