"""`xops promote`, `rollback`, `nominate`, `retire`, `reconcile`, `history`: what is said, which exit code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops import cli
from airflow_provider_xops.commands import _common
from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approval_results import conclude
from airflow_provider_xops.registry.approvals import approve
from airflow_provider_xops.registry.promote import promote
from tests.unit.registry.builders import AS_OF, a_model, a_recorded_evaluation, an_actor, an_evaluation
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models
from tests.unit.registry.test_ledger import rewrite, rows_of

Xops = Callable[..., tuple[int, str]]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = FakeRegistry()
    monkeypatch.setattr(_common, "registry", lambda _args: made)
    return made


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


@pytest.fixture
def xops(lake: Lake, registry: Any, capsys: pytest.CaptureFixture[str]) -> Xops:
    """Run a command; gives its exit code and what it said."""

    def run(*words: str) -> tuple[int, str]:
        code = cli.main([*words, "--lake", lake.uri])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def two(lake: Lake, registry: Any, models: list[ModelVersion]) -> list[ModelVersion]:
    """Two champions, one after the other."""
    for model, champion in ((models[0], None), (models[1], models[0])):
        promote(
            lake,
            registry,
            model=model,
            expected=champion.version if champion else None,
            evaluation=a_recorded_evaluation(lake, model, champion),
            actor=an_actor(f"promote {model.version}"),
            as_of=AS_OF,
        )
    return models


def test_promoting_takes_the_result_of_asking_people(
    lake: Lake, registry: Any, models: list[ModelVersion], xops: Xops
) -> None:
    evaluation = a_recorded_evaluation(lake, models[0])
    word = approve(lake, models[0], reason="fine", actor=an_actor(), as_of=AS_OF)
    made = {"evaluation": evaluation.record_id, "alias": "champion", "actor": an_actor(), "as_of": AS_OF}
    nobody = conclude(lake, models[0], request="one", **made)
    enough = conclude(lake, models[0], request="two", words=[word.record_id], trainer_counts=True, **made)

    expired, promoted = (
        xops("promote", "late", "1", "--approval", each.record_id[:12], "--key", each.request)
        for each in (nobody, enough)
    )

    assert expired[0] == 1
    assert "expired: late v1 for champion (approval expired: approved by 0 of 1" in expired[1]
    assert promoted[0] == 0
    assert "promoted: late v1 for champion (all 1 gates passed; approved by tester)" in promoted[1]
    assert registry.pointed == {"champion": 1}


def test_promoting_goes_by_the_newest_evaluation_for_the_alias(
    lake: Lake, registry: Any, models: list[ModelVersion], xops: Xops
) -> None:
    plain = an_evaluation(models[0])
    for number, alias in enumerate(("champion", "champion-eu"), 1):
        recorded_at = AS_OF + timedelta(hours=number)
        lake.evidence.put(dataclasses.replace(plain, alias=alias, recorded_at=recorded_at, record_id=""))

    planned = xops("promote", "late", "1", "--alias", "champion-us", "--dry-run")
    refused = xops("promote", "late", "1", "--alias", "champion-us")
    promoted = xops("promote", "late", "1", "--json", "--key", "k")

    for code, said in (planned, refused):
        assert code == 1
        assert "[argument.evaluation] late v1 was evaluated for champion-eu" in said
    assert promoted[0] == 0
    evaluation = lake.evidence.get("evaluations", json.loads(promoted[1])["evidence"][1])
    assert (evaluation.alias, registry.pointed) == ("champion", {"champion": 1})

    # one that does not say is for any alias, named ones go first only where they fit
    lake.evidence.put(plain)
    code, _ = xops("promote", "late", "1", "--alias", "champion-us")
    assert (code, registry.pointed) == (0, {"champion": 1, "champion-us": 1})


def test_other_columns_are_promoted_where_it_is_said(
    lake: Lake, registry: Any, models: list[ModelVersion], xops: Xops
) -> None:
    lake.evidence.put(an_evaluation(models[0]))
    assert xops("promote", "late", "1")[0] == 0
    wider = a_model(9, features=("a", "b", "c"), training=models[0].training, holdout=models[0].holdout)
    registry.tags[9] = {}
    for record in (wider, an_evaluation(wider, models[0])):
        lake.evidence.put(record)

    held, allowed = (
        xops("promote", "late", "9", *more, "--key", "k") for more in ((), ("--allow-new-inputs",))
    )

    assert (held[0], allowed[0]) == (1, 0)
    assert "held: late v9 for champion (other inputs than v1: it needs c" in held[1]
    assert "promoted: late v9 for champion (all 1 gates passed; allowed: other inputs than v1" in allowed[1]


def test_a_rollback_proves_its_target_unless_it_is_told_not_to(
    registry: Any, two: list[ModelVersion], xops: Xops
) -> None:
    planned = xops("rollback", "late", "--reason", "worse", "--dry-run", "--unverified")
    assert registry.pointed == {"champion": 2}
    done = xops("rollback", "late", "--reason", "worse", "--unverified", "--json", "--key", "k")

    assert planned[0] == 0
    assert "would move late@champion from v2 to v1" in planned[1]
    answer = json.loads(done[1])
    assert (done[0], answer["verified"], answer["to_version"]) == (0, False, 1)
    assert answer["decision"]["reason"] == "worse (unverified: the files were not looked at)"
    assert registry.pointed == {"champion": 1}


def test_a_nominee_by_command_and_its_end(registry: Any, models: list[ModelVersion], xops: Xops) -> None:
    named = xops("nominate", "late", "2", "--reason", "compare", "--expires-in-days", "7")
    assert named[0] == 0
    assert "late@challenger is v2 until " in named[1]
    assert registry.pointed == {"challenger": 2}

    ended = xops("retire", "late", "--alias", "challenger", "--reason", "compared")
    assert ended[0] == 0
    assert "late@challenger stands for nothing now" in ended[1]
    assert registry.pointed == {}

    refused = xops("nominate", "late", "2", "--alias", "champion", "--reason", "hurry")
    assert refused[0] == 1
    assert "[registry.gated_alias]" in refused[1]
    with pytest.raises(SystemExit) as usage:
        xops("retire", "late", "--reason", "which one?")
    assert usage.value.code == 2


@pytest.mark.parametrize("days", ["nan", "inf", "0", "-1", "1e12"])
def test_a_nomination_of_no_length_is_refused_before_anything_is_written(
    lake: Lake, models: list[ModelVersion], xops: Xops, days: str
) -> None:
    code, said = xops("nominate", "late", "2", "--reason", "compare", f"--expires-in-days={days}")

    assert code == 1
    assert "argument.expires_at" in said
    assert ledger.entries(lake) == []


def test_history_of_a_ledger_that_cannot_be_read_says_where(
    lake: Lake, two: list[ModelVersion], xops: Xops
) -> None:
    rows = rows_of(lake)
    rows[1]["entry"] = "garbage"
    rewrite(lake, rows)

    code, said = xops("history", "late")

    assert code == 1
    assert said.startswith("no decisions can be read on late\nPROBLEM: champion: entry 2 cannot be read\n")


def test_reconciling_says_what_to_do_and_when_it_is_over(
    registry: Any, two: list[ModelVersion], xops: Xops
) -> None:
    assert xops("reconcile", "late")[0] == 0
    registry.pointed["champion"] = 3

    code, said = xops("reconcile", "late")
    assert code == 1
    assert "late@champion: ledger_mismatch - the ledger says v2, MLflow's alias says v3" in said
    assert "next step: find out who moved it and why; `xops rollback late --to N`" in said

    registry.pointed["champion"] = 2
    code, said = xops("reconcile", "late", "--json", "--key", "k")
    (found,) = json.loads(said)
    assert (code, found["status"], len(found["mended"])) == (0, "consistent", 1)


def test_history_is_a_table_of_decisions_and_what_they_come_to(
    lake: Lake, registry: Any, two: list[ModelVersion], xops: Xops
) -> None:
    approve(lake, two[2], reason="fine", actor=an_actor(), as_of=AS_OF)
    promote(
        lake, registry, model=two[2], expected=2, evaluation=a_recorded_evaluation(lake, two[2], two[1]),
        actor=an_actor("third"), as_of=AS_OF,
    )  # fmt: skip
    xops("rollback", "late", "--reason", "worse on  Mondays", "--unverified")
    xops("nominate", "late", "3", "--alias", "shadow", "--reason", "again", "--expires-in-days", "0.0000001")

    code, said = xops("history", "late")
    lines = said.splitlines()

    assert code == 0
    assert lines[0].split() == [
        "when", "(UTC)", "alias", "#", "decision", "version", "by", "approved", "by", "reason",
    ]  # fmt: skip
    assert [line.split()[2:8] for line in lines[1:5]] == [
        ["champion", "1", "promoted", "-", "->", "v1"],
        ["champion", "3", "promoted", "v1", "->", "v2"],
        ["champion", "5", "promoted", "v2", "->", "v3"],
        ["champion", "7", "rolled", "back", "v3", "->"],
    ]
    assert "  tester       all 1 gates passed" in lines[3]
    assert lines[4].endswith("worse on Mondays (unverified: the files were not looked at)")
    assert lines[6] == ""
    assert lines[7].startswith("late@champion: v2 since ")
    assert lines[7].endswith("(entry 7); blocked: v3")
    assert lines[8].endswith("its time is over, `xops reconcile` retires it")
    assert len({line.index("v", 40) for line in lines[2:4]}) == 1

    one = json.loads(xops("history", "late", "--alias", "shadow", "--json")[1])
    assert [entry["outcome"] for entry in one["entries"]] == ["nominated", "applied"]
    assert xops("history", "nobody") == (0, "no decisions on nobody\n")


def test_history_says_what_mlflow_does_not_know_yet(
    lake: Lake, registry: Any, models: list[ModelVersion], xops: Xops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_xops.registry.promote.apply_decision", lambda *_, **__: False)
    promote(
        lake, registry, model=models[0], expected=None, evaluation=a_recorded_evaluation(lake, models[0]),
        actor=an_actor(), as_of=AS_OF,
    )  # fmt: skip

    said = xops("history", "late")[1]

    assert "promoted (not applied)" in said
    assert "MLflow does not know it yet, `xops reconcile` tells it" in said


def test_an_act_that_was_overtaken_does_not_say_that_it_is_so(
    lake: Lake, registry: Any, two: list[ModelVersion], xops: Xops
) -> None:
    back = ("rollback", "late", "--reason", "r", "--unverified", "--key", "b")
    shadow = ("nominate", "late", "3", "--alias", "shadow", "--reason", "r", "--key", "n")
    end = ("retire", "late", "--alias", "shadow", "--reason", "r", "--key", "e")
    for act in (back, shadow, end):
        assert xops(*act)[0] == 0
        assert xops(*act)[0] == 0  # the same again
    xops("release", "late", "2", "--reason", "r")
    promote(
        lake, registry, model=two[2], expected=1, evaluation=a_recorded_evaluation(lake, two[2], two[0]),
        actor=an_actor("third"), as_of=AS_OF,
    )  # fmt: skip
    xops("nominate", "late", "1", "--alias", "shadow", "--reason", "r")

    for act in (back, shadow, end):
        code, said = xops(*act)
        assert code == 1
        assert "overtaken since" in said
    assert registry.pointed == {"champion": 3, "shadow": 1}


def test_history_shows_what_somebody_wrote_and_obeys_none_of_it(
    lake: Lake, registry: Any, two: list[ModelVersion], xops: Xops
) -> None:
    xops("rollback", "late", "--reason", "worse\x1b[1A\x1b[2K\rpromoted \u202eeno", "--unverified")

    said = xops("history", "late")[1]

    assert "worse?[1A?[2K promoted ?eno" in said
    assert all(letter.isprintable() for line in said.splitlines() for letter in line)


def test_reconciling_a_misspelled_model_is_an_error(
    lake: Lake, registry: Any, xops: Xops, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> Any:
        raise NotFoundError(f"there is no model {name} in MLflow", code="not_found.model")

    monkeypatch.setattr(registry, "aliases", unknown)

    code, said = xops("reconcile", "laet")

    assert (code, "not_found.model" in said) == (1, True)
