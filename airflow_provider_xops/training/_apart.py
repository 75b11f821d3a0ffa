"""How far two models' answers are apart: one measure for the smoke test and the repetition of a training."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["apart"]


def apart(one: Any, recorded: Any) -> Any:
    """The distance of each number from the recorded one: absolute up to 1, beyond that relative to it.

    Probabilities are compared absolutely; a predicted amount of a million is not asked for nine decimals,
    which 64-bit numbers do not have.

    >>> apart(np.array([0.5, 2e6]), np.array([0.25, 1e6])).tolist()
    [0.25, 1.0]
    """
    return np.abs(one - recorded) / np.maximum(1.0, np.abs(recorded))
