"""Lineage: from a prediction to the file it came from and who approved the model, and back down."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError, UnavailableError
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import Trace, render, trace
from airflow_provider_xops.lake.maintenance import fold_evidence
from airflow_provider_xops.records import (
    RECORD_TYPES,
    DatasetVersion,
    ModelVersion,
    PromotionOutcome,
    Record,
    ScoringRun,
)
from tests.unit.lake.chain import START, Chain, source_of

DAYS = ("2013-01-01", "2013-01-02", "2013-01-03")


class Story(Chain):
    """Two days of training data, a promoted model, a third day scored."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake)
        self.published: dict[str, DatasetVersion] = {day: self.day(day) for day in DAYS[:2]}
        self.champion: ModelVersion = self.model(1, self.published[DAYS[1]].ref, DAYS[:2])
        self.promote(self.champion)
        self.published[DAYS[2]] = self.day(DAYS[2])
        self.run: ScoringRun = self.score(self.champion, self.published[DAYS[2]], DAYS[2])

    @property
    def prediction(self) -> str:
        return f"{self.run.record_id[:24]}-2"


@pytest.fixture
def story(lake: Lake) -> Story:
    return Story(lake)


def forget(lake: Lake, record: Record) -> None:
    """As if a crash had come between the data and this record."""
    path = evidence_path(record.kind, record.record_id)
    assert lake.storage.exists(path)
    lake.storage.delete(path)


def way(found: Trace, *titles: str) -> list[str]:
    """The kinds from the root up to the node whose title holds the last of ``titles``, passing the others."""
    wanted = list(titles)

    def search(node_id: str, left: list[str]) -> list[str] | None:
        node = found.nodes[node_id]
        left = left[1:] if left and left[0] in node.title else left
        if not left:
            return [node.kind]
        for _edge, source in found.sources_of(node_id):
            rest = search(source.id, left)
            if rest is not None:
                return [node.kind, *rest]
        return None

    return search(found.root, wanted) or []


def titles(found: Trace, kind: str) -> set[str]:
    return {node.title for node in found.of_kind(kind)}


def test_a_prediction_leads_to_the_files_of_its_row_and_of_the_training(story: Story) -> None:
    found = trace(story.lake, story.prediction, decisions=story.decisions)

    assert way(found, "flights@2", "flights__raw@2", DAYS[2]) == [
        "prediction", "scoring_run", "dataset", "validation", "dataset", "run", "source",
    ]  # fmt: skip
    assert way(found, "delay v1", "flights@1", "flights__raw@1", DAYS[1]) == [
        "prediction", "scoring_run", "model", "dataset", "validation", "dataset", "run", "source",
    ]  # fmt: skip
    assert way(found, "delay v1", "flights@1", "flights@0", "flights__raw@0", DAYS[0])
    assert titles(found, "source") == {f"source file {day}.csv" for day in DAYS}
    assert not [node for node in found.nodes.values() if node.missing]


def test_the_checksum_of_each_source_file_is_in_the_text(story: Story) -> None:
    text = render(trace(story.lake, story.prediction, decisions=story.decisions))

    for day in DAYS:
        assert source_of(day).sha256 in text
    assert "MISSING" not in text


def test_the_text_begins_with_the_answer(story: Story) -> None:
    lines = render(trace(story.lake, story.prediction, decisions=story.decisions), width=400).splitlines()

    short = lines[lines.index("IN SHORT") + 1 : lines.index("WHERE IT CAME FROM") - 1]

    assert [line.split("  ")[1] for line in short] == ["model", "decided", "trained on", "scored rows"]
    assert "model delay v1, champion since 2026-01-15 12:09:00 UTC and still is" in short[0]
    assert "flights.promote" in short[1]
    assert "all 1 gates passed; evaluation" in short[1]
    assert "flights@1" in short[2]
    assert f"2013-01-03.csv (sha256 {source_of(DAYS[2]).sha256})" in short[3]


def test_who_promoted_the_model_when_and_on_which_evidence(story: Story) -> None:
    found = trace(story.lake, "delay/1", decisions=story.decisions)

    (decision,) = found.of_kind("decision")
    facts = dict(decision.facts)
    assert decision.title == "decision 1 on champion: promoted (to v1)"
    assert facts["by"].startswith("flights.promote (run manual__")
    assert facts["decided"] == "2026-01-15 12:09:00 UTC"
    assert facts["alias set"] == "2026-01-15 12:10:00 UTC"
    ((edge, evaluation),) = found.sources_of(decision.id)
    assert (edge.upstream, evaluation.kind) == ("on the evidence of", "evaluation")
    assert ("gate", "passed: roc_auc at least 0.65") in evaluation.facts


def test_the_entries_of_the_ledger_may_come_from_a_function_of_the_model(story: Story) -> None:
    asked = []

    def entries(model: str) -> list[object]:
        asked.append(model)
        return list(story.decisions)

    found = trace(story.lake, story.prediction, decisions=entries)  # type: ignore[arg-type]

    assert asked == ["delay"]
    assert len(found.of_kind("decision")) == 1


def test_a_decision_that_was_never_applied_says_so(story: Story) -> None:
    decided = [entry for entry in story.decisions if entry.outcome is not PromotionOutcome.APPLIED]

    text = render(trace(story.lake, "delay/1", decisions=decided))

    assert "not recorded: run `xops reconcile`" in text


def test_a_replaced_champion_says_until_when_and_by_which_decision(story: Story) -> None:
    second = story.model(2, story.published[DAYS[2]].ref, DAYS)
    decision = story.promote(second, before=1)

    old = trace(story.lake, "delay/1", decisions=story.decisions)
    new = trace(story.lake, "delay/2", decisions=story.decisions)

    (standing,) = [text for name, text in old.nodes[old.root].facts if name == "standing"]
    assert standing.endswith("(then v2)")
    assert f"decision:{decision.record_id}" in {node.id for node in old.of_kind("decision")}
    assert {edge.upstream for edge, node in old.sources_of(old.root) if node.kind == "decision"} == {
        "decided on by", "replaced by",
    }  # fmt: skip
    (standing,) = [text for name, text in new.nodes[new.root].facts if name == "standing"]
    assert standing.endswith("and still is")


def test_a_recreated_namesake_does_not_inherit_decisions(story: Story) -> None:
    namesake = replace(
        story.champion, record_id="", created_at_ms=1_800_000_000_000, artifact_digest="c" * 64
    )
    story.lake.evidence.put(namesake)

    found = trace(story.lake, "delay/1", decisions=story.decisions)

    assert found.root == "model:delay/1@1800000000000"
    assert found.of_kind("decision") == []
    assert "never promoted" in render(found)


def test_a_model_leads_down_to_its_scoring_runs_and_their_predictions(story: Story) -> None:
    found = trace(story.lake, "model:delay/1", decisions=story.decisions)

    ((edge, run),) = found.products_of(found.root)
    assert (edge.downstream, run.title) == ("used by", f"scoring run {story.run.record_id[:12]}")
    assert [node.title for _edge, node in found.products_of(run.id)] == ["dataset predictions@0"]


def test_a_raw_version_leads_down_to_every_prediction_made_with_its_rows(story: Story) -> None:
    found = trace(story.lake, "flights__raw@0", decisions=story.decisions)

    text = render(found)

    assert titles(found, "dataset") == {
        "dataset flights__raw@0",
        "dataset flights@0",
        "dataset predictions@0",
    }
    assert titles(found, "model") == {"model delay v1"}
    assert "through flights@1, which still holds it" in text
    assert "went into: dataset flights@0" in text
    assert "trained: model delay v1" in text


def test_what_did_not_use_a_version_is_not_below_it(story: Story) -> None:
    unused = story.day("2013-01-04")

    found = trace(story.lake, f"dataset:{unused.ref}", decisions=story.decisions)

    assert found.of_kind("model") == []
    assert found.of_kind("scoring_run") == []
    assert way(found, str(unused.ref), "flights__raw@3", "2013-01-04")


def test_a_day_loaded_again_cuts_the_old_version_off_from_later_readers(story: Story) -> None:
    corrected = story.day(DAYS[0], rows=5)
    retrained = story.model(2, corrected.ref, DAYS, rows=11)

    old = trace(story.lake, "flights@0")
    new = trace(story.lake, f"flights@{corrected.version}")

    assert titles(old, "model") == {"model delay v1"}
    assert titles(new, "model") == {"model delay v2"}
    assert way(trace(story.lake, "delay/2"), "delay v2", f"flights__raw@{3}", DAYS[0])
    assert retrained.version == 2


def test_only_the_partitions_that_were_read_are_followed(story: Story) -> None:
    features = story.commit(
        "features",
        DAYS[1],
        task="transform",
        parents=[story.published[DAYS[2]].ref],
        parent_partitions=[(DAYS[1],)],
    )
    everything = story.commit("summary", "all", task="transform", parents=[story.published[DAYS[2]].ref])

    one = trace(story.lake, str(features.ref))
    all_days = trace(story.lake, str(everything.ref))

    assert titles(one, "source") == {f"source file {DAYS[1]}.csv"}
    assert titles(all_days, "source") == {f"source file {day}.csv" for day in DAYS}


@pytest.mark.parametrize("kind", ["models", "validations", "evaluations"])
def test_a_lost_record_is_a_node_that_says_missing(story: Story, kind: str) -> None:
    for record in list(story.lake.evidence.all(kind)):
        forget(story.lake, record)

    found = trace(story.lake, story.prediction, decisions=story.decisions)

    assert any(node.missing for node in found.nodes.values()) is True
    assert "MISSING" in render(found)
    assert source_of(DAYS[2]).sha256 in render(found)


def test_a_lost_dataset_record_is_rebuilt_from_its_commit(story: Story) -> None:
    for record in list(story.lake.evidence.all("versions")):
        forget(story.lake, record)

    found = trace(story.lake, story.prediction, decisions=story.decisions)

    assert titles(found, "source") == {f"source file {day}.csv" for day in DAYS}
    assert not [node for node in found.nodes.values() if node.missing]


def test_a_dropped_table_leaves_its_evidence(story: Story) -> None:
    shutil.rmtree(Path(story.lake.uri) / "flights__raw")

    found = trace(story.lake, story.prediction, decisions=story.decisions)

    assert titles(found, "source") == {f"source file {day}.csv" for day in DAYS}
    assert trace(story.lake, "flights__raw@1").root == found_id(found, "dataset flights__raw@1")


def found_id(found: Trace, title: str) -> str:
    (node,) = [node for node in found.nodes.values() if node.title == title]
    return node.id


def test_a_table_made_again_under_the_same_name_is_another_table(story: Story) -> None:
    shutil.rmtree(Path(story.lake.uri) / "flights")
    again = story.commit("flights", DAYS[0], rows=1, task="publish")

    found = trace(story.lake, f"flights@{again.version}")

    assert found.of_kind("model") == []
    assert titles(trace(story.lake, "delay/1"), "source") == {f"source file {day}.csv" for day in DAYS[:2]}


def test_folded_evidence_tells_the_same_story(story: Story) -> None:
    before = trace(story.lake, story.prediction, decisions=story.decisions).to_json()

    for kind in RECORD_TYPES:
        fold_evidence(
            story.lake, kind, older_than=START.replace(year=2030), actor=story.actor("fold"), as_of=START
        )

    assert trace(story.lake, story.prediction, decisions=story.decisions).to_json() == before


def test_the_json_is_the_whole_graph_with_its_records(story: Story) -> None:
    data = json.loads(json.dumps(trace(story.lake, story.prediction, decisions=story.decisions).to_json()))

    nodes = {node["id"]: node for node in data["nodes"]}
    assert data["root"] in nodes
    assert {end for edge in data["edges"] for end in (edge["source"], edge["target"])} <= set(nodes)
    assert nodes[f"scoring_run:{story.run.record_id}"]["record"] == story.run.to_json()


def test_many_branches_are_shortened_in_the_text_only(lake: Lake) -> None:
    chain = Chain(lake)
    days = [f"2013-02-{number:02d}" for number in range(1, 11)]
    last = [chain.day(day) for day in days][-1]
    chain.model(1, last.ref, days)
    found = trace(lake, "delay/1")

    text = render(found)

    assert "... and 6 more like these (--json names them all) ..." in text
    assert len(found.of_kind("source")) == 10
    assert sum(source_of(day).sha256 in text for day in days) == 4
    assert sum(source_of(day).sha256 in render(found, limit=0) for day in days) == 10


def test_a_thing_is_told_once(story: Story) -> None:
    text = render(trace(story.lake, "delay/1", decisions=story.decisions))

    assert text.count(f"sha256  {source_of(DAYS[0]).sha256}") == 1


def test_lines_stay_within_the_width_where_words_allow(story: Story) -> None:
    text = render(trace(story.lake, "delay/1", decisions=story.decisions), width=100)

    assert [
        line for line in text.splitlines() if len(line) > 100 and "sha256" not in line and "/" not in line
    ] == []


def test_every_branch_of_the_tree_hangs_on_a_stem(story: Story) -> None:
    lines = render(trace(story.lake, story.prediction, decisions=story.decisions)).splitlines()
    tree = lines[lines.index("WHERE IT CAME FROM") + 1 :]

    for above, line in pairwise(tree):
        corner = max(line.find("├"), line.find("└"))
        if corner > 0:
            assert above[corner] in "│├└", (above, line)


@pytest.mark.parametrize("subject", ["", "flights", "delay", "flights@", "@3", "abc-1", "delay/one", "1234-"])
def test_what_cannot_be_traced_says_what_can(lake: Lake, subject: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        trace(lake, subject)

    assert caught.value.code == "argument.trace"
    assert "NAME/3" in caught.value.todo


def test_what_nobody_knows_is_not_found(story: Story) -> None:
    for subject, code in (
        (f"{'0' * 24}-1", "not_found.prediction"),
        (f"{story.run.record_id[:24]}-{story.run.rows}", "not_found.prediction"),
        ("delay/9", "not_found.model"),
        ("other/1", "not_found.model"),
        ("flights@99", "not_found.version"),
        ("planes@0", "not_found.table"),
    ):
        with pytest.raises(NotFoundError) as caught:
            trace(story.lake, subject)
        assert caught.value.code == code


def test_a_storage_that_is_down_is_never_told_as_missing(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(path: str) -> bytes:
        raise UnavailableError("the storage did not answer", code="unavailable.storage")

    monkeypatch.setattr(story.lake.storage, "get", down)

    with pytest.raises(UnavailableError):
        trace(story.lake, "flights@0")


def test_tracing_changes_nothing(story: Story) -> None:
    before = {path: (Path(story.lake.uri) / path).stat().st_mtime_ns for path in story.lake.storage.list("")}

    trace(story.lake, story.prediction, decisions=story.decisions)
    trace(story.lake, "flights__raw@0", decisions=story.decisions)

    assert {
        path: (Path(story.lake.uri) / path).stat().st_mtime_ns for path in story.lake.storage.list("")
    } == before
