"""Great Expectations, imported quietly: no analytics, no progress bars, none of its 200 INFO lines.

For the suites and the pandas engine. The import costs seconds and some 270 MB, so it happens when a suite is
used, never when a module of ours is imported.
"""

from __future__ import annotations

import importlib
import logging
import os
from importlib import metadata
from typing import Any

__all__ = ["ephemeral_context", "expectation_class", "great_expectations", "great_expectations_version"]

LIBRARY = "great_expectations"


def great_expectations() -> Any:
    """The library, with its noise and its analytics off."""
    # Read once, at its import: it must stand in the environment before.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logger = logging.getLogger(LIBRARY)
    logger.setLevel(logging.WARNING)
    importlib.import_module(f"{LIBRARY}.expectations")
    logging.getLogger(f"{LIBRARY}.data_context.types.base").setLevel(
        logging.WARNING
    )  # it sets its own to INFO
    return importlib.import_module(LIBRARY)


def great_expectations_version() -> str:
    """The installed version; does not import the library."""
    return metadata.version("great_expectations")


def expectation_class(kind: str) -> Any | None:
    """The class of an expectation (``expect_...``); None if there is none of that name."""
    great_expectations()
    registry = importlib.import_module(f"{LIBRARY}.expectations.registry")
    try:
        return registry.get_expectation_impl(kind)
    except Exception:  # the library's own error class has moved between versions
        return None


def ephemeral_context() -> Any:
    """A context that exists in memory only, without progress bars."""
    library = great_expectations()
    context = library.get_context(mode="ephemeral")
    bars = importlib.import_module(f"{LIBRARY}.data_context.types.base").ProgressBarsConfig
    context.variables.progress_bars = bars(globally=False)
    return context
