"""The same task contexts and connection as the operators' tests have."""

from __future__ import annotations

from tests.unit.operators.conftest import lake_connection, make_context

__all__ = ["lake_connection", "make_context"]
