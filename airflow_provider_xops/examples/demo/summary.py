"""What the demo came to, read back from the lake's evidence and the promotion ledger (not from what it
printed)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.examples.demo.stack import USERS, Stack
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    ControlChartReport,
    DatasetVersion,
    Evaluation,
    GateReport,
    ModelCard,
    ModelVersion,
    Outcome,
    PromotionOutcome,
    QuarantineReport,
    ScoringRun,
    SmokeTest,
    ValidationReport,
)

if TYPE_CHECKING:
    from airflow_provider_xops.examples.demo.replay import Story

__all__ = ["collect", "render_summary"]

MODEL = "flights_late_arrival"
SUITE = "flights"


def collect(
    stack: Stack,
    lake: Lake,
    story: Story,
    *,
    stopped_reasons: dict[str, str],
    online: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Everything worth telling, as JSON; ``ok`` says whether the loop did what it should."""
    from airflow_provider_xops.examples.demo.replay import days_between
    from airflow_provider_xops.lake.lineage import render, trace
    from airflow_provider_xops.registry.ledger import entries, verify_chain

    versions = [r for r in lake.evidence.all("versions") if isinstance(r, DatasetVersion)]
    reports = [r for r in lake.evidence.all("validations") if isinstance(r, ValidationReport)]
    models = {
        r.version: r for r in lake.evidence.all("models") if isinstance(r, ModelVersion) and r.name == MODEL
    }
    runs = [r for r in lake.evidence.all("scoring_runs") if isinstance(r, ScoringRun)]
    decisions = entries(lake, MODEL, "champion")
    champion = next(
        (
            d
            for d in reversed(decisions)
            if d.outcome in (PromotionOutcome.PROMOTED, PromotionOutcome.ROLLED_BACK)
        ),
        None,
    )
    champion_model = models.get(champion.to_version) if champion and champion.to_version else None
    heads: dict[str, DatasetVersion] = {}
    for record in sorted(versions, key=lambda r: r.version):
        heads[record.table] = record
    week = days_between(*story.week)
    scored = {run.partition: run for run in sorted(runs, key=lambda r: r.recorded_at)}
    last_day = scored.get(week[-1])
    prediction = f"{last_day.record_id[:24]}-0" if last_day else None
    found = trace(lake, prediction, decisions=entries(lake)) if prediction else None
    asked = online["last_prediction"]
    online_trace = trace(lake, asked, decisions=entries(lake)) if asked else None
    outcomes = {
        day: {r.outcome for r in reports if r.partitions == (day,) and r.suite == SUITE} for day in week
    }
    quarantines = [
        r
        for r in lake.evidence.all("quarantines")
        if isinstance(r, QuarantineReport) and r.quarantined_rows and r.partitions == (story.soiled_day,)
    ]
    signals = [
        r
        for r in lake.evidence.all("control_charts")
        if isinstance(r, ControlChartReport) and r.signals and r.partition == story.shifted_day
    ]
    promoted = [d.to_version for d in decisions if d.outcome is PromotionOutcome.PROMOTED]
    exercised = {r.model.version for r in _passed(lake, SmokeTest)}
    gated = {r.model.version for r in _passed(lake, GateReport)}
    cards = {r.model.version: r for r in lake.evidence.all(ModelCard.kind) if isinstance(r, ModelCard)}
    checks = {
        "every day of the week was scored": set(week) <= scored.keys(),
        "the few bad rows were set aside, the others went on, and the counts add up": bool(quarantines)
        and all(q.rows == q.accepted_rows + q.quarantined_rows for q in quarantines),
        "the broken file failed its validation": Outcome.FAILED in outcomes[story.broken_day],
        "the mended file passed": Outcome.PASSED in outcomes[story.broken_day],
        "the silent shift passed every rule": outcomes[story.shifted_day] == {Outcome.PASSED},
        "the control chart saw the silent shift": bool(signals),
        "a champion is in service": champion_model is not None,
        "two models met": len(models) >= 2,
        "what was promoted had passed its smoke test and all of its gates": bool(promoted)
        and set(promoted) <= exercised & gated,
        "the champion has a card": champion_model is not None and champion_model.version in cards,
        "no request to the scoring server failed while the champion changed": bool(online["requests"])
        and online["failed"] == 0,
        "the champion answers online": champion is not None and online["last_version"] == champion.to_version,
        "an online prediction leads back to the source files": online_trace is not None
        and bool(online_trace.of_kind("source")),
        "the ledger's hash chain holds": not verify_chain(lake, MODEL),
        "the trace reaches the source files": found is not None and bool(found.of_kind("source")),
        "the trace has no missing link": found is not None
        and not any(node.missing for node in found.nodes.values()),
    }
    return {
        "ok": all(checks.values()),
        "checks": checks,
        "seconds": round(seconds, 1),
        "story": {
            "history": story.history,
            "week": story.week,
            "soiled_day": story.soiled_day,
            "broken_day": story.broken_day,
            "shifted_day": story.shifted_day,
        },
        "tables": [
            {"table": name, "version": head.version, "rows": head.total_rows, "digest": head.digest}
            for name, head in sorted(heads.items())
        ],
        "dataset_versions": len(versions),
        "validations": dict(Counter(str(r.outcome) for r in reports)),
        "quarantined": [
            {"day": q.partitions[0], "rows": q.rows, "quarantined": q.quarantined_rows, "reasons": q.reasons}
            for q in quarantines
        ],
        "signals": [
            {"day": r.partition, "metric": s.metric, "rule": s.rule, "since": s.since, "message": s.message}
            for r in signals
            for s in r.signals
        ],
        "stopped": stopped_reasons,
        "champion": _champion(champion_model),
        "statements": _statements(lake),
        "decisions": [
            {
                "sequence": d.sequence,
                "outcome": str(d.outcome),
                "to_version": d.to_version,
                "reason": d.reason,
                "by": d.produced_by.id,
            }
            for d in decisions
        ],
        "rows_scored": sum(run.rows for run in runs),
        "days_scored": len(scored),
        "online": online,
        "prediction": prediction,
        "trace": found.to_json() if found else None,
        "trace_text": render(found) if found else "",
        "airflow": {
            "url": stack.airflow_url,
            "users": [{"username": user, "password": stack.password(user)} for user in USERS],
        },
        "mlflow": {"url": stack.mlflow_url},
        "serving": {"url": stack.serving_url},
        "lake": stack.lake_uri,
    }


def render_summary(summary: dict[str, Any]) -> str:
    """The summary for a terminal."""
    lines = ["", "Summary", "=======", ""]
    lines.append(f"Dataset versions   {summary['dataset_versions']} commits")
    lines += [
        f"  {t['table']:<20} @{t['version']:<4} {t['rows']:>8,} rows  digest {t['digest'][:16]}"
        for t in summary["tables"]
    ]
    outcomes = ", ".join(f"{count} {word}" for word, count in sorted(summary["validations"].items()))
    lines += ["", f"Validations        {outcomes}"]
    lines += [
        f"  set aside        {q['day']}: {q['quarantined']} of {q['rows']} rows ({', '.join(q['reasons'])})"
        for q in summary["quarantined"]
    ]
    lines += [f"  stopped          {day}: {reason}" for day, reason in sorted(summary["stopped"].items())]
    lines += [
        f"  chart signal     {s['day']}: {s['metric']}, {s['message']} ({s['rule']}, since {s['since']})"
        for s in summary["signals"]
    ]
    champion = summary["champion"]
    if champion:
        metrics = ", ".join(
            f"{name} {value:.4f}" for name, value in champion["metrics"].items() if isinstance(value, float)
        )
        lines += ["", f"Champion           {champion['name']} v{champion['version']}: {metrics}"]
    lines += [
        f"  v{each['model']} against v{each['champion']}: {each['metric']} {each['difference']:+.4f},"
        f" 95 % interval {each['lower']:+.4f} to {each['upper']:+.4f}, p = {each['p']:.2g}"
        for each in summary["statements"]
    ]
    lines += [
        f"  #{d['sequence']} {d['outcome']:<10} v{d['to_version']}  {d['reason']}"
        for d in summary["decisions"]
    ]
    lines += ["", f"Scored             {summary['rows_scored']:,} rows of {summary['days_scored']} days"]
    online = summary["online"]
    told = ", ".join(f"v{version} {count}" for version, count in online["by_version"].items())
    lines += ["", f"Online             {online['requests']:,} requests, {online['failed']} failed; by {told}"]
    lines += ["", f"Trace of prediction {summary['prediction']}", "", summary["trace_text"], ""]
    airflow = summary["airflow"]
    lines += [
        f"Airflow            {airflow['url']}",
        *(
            f"                   user {each['username']:<6} password {each['password']}"
            for each in airflow["users"]
        ),
        f"MLflow             {summary['mlflow']['url']}",
        f"Scoring server     {summary['serving']['url']}",
        f"Lake               {summary['lake']}",
        "",
    ]
    for name, passed in summary["checks"].items():
        lines.append(f"  {'ok  ' if passed else 'FAIL'} {name}")
    lines += [
        "",
        f"{'Everything' if summary['ok'] else 'NOT all'} did what it should ({summary['seconds']:.0f} s).",
    ]
    return "\n".join(lines)


def _passed(lake: Lake, kind: type[SmokeTest] | type[GateReport]) -> list[SmokeTest | GateReport]:
    """The records of a kind whose outcome is *passed*."""
    return [
        r
        for r in lake.evidence.all(kind.kind)
        if isinstance(r, SmokeTest | GateReport) and r.outcome is Outcome.PASSED
    ]


def _statements(lake: Lake) -> list[dict[str, Any]]:
    """What was tested of challengers against champions, a test a line."""
    evaluations = [r for r in lake.evidence.all(Evaluation.kind) if isinstance(r, Evaluation)]
    return [
        {
            "model": evaluation.model.version,
            "champion": evaluation.champion.version,
            "metric": tested.metric,
            "difference": tested.difference,
            "lower": tested.lower,
            "upper": tested.upper,
            "p": tested.adjusted_p_value,
        }
        for evaluation in sorted(evaluations, key=lambda r: r.model.version)
        for tested in evaluation.comparisons
        if evaluation.champion is not None
        and None not in (tested.difference, tested.lower, tested.upper, tested.adjusted_p_value)
    ]


def _champion(model: ModelVersion | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "name": model.name,
        "version": model.version,
        "estimator": model.estimator,
        "metrics": model.metrics,
    }
