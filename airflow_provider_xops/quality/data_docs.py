"""Great Expectations' own page of a validation, made to stand alone.

For validation. The library's Data Docs load style sheets, scripts, fonts and a logo from five hosts; a report
in a lake is read years later, where nothing may be loaded. So the library draws its page, and of it the
sections are kept: text, tables and headings with a style of their own. What a script would have drawn
(charts, the filter, foldable parts) is left out or shown unfolded.

The page holds what the engine's document holds, which is no value of a row, and the samples that the privacy
policy lets through.

What it does not do: fail a validation. The library's renderers stumble over results they did not expect;
there is no such page then, and the validation's notes say so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from html.parser import HTMLParser
from typing import Any

from airflow_provider_xops.quality._great_expectations import LIBRARY, great_expectations
from airflow_provider_xops.quality.page import Html, page

__all__ = ["data_docs_html"]

log = logging.getLogger(__name__)

_STYLE = (
    ".ge-section{margin:1.5rem 0}.alert{background:#f2f4f7;padding:.5rem .8rem;border-radius:.3rem}"
    ".alert h5{font-size:1.1rem;margin:0}.badge{background:#e6e9ef;border-radius:.25rem;"
    "padding:.05rem .35rem;font-size:.9em;font-family:ui-monospace,monospace;overflow-wrap:anywhere}"
    "h6{font-size:1rem;margin:.8rem 0 0}"
    ".text-danger{color:#a3201d}.text-success{color:#12683c}.text-warning{color:#8a4b00}td table{width:auto}"
    "ul{padding-left:1.2rem}"
)
_DROPPED = frozenset(
    {
        "button",
        "footer",
        "form",
        "iframe",
        "input",
        "label",
        "link",
        "nav",
        "object",
        "script",
        "style",
        "svg",
    }
)
_KEPT = frozenset(
    {"br", "code", "div", "em", "h4", "h5", "h6", "li", "ol", "p", "pre", "small", "span", "strong", "ul"}
    | {"table", "tbody", "td", "th", "thead", "tr"}
)
_EMPTY = frozenset({"br", "hr", "img", "input", "link", "meta", "source", "wbr"})
_CLASSES = frozenset(("alert", "badge", "ge-section", "text-danger", "text-success", "text-warning"))
_FOLDED = "Show exception traceback..."  # there is none: its frames may hold values
_MOST_LISTED, _LONGEST = 100, 1000  # values of an argument, and characters of one
_ICONS = {"text-success": "✔", "text-danger": "✘", "text-warning": "⚠"}


def data_docs_html(
    document: Mapping[str, Any],
    *,
    suite: str,
    dataset: str,
    recorded_at: str,
    samples: Sequence[Sequence[str]] = (),
    remarks: Sequence[str | Html] = (),
) -> bytes | None:
    """The page; None where the library could not draw it.

    :param document: an engine's :attr:`~airflow_provider_xops.quality.engine.EngineRun.document`.
    :param samples: for each result of the document, the bad values as the privacy policy shows them.
    :param remarks: sentences above the page, such as what policy the samples obey.
    """
    try:
        with _silent():
            drawn = _drawn(document, suite=suite, dataset=dataset, recorded_at=recorded_at, samples=samples)
        body = _sections(drawn)
    except MemoryError:
        raise
    except Exception as error:  # the renderers of some expectations raise whatever their code runs into
        log.warning("Great Expectations could not draw its Data Docs page: %s.", type(error).__name__)
        return None
    notes = [
        Html(f'<p class="note">{text if isinstance(text, Html) else escape(text)}</p>') for text in remarks
    ]
    return page(f"Data Docs: {suite} on {dataset}", [*notes, body], style=_STYLE)


def _drawn(
    document: Mapping[str, Any],
    *,
    suite: str,
    dataset: str,
    recorded_at: str,
    samples: Sequence[Sequence[str]],
) -> str:
    great_expectations()
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    results = []
    for number, one in enumerate(document.get("results") or ()):
        found = _renderable(one, samples[number] if number < len(samples) else ())
        configuration = ExpectationConfiguration(**found.pop("expectation_config"))
        results.append(ExpectationValidationResult(expectation_config=configuration, **found))
    whole = ExpectationSuiteValidationResult(
        success=bool(document.get("success")),
        results=results,
        suite_name=suite,
        suite_parameters={},
        statistics=dict(document.get("statistics") or {}),
        meta={
            **(document.get("meta") or {}),
            "batch_spec": {"data_asset_name": dataset},
            "run_id": {"run_name": dataset, "run_time": recorded_at},
        },
    )
    content = ValidationResultsPageRenderer(run_info_at_end=True).render(whole)
    drawn: str = DefaultJinjaPageView().render(content)
    return drawn


def _renderable(one: Mapping[str, Any], samples: Sequence[str]) -> dict[str, Any]:
    """A result with what the renderers take for granted, and the samples."""
    figures = dict(one.get("result") or {})
    if "element_count" not in figures:
        figures.pop("unexpected_count", None)  # the renderers take the rest for granted then
    elif figures.get("unexpected_count") is not None:
        figures.setdefault("unexpected_percent", None)
        figures["unexpected_percent"] = figures["unexpected_percent"] or 0.0
        if figures["unexpected_count"] and samples:
            figures["partial_unexpected_list"] = list(samples)
            figures["partial_unexpected_counts"] = [
                {"value": text, "count": list(samples).count(text)} for text in dict.fromkeys(samples)
            ]
    raised = dict(one.get("exception_info") or {})
    raised = {
        "raised_exception": bool(raised.get("raised_exception")),
        "exception_message": raised.get("exception_message") or "",
        "exception_traceback": "",
    }
    configuration = {
        key: value for key, value in (one.get("expectation_config") or {}).items() if value is not None
    }
    return {
        "success": bool(one.get("success")),
        "expectation_config": {
            **configuration,
            "kwargs": {name: _cut(value) for name, value in (configuration.get("kwargs") or {}).items()},
        },
        "result": figures,
        "meta": {},
        "exception_info": raised,
    }


def _cut(argument: Any) -> Any:
    """An argument as a page can show it; a set of values may have thousands."""
    if isinstance(argument, str) and len(argument) > _LONGEST:
        return argument[:_LONGEST] + "…"
    if isinstance(argument, list | tuple) and argument:
        more = [f"… and {len(argument) - _MOST_LISTED:,} more"] if len(argument) > _MOST_LISTED else []
        return [*map(_cut, argument[:_MOST_LISTED]), *more]
    return argument


@contextmanager
def _silent() -> Iterator[None]:
    """The library logs what it could not render with the whole result."""
    logger = logging.getLogger(f"{LIBRARY}.render")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _sections(drawn: str) -> Html:
    cleaner = _Cleaner()
    cleaner.feed(drawn)
    cleaner.close()
    return Html("".join(cleaner.parts))


class _Cleaner(HTMLParser):
    """Rebuilds the sections of a page from known elements and classes; no other attribute survives."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._open: list[str] = []  # elements since the section began
        self._inside = False
        self._dropping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = (dict(attrs).get("class") or "").split()
        if tag in _DROPPED:
            self._dropping += tag not in _EMPTY
            return
        if not self._inside:
            if "ge-section" not in classes:
                return
            self._inside = True
        if tag not in _EMPTY:
            self._open.append(tag)
        if self._dropping:
            return
        if tag == "i":
            self.parts += [
                f'<span class="{name}">{_ICONS[name]}</span>' for name in classes if name in _ICONS
            ]
        if tag in _KEPT:
            known = " ".join(name for name in classes if name in _CLASSES)
            self.parts.append(f'<{tag} class="{known}">' if known else f"<{tag}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in _DROPPED:
            self._dropping = max(0, self._dropping - (tag not in _EMPTY))
            return
        if not self._inside or tag in _EMPTY or tag not in self._open:
            return
        while self._open:  # an element left open ends with the one around it
            last = self._open.pop()
            if last in _KEPT and not self._dropping:
                self.parts.append(f"</{last}>")
            if last == tag:
                break
        self._inside = bool(self._open)

    def handle_data(self, data: str) -> None:
        if self._inside and not self._dropping and data.strip() != _FOLDED:
            self.parts.append(escape(data))
