"""MLServer's environment has the versions with which models are made here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mlserver_environment import LOCK_FILE

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def pins(file: Path, package: str) -> set[str]:
    """What a file pins a package to, each with the Python versions it is for."""
    lines = [line.strip() for line in file.read_text().splitlines() if not line.startswith("#")]
    return {line for line in lines if re.match(rf"{re.escape(package)}==", line)}


@pytest.mark.parametrize(
    "package", ["mlflow", "scikit-learn", "skops", "cloudpickle", "numpy", "pandas", "scipy"]
)
def test_a_model_is_loaded_by_the_versions_that_made_it(package: str) -> None:
    # When this fails: change the list at the head of the lock file as constraints.txt is now, and make the
    # rest of it again with the command that stands there.
    assert pins(LOCK_FILE, package) == pins(CONSTRAINTS, package) != set()
