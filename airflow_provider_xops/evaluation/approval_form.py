"""The evidence that people are shown when they are asked whether a model version may be promoted.

For the operator that shows it (:mod:`airflow_provider_xops.operators.approval`): a headline and a Markdown
text for a form. It says what stands in the evaluation's report, short enough to be read before answering:
what the gates said, the figures against the champion with their intervals and tests, where the model is weak,
what it learned from.

What it does not do: it holds no values of data. Groups of people and conditions of slices are in the report
that it links to, for those who may see it. It reads nothing: everything comes from the records it is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_provider_xops.evaluation import _report_parts as parts
from airflow_provider_xops.evaluation._document import Block, Items, Section, Table, Text, to_markdown, word
from airflow_provider_xops.evaluation._words import estimate, percent, plain
from airflow_provider_xops.records import Evaluation, GateReport, ModelVersion, Outcome, SmokeTest

__all__ = ["Form", "approval_form"]

#: characters of the text; the form's place in Airflow, an XCom, is not for documents
BODY_LIMIT = 9_000
_SLICES_NAMED = 5
_LATENCIES = {"latency_p50_ms": "median", "latency_p99_ms": "99th percentile"}


@dataclass(frozen=True)
class Form:
    """What is shown: ``subject`` in one line, ``body`` in Markdown (with GitHub's tables)."""

    subject: str
    body: str


def approval_form(
    evaluation: Evaluation,
    *,
    model: ModelVersion,
    alias: str,
    gate_report: GateReport | None = None,
    smoke_test: SmokeTest | None = None,
    champion_now: int | None = None,
    inputs: str = "",
    people: int = 1,
    deadline: datetime | None = None,
    links: Sequence[tuple[str, str]] = (),
) -> Form:
    """The form about one evaluated version.

    :param model: its record. :param alias: what it would become.
    :param gate_report: answers to the gates that the evaluation left for later.
    :param smoke_test: the newest one of these very files; None: there is none, and the form says so.
    :param champion_now: the version that the alias stands for now; where it is not the one that the
        evaluation compared with, the form says that nothing will be promoted.
    :param inputs: how its columns differ from that version's; empty: they do not.
    :param people: how many must approve. :param deadline: when silence becomes a no.
    :param links: words and addresses of pages to read more on.

    >>> approval_form(evaluation, model=model, alias="champion").subject  # doctest: +SKIP
    'Promote late v3 to champion (now v2)?'
    """
    compared = evaluation.champion.version if evaluation.champion else None
    instead = f" (now v{compared})" if compared is not None else ""
    subject = f"Promote {model.ref} to {alias}{instead}?"
    lead = [
        *_lead(evaluation, gate_report),
        *_other_inputs(champion_now, inputs),
        _question(people, deadline),
    ]
    sections = [
        _figures(evaluation),
        _gates(evaluation, gate_report),
        *_closer(evaluation),
        _operation(smoke_test),
        _data(evaluation, model),
    ]
    stale, read_on = _stale(evaluation, alias, champion_now), _links(links)
    return Form(subject=subject, body=_fitted(stale, lead, read_on, sections))


def _lead(evaluation: Evaluation, gate_report: GateReport | None) -> list[str]:
    """As the report begins, without the slices and groups that it names."""
    told = dataclasses.replace(evaluation, slices=(), fairness=())
    if gate_report is None:
        return parts.lead_of(told)
    line = f"The gates of {gate_report.policy or 'the policy'}: {word(gate_report.outcome)}."
    return [line, *parts.lead_of(dataclasses.replace(told, deferred_gates=()))]


def _question(people: int, deadline: datetime | None) -> str:
    who = "One person must approve" if people == 1 else f"{people} different people must approve"
    by = f" by {deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if deadline else ""
    return f"{who}{by}; one no is a no, and so is silence. An answer is recorded under your name."


def _stale(evaluation: Evaluation, alias: str, champion_now: int | None) -> str:
    """A warning where nothing can come of an answer; nothing where something can."""
    compared = evaluation.champion.version if evaluation.champion else None
    if champion_now == compared:
        return ""
    now = "nothing" if champion_now is None else f"v{champion_now}"
    then = "no champion" if compared is None else f"v{compared}"
    return (
        f"**The champion is another one by now:** {alias} stands for {now}, this evaluation is against"
        f" {then}. An approval promotes nothing; evaluate again."
    )


def _other_inputs(champion_now: int | None, inputs: str) -> list[str]:
    said = (
        f"Its columns are not those of v{champion_now}: {inputs}. Whoever promotes it must allow that, and"
        " callers must be ready."
    )
    return [said] if inputs else []


def _figures(evaluation: Evaluation) -> Section:
    section = parts.figure_section(evaluation)
    kept = [block for block in section.blocks if isinstance(block, Table | Text)]
    return Section("Figures", kept, level=3)


def _gates(evaluation: Evaluation, gate_report: GateReport | None) -> Section:
    blocks: list[Block] = []
    if evaluation.gates:
        blocks.append(parts.gates_table(evaluation.gates))
    if gate_report is not None:
        known = {(one.gate, one.outcome, one.message) for one in evaluation.gates}
        more = [one for one in gate_report.results if (one.gate, one.outcome, one.message) not in known]
        blocks += [Text("Asked since:"), parts.gates_table(more)] if more and blocks else []
        blocks += [parts.gates_table(more)] if more and not blocks else []
    elif evaluation.deferred_gates:
        blocks.append(Text("Asked when it is promoted:"))
        blocks.append(Items([parts.gate_words(gate) for gate in evaluation.deferred_gates]))
    return Section("Gates", blocks or [Text("None were asked: nothing can be promoted.")], level=3)


def _closer(evaluation: Evaluation) -> list[Section]:
    """Weak slices and gaps between groups, without the values that they are made of."""
    lines = []
    weak = [one for one in evaluation.slices if one.weak]
    for one in weak[:_SLICES_NAMED]:
        name = "a slice that was searched for" if one.found else one.name
        value, rest = estimate(one.value, one.lower, one.upper), plain(one.rest)
        lines.append(
            f"Worse than the other rows beyond chance: {name} ({percent(one.share)} of the rows),"
            f" {one.metric} {value} against {rest}"
        )
    if len(weak) > _SLICES_NAMED:
        lines.append(f"{len(weak) - _SLICES_NAMED} more weak slices are in the report")
    for gap in evaluation.fairness:
        if gap.gap is None:
            continue
        criterion = f", {gap.criterion.replace('_', ' ')}" if gap.criterion else ""
        shown = estimate(gap.gap, gap.gap_lower, gap.gap_upper)
        lines.append(f"Largest gap between groups of {gap.attribute}: {shown} ({gap.metric}{criterion})")
    if evaluation.slices and not weak:
        lines.append(f"None of {len(evaluation.slices)} slices is weak beyond chance")
    missing = [
        name
        for name, found in (("slices", evaluation.slices), ("gaps between groups", evaluation.fairness))
        if not found
    ]
    if missing:
        lines.append(f"Not measured: {' and '.join(missing)}")
    return [Section("Weak spots", [Items(lines)], level=3)] if lines else []


def _operation(smoke_test: SmokeTest | None) -> Section:
    if smoke_test is None:
        said = "These files were not smoke-tested."
    else:
        figures = [
            f"{name} {plain(smoke_test.figures[key])} ms"
            for key, name in _LATENCIES.items()
            if key in smoke_test.figures
        ]
        latency = f"; latency: {', '.join(figures)}" if figures else ""
        said = (
            f"Smoke test of {smoke_test.recorded_at:%Y-%m-%d %H:%M} UTC: {word(smoke_test.outcome)},"
            f" {smoke_test.requests:,} requests{latency}."
        )
        if smoke_test.outcome is not Outcome.PASSED and smoke_test.message:
            said += f" {smoke_test.message.rstrip('.')}."
    return Section("In operation", [Text(said)], level=3)


def _data(evaluation: Evaluation, model: ModelVersion) -> Section:
    rows = [
        ("Trained on", parts.selection_words(model.training)),
        ("Evaluated on", parts.selection_words(evaluation.selection)),
        ("Estimator", model.estimator),
        ("Code version", model.code_version),
        ("Files (SHA-256)", model.artifact_digest[:16]),
        ("Evaluation", evaluation.record_id),
    ]
    return Section("Where it comes from", [Table(("", ""), rows)], level=3)


def _links(links: Sequence[tuple[str, str]]) -> str:
    """A line of links. An address that could end the link, or is none of the web, is left out."""
    shown = [
        f"[{text}](<{address}>)"
        for text, address in links
        if address.startswith(("http://", "https://", "/")) and not set(address) & set("<> \n\t")
    ]
    return f"**Read on:** {' · '.join(shown)}" if shown else ""


def _fitted(stale: str, lead: Sequence[str], read_on: str, sections: Sequence[Section]) -> str:
    """The text, without its last sections where it would be longer than the limit."""
    # The subject is the title already.
    top = to_markdown("", [], lead=lead).removeprefix("# \n\n").rstrip()
    kept = list(sections)
    cut = ""
    while True:
        rest = to_markdown("", kept, plots=False).removeprefix("# \n\n").rstrip() if kept else ""
        body = "\n\n".join(part for part in (stale, top, read_on, rest, cut) if part) + "\n"
        if len(body) <= BODY_LIMIT or not kept:
            return body
        kept.pop()
        cut = "*More is in the evaluation's report.*"
