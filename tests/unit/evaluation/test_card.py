"""The model card: made from the records of one very version, honest about what is missing, written once."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.card import card_of, description_of, write_card
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import (
    Actor,
    CheckSummary,
    DatasetRef,
    ModelCard,
    ModelVersion,
    Outcome,
    PersonalDataReport,
    PromotionOutcome,
    Reproduction,
    Selection,
    Severity,
    SmokeTest,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.ledger import Draft
from tests.unit.evaluation import report_samples as samples

SUITE = {
    "name": "loans",
    "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "income"}}],
}


@pytest.fixture
def dataset(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> DatasetRef:
    months = ("2025-01", "2025-02", "2025-03")
    table = pa.table({"income": [1.0, 2.0], "ratio": [0.1, 0.2], "denied": [0, 1]})
    segments = [Segment(month, month, table.to_reader) for month in months]
    return commit(lake, "loans", segments, actor=make_actor(), as_of=as_of).record.ref


@pytest.fixture
def model(lake: Lake, dataset: DatasetRef) -> ModelVersion:
    training = Selection(dataset=dataset, partitions=("2025-01", "2025-02"), rows=4, digest="d" * 64)
    made = samples.model(training=training, cross_validation={"roc_auc_mean": 0.71, "roc_auc_std": 0.02})
    lake.evidence.put(made)
    return made


def smoke(model: ModelVersion, **more: Any) -> SmokeTest:
    facts: dict[str, Any] = {
        "model": model.ref,
        "artifact_digest": model.artifact_digest,
        "figures": {"latency_p95_ms": 9.25},
        **more,
    }
    check = CheckSummary(check="digest", column=None, outcome=Outcome.PASSED, severity=Severity.CRITICAL)
    return SmokeTest(
        recorded_at=samples.NOW, produced_by=samples.ACTOR.producer, environment="current", server="mlflow",
        outcome=Outcome.PASSED, checks=(check,), settings_digest="s", rows=20, requests=40, **facts,
    )  # fmt: skip


def decide(lake: Lake, model: ModelVersion, outcome: PromotionOutcome, actor: Actor, as_of: datetime) -> None:
    draft = Draft(
        outcome=outcome, reason="all gates passed", expected=None, from_version=None,
        to_version=model.version, to_created_at_ms=model.created_at_ms,
        artifact_digest=model.artifact_digest, evidence=(),
    )  # fmt: skip
    ledger.append(lake, model.name, "champion", lambda _: draft, actor=actor, as_of=as_of)


def test_card_of_a_version_that_nobody_looked_at_names_all_that_is_missing(
    lake: Lake, model: ModelVersion, as_of: datetime
) -> None:
    card = card_of(lake, model, as_of=as_of)

    missing = card.markdown.partition("## Not measured")[2].partition("## Made from")[0]
    for part in (
        "intended use", "limits", "contacts", "smoke test", "reproduction", "personal data", "approvals",
        "evaluation: not measured", "performance in use",
    ):  # fmt: skip
        assert part in missing
    assert "It was not in use when this card was made" in card.markdown
    assert "It has not been evaluated" in card.markdown
    assert "0 of 2 partitions passed a validation" in card.markdown
    assert "roc_auc 0.71 ± 0.02" in card.markdown
    assert card.made_from == (model.record_id,)


def test_everything_in_the_card_comes_from_its_records(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime, tmp_path: Path
) -> None:
    suite = tmp_path / "loans.json"
    suite.write_text(json.dumps(SUITE))
    evaluation, _ = samples.full()
    actor = make_actor()
    lake.evidence.put(evaluation)
    lake.evidence.put(smoke(model))
    lake.evidence.put(
        Reproduction(
            recorded_at=as_of, produced_by=actor.producer, model=model.ref,
            artifact_digest=model.artifact_digest, outcome=Outcome.PASSED, tolerance=1e-9, rows=300,
            max_difference=0.0, differences=("scikit-learn 1.7 was 1.6",),
        )
    )  # fmt: skip
    assert model.training is not None
    lake.evidence.put(
        PersonalDataReport(
            recorded_at=as_of, produced_by=actor.producer, dataset=model.training.dataset, partitions=None,
            searched=("income", "ratio"), detectors_digest="x", rows=6, columns=(),
        )
    )  # fmt: skip
    word = approve(
        lake, model, reason="slices are fine", role="risk", actor=make_actor(name="bo"), as_of=as_of
    )
    report = validate(
        lake, model.training.dataset, partitions=["2025-01", "2025-02"], suite=str(suite), actor=make_actor(),
        as_of=as_of, data_docs=False,
    )  # fmt: skip
    decide(lake, model, PromotionOutcome.PROMOTED, make_actor(), as_of)

    card = card_of(
        lake, model, intended_use="A second look.", limits="Boston.", contacts=["a@b.c"], as_of=as_of
    )

    for words in (
        "In use: champion since 2026-01-15", "A second look.", "Boston.", "a@b.c", "slices are fine",
        "9.25", "scikit-learn 1.7 was 1.6", "all 2 partitions passed a validation", "none found in 2 columns",
        "all gates passed", "income &lt; -1 and ratio &gt;= 0.5", "north 0.41 [0.35, 0.47]",
    ):  # fmt: skip
        assert words in card.markdown, words
    expected = {
        model.record_id,
        evaluation.record_id,
        word.record_id,
        report.record_id,
        smoke(model).record_id,
    }
    assert expected <= set(card.made_from)
    assert len(card.made_from) == len(set(card.made_from)) == 8
    assert all(record_id in card.markdown for record_id in card.made_from)
    assert f'href="../validations/{report.record_id}.html"' in card.html.decode()
    gone = card.markdown.partition("## Not measured")[2].partition("## Made from")[0]
    assert "smoke test" not in gone
    assert "personal data" not in gone


def test_both_forms_say_the_same(lake: Lake, model: ModelVersion, as_of: datetime) -> None:
    lake.evidence.put(samples.full()[0])
    card = card_of(lake, model, intended_use="A < B | *c*", as_of=as_of)

    html = card.html.decode()
    rows = [line for line in card.markdown.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 60
    for row in rows:
        for cell in re.split(r"(?<!\\)\|", row)[1:-1]:
            words = re.sub(r"\\(.)", r"\1", cell.strip()).strip("*").replace("'", "&#x27;")
            assert words in html, words


def test_only_records_of_this_very_version_and_these_very_files_count(
    lake: Lake, model: ModelVersion, as_of: datetime
) -> None:
    evaluation, _ = samples.full()
    namesake = dataclasses.replace(model.ref, created_at_ms=1)
    lake.evidence.put(dataclasses.replace(evaluation, model=namesake, record_id=""))
    lake.evidence.put(smoke(model, artifact_digest="f" * 64))
    lake.evidence.put(smoke(samples.model(9)))

    card = card_of(lake, model, as_of=as_of)

    assert card.made_from == (model.record_id,)
    assert "It has not been evaluated" in card.markdown


def test_a_later_decision_takes_it_out_of_use(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    decide(lake, model, PromotionOutcome.PROMOTED, make_actor(key="a"), as_of)
    decide(lake, samples.model(4), PromotionOutcome.PROMOTED, make_actor(key="b"), as_of + timedelta(days=1))

    card = card_of(lake, model, as_of=as_of)

    assert "It had been in use before this card was made, and was no longer." in card.markdown
    assert "In use" not in card.markdown.replace("In use before", "")


def test_a_refusal_leads(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    approve(lake, model, reason="fine", actor=make_actor(name="bo"), as_of=as_of)
    approve(lake, model, approved=False, reason="gap", actor=make_actor(name="cy"), as_of=as_of)

    card = card_of(lake, model, as_of=as_of)

    assert "Refused by cy: it must not be promoted." in card.markdown.partition("##")[0]


def test_an_approval_that_has_expired_counts_no_longer_and_makes_another_card(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    approve(
        lake, model, reason="for a week", expires_at=as_of + timedelta(days=7), actor=make_actor(name="bo"),
        as_of=as_of,
    )  # fmt: skip

    now, later = (card_of(lake, model, as_of=as_of + timedelta(days=days)) for days in (1, 8))

    assert "| for a week | yes |" in now.markdown
    assert "| for a week | no longer |" in later.markdown
    assert now.content_digest != later.content_digest


def test_evaluations_before_the_newest_are_named(lake: Lake, model: ModelVersion, as_of: datetime) -> None:
    newest = samples.full()[0]
    older = dataclasses.replace(
        newest, gates_digest="8" * 64, recorded_at=newest.recorded_at - timedelta(days=3), record_id=""
    )
    for one in (newest, older):
        lake.evidence.put(one)

    card = card_of(lake, model, as_of=as_of)

    told = card.markdown.partition("## Evaluation")[2].partition("## Gates")[0]
    assert "The newest of 2 evaluations of this version" in told
    assert older.record_id in told
    assert set(card.made_from) >= {newest.record_id, older.record_id}


def test_card_says_on_which_rows_and_settings_it_could_be_trained_again(
    lake: Lake, dataset: DatasetRef, as_of: datetime
) -> None:
    training = Selection(dataset=dataset, partitions=("2025-01",), rows=2, digest="d" * 64)
    settings = {"params": {"max_iter": 40}, "seed": 7, "split": {"kind": "time"}, "sample": None}
    again = samples.model(training=training, settings=settings)

    card = card_of(lake, again, as_of=as_of)

    assert "d" * 64 in card.markdown
    assert '"max_iter": 40' in card.markdown
    assert '"seed": 7' in card.markdown


def test_same_content_is_one_record_whenever_it_is_written(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    first = write_card(lake, None, model, limits="x", actor=make_actor(), as_of=as_of)
    again = write_card(lake, None, model, limits="x", actor=make_actor(), as_of=as_of + timedelta(days=1))
    other = write_card(lake, None, model, limits="y", actor=make_actor(), as_of=as_of)

    assert again == first
    assert other.record_id != first.record_id
    assert len(list(lake.evidence.all(ModelCard.kind))) == 2
    page = lake.storage.get(f"_xops/reports/cards/{first.record_id}.html") or b""
    assert b"Model card of loan v3" in page
    assert first.report_uri == first.documents["html"]
    assert b"2026-01-15 12:00 UTC" in page


def test_words_of_people_are_text(lake: Lake, model: ModelVersion, as_of: datetime) -> None:
    card = card_of(
        lake, model, intended_use=samples.EVIL, limits=samples.EVIL, contacts=[samples.EVIL], as_of=as_of
    )

    assert b"<script" not in card.html
    assert "<script" not in card.markdown
    assert not re.search(r"(?<!\\)\]\(", card.markdown)


def test_contacts_as_one_text_are_refused(lake: Lake, model: ModelVersion, as_of: datetime) -> None:
    with pytest.raises(ArgumentError) as refused:
        card_of(lake, model, contacts="ann@example.org", as_of=as_of)

    assert refused.value.code == "argument.contacts"


def test_description_has_what_matters_on_one_screen(lake: Lake, model: ModelVersion, as_of: datetime) -> None:
    lake.evidence.put(samples.full()[0])

    card = card_of(lake, model, intended_use="A second look.", as_of=as_of)
    text = description_of(card, uri="s3://lake/card.html")

    assert len(text) < 4500
    for words in (
        "A second look.",
        "better_than_champion:x",
        "**failed**",
        "| accuracy |",
        "s3://lake/card.html",
    ):
        assert words in text
    assert "<svg" not in text
