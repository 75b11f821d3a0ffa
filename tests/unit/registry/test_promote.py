"""What promotion decides from a ledger's state and an evaluation, before anything is written."""

from __future__ import annotations

import dataclasses

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import (
    GateResult,
    ModelVersion,
    Outcome,
    PromotionDecision,
    PromotionOutcome,
    Selection,
)
from airflow_provider_xops.registry.leaks import LEAK_GATE
from airflow_provider_xops.registry.ledger import GENESIS, LedgerState
from airflow_provider_xops.registry.promote import judge
from tests.unit.registry.builders import (
    AS_OF,
    PASSED,
    a_model,
    an_actor,
    an_evaluation,
    dataset,
    selection,
)

HELD, PROMOTED, REJECTED = PromotionOutcome.HELD, PromotionOutcome.PROMOTED, PromotionOutcome.REJECTED


def entry(sequence: int, outcome: PromotionOutcome, model: ModelVersion) -> PromotionDecision:
    return PromotionDecision(
        recorded_at=AS_OF,
        produced_by=an_actor().producer,
        model="late",
        alias="champion",
        sequence=sequence,
        outcome=outcome,
        reason="r",
        expected=None,
        from_version=None,
        to_version=model.version,
        to_created_at_ms=model.created_at_ms,
        artifact_digest=model.artifact_digest,
        evidence=(),
        idempotency_key="k",
        previous_hash=GENESIS,
        entry_hash=str(sequence),
    )


def state(*entries: PromotionDecision) -> LedgerState:
    return LedgerState("late", "champion", tuple(entries))


def decide(now: LedgerState, model: ModelVersion, **changes):
    values = {
        "expected": now.current_version,
        "evaluation": an_evaluation(model),
        "champion": None,
        "alias_target": lambda: None,
    }
    return judge(now, model=model, **(values | changes))


def test_the_first_model_whose_gates_passed_is_promoted() -> None:
    assert decide(state(), a_model()) == (PROMOTED, "all 1 gates passed")


def test_a_loser_is_held_and_does_not_decide_again() -> None:
    champion, challenger = a_model(1), a_model(2)
    now = state(entry(1, PROMOTED, champion))

    outcome, reason = decide(now, challenger, expected=None)

    assert (outcome, reason) == (HELD, "superseded: decided against no champion, the champion is v1")


def test_an_evaluation_against_another_champion_is_held() -> None:
    champion, challenger = a_model(1), a_model(2)
    now = state(entry(1, PROMOTED, champion))

    outcome, reason = decide(now, challenger, evaluation=an_evaluation(challenger, a_model(7)))

    assert outcome is HELD
    assert reason.startswith("superseded: evaluated against v7")


def test_an_evaluation_against_a_namesake_of_the_champion_is_held() -> None:
    champion, challenger = a_model(1), a_model(2)
    now = state(entry(1, PROMOTED, champion))

    outcome, reason = decide(
        now, challenger, evaluation=an_evaluation(challenger, a_model(1, created_at_ms=99))
    )

    assert outcome is HELD
    assert reason.startswith("superseded: evaluated against v1")


@pytest.mark.parametrize("evaluation", [None, an_evaluation(a_model(), gates=())])
def test_without_gates_nothing_is_promoted(evaluation) -> None:
    outcome, reason = decide(state(), a_model(), evaluation=evaluation)

    assert outcome is HELD
    assert reason.startswith("no gates")


@pytest.mark.parametrize(
    "gate",
    [
        GateResult(gate="auc", outcome=Outcome.PASSED, observed=None),
        GateResult(gate="auc", outcome=Outcome.PASSED, observed=float("nan")),
        GateResult(gate="auc", outcome=Outcome.PASSED, observed=float("inf")),
        GateResult(gate="auc", outcome=Outcome.NO_DATA, observed=0.9),
        GateResult(gate="auc", outcome=Outcome.ERRORED),
    ],
)
def test_a_gate_without_a_figure_holds(gate: GateResult) -> None:
    outcome, reason = decide(state(), a_model(), evaluation=an_evaluation(a_model(), gates=(gate,)))

    assert outcome is HELD
    assert reason.startswith("not measured: auc")


def test_a_failed_gate_rejects_even_beside_one_that_errored() -> None:
    gates = (
        GateResult(
            gate="auc", outcome=Outcome.FAILED, observed=0.5, threshold=0.8, message="0.5 is below 0.8"
        ),
        GateResult(gate="loss", outcome=Outcome.ERRORED),
    )

    outcome, reason = decide(state(), a_model(), evaluation=an_evaluation(a_model(), gates=gates))

    assert (outcome, reason) == (REJECTED, "gate: auc failed (0.5 is below 0.8)")


def test_a_version_that_was_rolled_back_from_is_held_until_released() -> None:
    first, second = a_model(1), a_model(2)
    entries = [
        entry(1, PROMOTED, first),
        entry(2, PROMOTED, second),
        entry(3, PromotionOutcome.ROLLED_BACK, first),
    ]
    evaluation = an_evaluation(second, first)

    blocked = decide(state(*entries), second, evaluation=evaluation)
    released = decide(
        state(*entries, entry(4, PromotionOutcome.RELEASED, second)), second, evaluation=evaluation
    )

    assert (blocked[0], blocked[1].partition(":")[0]) == (HELD, "blocked")
    assert released[0] is PROMOTED


def test_the_champion_is_not_promoted_again() -> None:
    champion = a_model(1)

    outcome, reason = decide(
        state(entry(1, PROMOTED, champion)), champion, evaluation=an_evaluation(champion, champion)
    )

    assert outcome is HELD
    assert reason.startswith("already champion")


def test_a_holdout_the_challenger_was_trained_on_is_a_leak() -> None:
    model = a_model()

    outcome, reason = decide(
        state(), model, evaluation=an_evaluation(model, on=selection("2013-01", "2013-02"))
    )

    assert outcome is HELD
    assert reason.startswith(
        "leak: the holdout and the training data of late v1 share 1 partitions of flights"
    )
    assert reason.endswith("the first is 2013-01")


def test_a_holdout_the_champion_was_trained_on_is_a_leak() -> None:
    champion, challenger = a_model(1, training=selection("2013-02")), a_model(2)
    now = state(entry(1, PROMOTED, champion))

    outcome, reason = decide(
        now, challenger, evaluation=an_evaluation(challenger, champion), champion=champion
    )

    assert outcome is HELD
    assert reason == "leak: the holdout is what late v1 was trained on"


def test_a_leak_is_found_across_versions_of_one_table_but_not_across_tables() -> None:
    later = selection("2013-01", ref=dataset(9))
    elsewhere = selection("2013-01", ref=dataset(9, table_uuid="uuid-2"))

    assert decide(state(), a_model(), evaluation=an_evaluation(a_model(), on=later))[0] is HELD
    assert decide(state(), a_model(), evaluation=an_evaluation(a_model(), on=elsewhere))[0] is PROMOTED


def test_a_random_split_of_the_same_partitions_is_no_leak_for_its_own_model() -> None:
    training, holdout = selection("2013-01", digest="four fifths"), selection("2013-01", digest="one fifth")
    own, other = (
        a_model(training=training, holdout=holdout),
        a_model(training=training, holdout=selection("2013-02")),
    )

    assert decide(state(), own, evaluation=an_evaluation(own))[0] is PROMOTED
    assert decide(state(), other, evaluation=an_evaluation(other, on=holdout))[0] is HELD


def counted(rows: int) -> GateResult:
    """The gate that evaluation adds: so many holdout rows were trained on."""
    return GateResult(
        gate=LEAK_GATE,
        outcome=Outcome.FAILED if rows else Outcome.PASSED,
        observed=float(rows),
        threshold=0.0,
        message=f"of 10 holdout rows late v1 was trained on {rows} of them",
    )


def random_split(columns: str, *, rows: str = "one fifth", version: int = 3) -> dict[str, Selection]:
    """Both sides of a random split of one partition; digests depend on the columns, row ids do not."""
    return {
        side: dataclasses.replace(
            selection("2013-01", digest=f"{columns} of {ids}", ref=dataset(version)), row_ids_digest=ids
        )
        for side, ids in (("training", f"all but {rows}"), ("holdout", rows))
    }


def test_models_of_other_columns_on_one_random_split_are_no_leak() -> None:
    champion, challenger = a_model(1, **random_split("a, b")), a_model(2, **random_split("a, b, c"))
    now = state(entry(1, PROMOTED, champion))

    outcome, _ = decide(now, challenger, evaluation=an_evaluation(challenger, champion), champion=champion)

    assert outcome is PROMOTED


@pytest.mark.parametrize(
    "trained_on",
    [
        random_split("a, b", rows="another fifth"),
        random_split("a, b", version=2),
        {side: dataclasses.replace(s, row_ids_digest=None) for side, s in random_split("a, b").items()},
    ],
    ids=["another split", "another version", "rows not named"],
)
def test_random_splits_that_nothing_proves_apart_are_a_leak(trained_on: dict[str, Selection]) -> None:
    champion, challenger = a_model(1, **trained_on), a_model(2, **random_split("a, b, c"))
    now = state(entry(1, PROMOTED, champion))
    evaluation = an_evaluation(challenger, champion)

    outcome, reason = decide(now, challenger, evaluation=evaluation, champion=champion)

    assert outcome is HELD
    assert reason.startswith("leak: the holdout and the training data of late v1 share 1 partitions")


def test_rows_that_evaluation_has_counted_decide_whatever_the_partitions_say() -> None:
    champion = a_model(1, **random_split("a, b", rows="another fifth"))
    challenger = a_model(2, **random_split("a, b, c"))
    now = state(entry(1, PROMOTED, champion))

    def with_gate(rows: int) -> tuple[PromotionOutcome, str]:
        gates = (PASSED, counted(rows))
        evaluation = an_evaluation(challenger, champion, gates=gates)
        return decide(now, challenger, evaluation=evaluation, champion=champion)

    assert with_gate(0) == (PROMOTED, "all 2 gates passed")
    assert with_gate(4) == (HELD, "leak: of 10 holdout rows late v1 was trained on 4 of them")


def test_counted_rows_hold_even_a_models_own_holdout() -> None:
    model = a_model(**random_split("a, b"))

    outcome, reason = decide(state(), model, evaluation=an_evaluation(model, gates=(PASSED, counted(1))))

    assert outcome is HELD
    assert reason.startswith("leak: of 10")


def test_a_gate_that_counted_nothing_proves_nothing() -> None:
    model = a_model()
    unmeasured = GateResult(gate=LEAK_GATE, outcome=Outcome.PASSED, observed=None)
    evaluation = an_evaluation(model, gates=(PASSED, unmeasured), on=selection("2013-01", "2013-02"))

    outcome, reason = decide(state(), model, evaluation=evaluation)

    assert outcome is HELD
    assert reason.startswith("leak: the holdout and the training data")


def test_the_rows_a_model_was_trained_on_are_a_leak_under_other_columns() -> None:
    sides = random_split("a, b")
    training = dataclasses.replace(sides["training"], digest="a, b, c of the same rows")
    model = a_model(**sides)

    outcome, reason = decide(state(), model, evaluation=an_evaluation(model, on=training))

    assert (outcome, reason) == (HELD, "leak: the holdout is what late v1 was trained on")


@pytest.mark.parametrize(
    ("training", "holdout", "outcome"),
    [
        ("time[t]:[,2013-03-01T00:00:00+00:00)", "time[t]:[2013-03-01T00:00:00+00:00,)", PROMOTED),
        ("time[t]:[2013-04-01T00:00:00+00:00,)", "time[t]:[,2013-04-01T00:00:00+00:00)", PROMOTED),
        ("time[t]:[,2013-03-02T00:00:00+00:00)", "time[t]:[2013-03-01T00:00:00+00:00,)", HELD),
        ("time[t]:[,2013-03-01T00:00:00+00:00)", "time[u]:[2013-03-01T00:00:00+00:00,)", HELD),
        ("time[t]:[,)", "time[t]:[,)", HELD),
        ("", "time[t]:[2013-03-01T00:00:00+00:00,)", HELD),
    ],
)
def test_intervals_of_one_time_column_that_do_not_meet_are_no_leak(
    training: str, holdout: str, outcome
) -> None:
    model = a_model(training=selection("all", digest="a", description=training))
    on = selection("all", digest="b", description=holdout)

    assert decide(state(), model, evaluation=an_evaluation(model, on=on))[0] is outcome


def test_an_interval_without_a_time_zone_is_refused() -> None:
    model = a_model(training=selection("all", digest="a", description="time[t]:[,2013-03-01)"))
    on = selection("all", digest="b", description="time[t]:[2013-03-01,)")

    with pytest.raises(ArgumentError, match=r"argument\.naive_interval"):
        decide(state(), model, evaluation=an_evaluation(model, on=on))


def test_an_alias_moved_by_hand_holds_the_promotion() -> None:
    champion, challenger = a_model(1), a_model(2)
    now = state(entry(1, PROMOTED, champion))

    outcome, reason = decide(
        now, challenger, evaluation=an_evaluation(challenger, champion), alias_target=lambda: 5
    )

    assert outcome is HELD
    assert "moved to v5 outside the ledger" in reason
    assert "xops rollback late --to 5" in reason


def test_an_alias_older_than_the_ledger_is_to_be_adopted() -> None:
    outcome, reason = decide(state(), a_model(2), alias_target=lambda: 1)

    assert outcome is HELD
    assert "adopt it first" in reason


def test_a_version_recorded_with_other_files_too_is_held() -> None:
    outcome, reason = decide(state(), a_model(origin="adopted"), other_files=lambda: "f" * 64)

    assert outcome is HELD
    assert reason.startswith("other files: v1 was recorded with files of digest ffffffffffff... too")


def test_unknown_training_data_are_named_in_the_reason() -> None:
    model = a_model(training=None, origin="adopted")

    outcome, reason = decide(state(), model)

    assert outcome is PROMOTED
    assert "a leak cannot be excluded" in reason
