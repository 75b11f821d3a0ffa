"""The description of a version: our part between markers, everybody else's words untouched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.documents import (
    BEGIN,
    DESCRIPTION_LIMIT,
    END,
    attach,
    merged_description,
)
from airflow_provider_xops.settings import MlflowSettings
from tests.unit.evaluation.report_samples import model

words = st.text(st.characters(blacklist_characters="<>\r", blacklist_categories=("Cs",)), max_size=300)


@given(words, words, words)
def test_words_of_people_stay_and_ours_are_replaced(before: str, after: str, card: str) -> None:
    first = merged_description(before, f"# card\n{card}")
    theirs = f"{first}\n\n{after}"
    second = merged_description(theirs, "# another")

    assert first.startswith(before.rstrip("\n"))
    assert second.startswith(before.rstrip("\n"))
    assert second.endswith(after.lstrip("\n") or END)
    assert second.count(BEGIN) == second.count(END) == 1
    assert "# another" in second
    assert "# card" not in second.replace(before, "").replace(after, "")


@given(words, st.text("ab\n", max_size=9000))
def test_it_is_never_too_long_and_saying_it_again_changes_nothing(before: str, card: str) -> None:
    once = merged_description(before, card)

    assert len(once) <= DESCRIPTION_LIMIT
    assert merged_description(once, card) == once


def test_a_long_card_is_cut_at_the_end_of_a_line_and_says_so() -> None:
    card = "\n".join(f"line {number}" for number in range(2000))

    lines = merged_description("", card).splitlines()

    assert lines[-1] == END
    assert lines[-2] == "…"
    assert lines[-3] in card.splitlines()


def test_where_people_have_filled_the_description_nothing_is_changed() -> None:
    theirs = "x" * DESCRIPTION_LIMIT

    assert merged_description(theirs, "# card") == theirs


@pytest.mark.parametrize("name", ["", "../up.html", "a/b.html", "..", "/etc/passwd"])
def test_file_that_would_leave_its_folder_is_refused(name: str) -> None:
    client = RegistryClient(MlflowSettings(tracking_uri="http://localhost:1"))

    with pytest.raises(ArgumentError) as refused:
        attach(client, model(run_id="a" * 32), {name: b"x"})

    assert refused.value.code == "argument.file_name"


def test_model_without_a_run_is_no_error_and_no_request() -> None:
    client = RegistryClient(MlflowSettings(tracking_uri="http://localhost:1"))

    assert attach(client, model(run_id=None), {"report.html": b"x"}) is False
