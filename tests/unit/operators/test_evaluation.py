"""The judging operators on a real lake and MLflow server: plans, policies, candidates, the best one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._evaluation import _count, _gates, _plan
from airflow_provider_xops.operators.model import (
    ChooseModelOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
    TrainModelOperator,
)
from airflow_provider_xops.records import Evaluation
from airflow_provider_xops.version_compat import AirflowFailException
from tests.servers import MlflowServer

MakeContext = Callable[..., dict[str, Any]]
GATES = [{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5}]
SMALL = {"resamples": 100, "slices": {"find": False}, "explanation": {"repeats": 1}}


def policy() -> dict[str, Any]:
    """A policy as code has it."""
    return {"name": "late", "gates": GATES}


@pytest.fixture(autouse=True)
def mlflow_connection(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"conn_type": "xops_mlflow", "host": mlflow_server.url, "extra": {"timeout": 30}}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))


@pytest.fixture
def train(
    lake: Lake, make_actor: Any, as_of: datetime, make_context: MakeContext
) -> Callable[..., dict[str, Any]]:
    for number, day in enumerate(("2013-01-01", "2013-01-02", "2013-01-03")):
        rows = pa.table(
            {
                "x": [float((i * 7 + number) % 10) for i in range(60)],
                "late": [int((i * 7 + number) % 10 + i % 3 > 5) for i in range(60)],
            }
        )
        segment = Segment(partition=day, fingerprint=day, data=lambda rows=rows: rows.to_reader())
        commit(lake, "features", [segment], actor=make_actor(), as_of=as_of)
    name = f"m_{uuid.uuid4().hex[:10]}"

    def make(depth: int) -> dict[str, Any]:
        operator = TrainModelOperator(
            task_id=f"train_{depth}",
            table="features",
            model_name=name,
            estimator="sklearn.tree:DecisionTreeClassifier",
            estimator_params={"max_depth": depth},
            target="late",
            split={"kind": "time", "holdout_partitions": 1},
        )
        return operator.execute(make_context(task_id=f"train_{depth}"))

    return make


@pytest.fixture
def judge(make_context: MakeContext) -> Callable[..., dict[str, Any]]:
    def make(model: Any, *, map_index: int = -1, **changes: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"gates": GATES, "plan": SMALL, **changes}
        operator = EvaluateModelOperator(task_id="judge", model=model, **given)
        return operator.execute(make_context(task_id="judge", map_index=map_index))

    return make


def test_several_candidates_are_judged_alike_and_the_best_is_promoted(
    lake: Lake, train: Any, judge: Any, make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    # given two candidates, judged by mapped tasks
    trained = [train(depth) for depth in (1, 3)]
    judged = [judge(model, map_index=place, candidates=trained) for place, model in enumerate(trained)]
    assert {each["plan"]["candidates"] for each in judged} == {2}

    # when the best is chosen, as a mapped task's output arrives
    choose = ChooseModelOperator(task_id="choose", evaluations=iter(judged))
    with caplog.at_level("INFO"):
        best = choose.execute(make_context(task_id="choose"))

    # then it is an evaluation like theirs, which promotion takes
    by_figure = max(judged, key=lambda each: each["metrics"]["roc_auc"])
    assert best["record_id"] == by_figure["record_id"]
    assert (best["candidates"], best["chosen_by"]) == (2, "roc_auc")
    assert (
        f"Candidate 2 of 2: {lake.evidence.get(Evaluation.kind, judged[0]['record_id']).model}" in caplog.text
    )
    promoted = PromoteModelOperator(task_id="promote", evaluation=best).execute(
        make_context(task_id="promote")
    )
    assert (promoted["outcome"], promoted["to_version"]) == ("promoted", by_figure["model"]["version"])

    # and a choice that comes too late says so
    with caplog.at_level("WARNING"):
        ChooseModelOperator(task_id="choose", evaluations=[each["record_id"] for each in judged]).execute(
            make_context(task_id="choose")
        )
    assert "was compared with no champion, and the champion is now" in caplog.text


def test_links_lead_to_the_report(train: Any, make_context: MakeContext) -> None:
    operator = EvaluateModelOperator(task_id="judge", model=train(2), gates=GATES, plan=SMALL)
    judged = operator.execute(make_context(task_id="judge"))
    links = {link.name: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}
    assert links["Evaluation report"].endswith(judged["report_uri"].partition("/_xops/reports/")[2])
    assert judged["record_id"] in links["XOps evidence"]
    assert "/experiments/" in links["MLflow run"]

    choose = ChooseModelOperator(task_id="choose", evaluations=[judged])
    choose.execute(make_context(task_id="choose"))
    assert choose.report_uri == judged["report_uri"]


def test_the_record_says_whose_champion_was_met(
    lake: Lake, train: Any, judge: Any, make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    model = train(2)
    eu = judge(model, alias="champion-eu")
    assert (eu["alias"], eu["champion"]) == ("champion-eu", None)
    page = lake.storage.get(f"_xops/reports/evaluations/{eu['record_id']}.html")
    assert b"champion-eu" in (page or b"")

    def promote(alias: str) -> Any:
        operator = PromoteModelOperator(task_id="promote", evaluation=eu, alias=alias)
        return operator.execute(make_context(task_id="promote"))

    def choose() -> None:
        ChooseModelOperator(task_id="choose", evaluations=[eu]).execute(make_context(task_id="choose"))

    with pytest.raises(AirflowFailException, match=r"argument\.evaluation"):
        promote("champion")
    choose()
    assert "promotion will hold it" not in caplog.text

    # the best of those for a region is compared with the champion of that region
    assert promote("champion-eu")["outcome"] == "promoted"
    choose()
    assert "promotion will hold it" in caplog.text

    with pytest.raises(AirflowFailException, match=r"argument\.alias"):
        judge(model, alias="latest")


def test_a_retry_is_the_same_record(train: Any, judge: Any) -> None:
    model = train(2)
    assert judge(model)["record_id"] == judge(model)["record_id"]


def test_a_mapped_task_with_uncorrected_tests_says_so(
    train: Any, judge: Any, make_context: MakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    challenger, champion = train(3), train(1)
    promote = PromoteModelOperator(task_id="promote", evaluation=judge(champion))
    promote.execute(make_context(task_id="promote"))
    plan = {**SMALL, "tests": [{"metric": "roc_auc"}]}
    for map_index, candidates, warned in ((-1, None, False), (0, 2, False), (0, None, True)):
        caplog.clear()
        judge(challenger, map_index=map_index, candidates=candidates, plan=plan)
        assert ("corrected for one candidate" in caplog.text) is warned


def test_a_policy_by_name_and_as_text_are_the_same_gates(train: Any, judge: Any) -> None:
    model = train(2)
    digests = {
        judge(model, gates=gates)["gates_digest"]
        for gates in (f"{__name__}:policy", policy, policy(), GATES, json.dumps(GATES), json.dumps(policy()))
    }
    assert len(digests) == 1


def test_a_function_as_policy_is_not_called_while_templates_are_rendered(make_context: MakeContext) -> None:
    operator = EvaluateModelOperator(task_id="judge", model="{{ params.model }}", gates=policy)
    operator.render_template_fields(make_context(params={"model": "abcdef123456"}))
    assert operator.gates is policy
    assert operator.model == "abcdef123456"


def test_an_empty_choice_and_a_wrong_plan_fail_without_a_retry(
    train: Any, judge: Any, make_context: Any
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.empty"):
        ChooseModelOperator(task_id="choose", evaluations=[]).execute(make_context(task_id="choose"))
    with pytest.raises(AirflowFailException, match="resampels"):
        judge(train(1), plan={"resampels": 10})


@pytest.mark.parametrize(
    ("given", "count"),
    [
        (None, None),
        ("", None),
        (3, 3),
        ("3", 3),
        (" 2 ", 2),
        (["a", "b"], 2),
        ("['a', 'b', 'c']", 3),
        (iter("ab"), 2),
    ],
)
def test_the_number_of_candidates_in_all_its_forms(given: Any, count: int | None) -> None:
    assert _count(given) == count
    if not hasattr(given, "__next__"):
        assert _plan({"resamples": 200}, given).candidates == (count or 1)


def test_a_number_of_candidates_that_is_none() -> None:
    for given in ("two", 0, True):
        with pytest.raises(ArgumentError):
            _plan(None, given)


def test_gates_in_all_their_forms() -> None:
    assert _gates(None) == _gates("") == _gates([]) == ()
    assert _gates(" policies/late.yaml ") == "policies/late.yaml"
    assert _gates(policy) is policy
    assert _gates(str(GATES)) == GATES
    assert _gates(iter(GATES)) == GATES
