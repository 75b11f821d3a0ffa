"""Names of aliases: refused before anything is decided, exactly where MLflow would refuse them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.registry.aliases import check_alias, is_gated
from airflow_provider_xops.registry.ledger import LedgerState


def mlflow_takes(alias: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

    try:
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
    except MlflowException:
        return False
    return True


def we_take(alias: str) -> bool:
    try:
        return check_alias(alias) == alias
    except ArgumentError as error:
        return error.code != "argument.alias"


@pytest.mark.parametrize(
    "alias", ["champion", "champion-eu", "Champion_2", "späte-Flüge", "v", "v1a", "a" * 255]
)
def test_names_that_mlflow_takes(alias: str) -> None:
    assert we_take(alias)
    assert mlflow_takes(alias)


@pytest.mark.parametrize(
    "alias", ["", " ", "a b", "a/b", "a:b", "a.b", "latest", "Latest", "v1", "V12", "a" * 256]
)
def test_names_that_mlflow_refuses(alias: str) -> None:
    assert not we_take(alias)
    assert not mlflow_takes(alias)


@given(st.text(alphabet=st.sampled_from("aLv1-_ ./é\u0661latest"), max_size=8))
def test_we_refuse_what_mlflow_refuses(alias: str) -> None:
    assert we_take(alias) == mlflow_takes(alias)


@pytest.mark.parametrize(
    ("alias", "gated"),
    [("champion", True), ("Champion", True), ("champion-eu", True), ("challenger", False), ("shadow", False)],
)
def test_a_champions_name_is_gated(alias: str, gated: bool) -> None:
    assert is_gated(alias, LedgerState("late", alias, ())) is gated
