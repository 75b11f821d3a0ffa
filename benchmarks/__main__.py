"""Run the benchmarks one by one, each in its own interpreter: ``python -m benchmarks [NAME ...]``.

Further arguments (``--json``) are passed on. The exit status is 1 when a benchmark breaks; a missed budget is
reported by the benchmark and does not change the status, because a busy machine is not a defect.
"""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "parse",
    "digest",
    "commit",
    "promotion",
    "serving",
    "swap",
    "scoring",
    "training_overhead",
    "loop",
    "quarantine",
    "profile",
    "control_charts",
    "validation",
    "validation_small",
    "evaluation",
)


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all by default)."""
    options = [each for each in arguments if each.startswith("-")]
    names = [each for each in arguments if not each.startswith("-")] or list(NAMES)
    broken = []
    for name in names:
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if subprocess.run(command, check=False).returncode != 0:
            broken.append(name)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
