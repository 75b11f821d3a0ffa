"""One page of a report: a document that needs nothing from anywhere.

For every report of this package. No script, no font, no image and no style sheet but its own, so that a page
copied out of the lake, or served with a policy that forbids everything else, looks the same for years.
Charts are inline SVG.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

__all__ = ["Html", "cell", "facts_table", "figure", "page", "table"]

_STYLE = (
    ":root{color-scheme:light}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;"
    "color:#1d2330;background:#fff}"
    "h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;padding:.35rem .6rem;"
    "border-bottom:1px solid #dde1e8;vertical-align:top}th{font-weight:600}td.n,th.n{text-align:right;"
    "font-variant-numeric:tabular-nums}code{font-size:.9em}h1,h2,h3,td,code{overflow-wrap:anywhere}"
    "td.c code{white-space:nowrap}p.note,td.note{color:#565e6d}svg{max-width:100%;height:auto}"
    ".o{font-weight:600}"
    ".passed,.allow{color:#12683c}.failed,.fail,.critical{color:#a3201d}.errored,.warn,.warning{color:#8a4b00}"
    ".no_data,.info{color:#565e6d}"
)


class Html(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def page(title: str, body: Iterable[str], *, css_class: str = "", style: str = "") -> bytes:
    """A whole document: the title as its heading, then the parts of ``body``, which are HTML.

    :param style: more style rules, for what only this page has.

    >>> page("Flights", ["<p>fine</p>"]).startswith(b"<!doctype html>")
    True
    """
    heading = (
        f'<h1 class="{escape(css_class)}">{escape(title)}</h1>' if css_class else f"<h1>{escape(title)}</h1>"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}{style}</style></head>"
        f"<body>{heading}{''.join(body)}</body></html>\n"
    ).encode()


def facts_table(facts: Iterable[tuple[str, Any]]) -> Html:
    """Names and values in two columns.

    >>> facts_table([("Rows", 3)])
    '<table><tr><th>Rows</th><td><code>3</code></td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td><code>{_text(value)}</code></td></tr>" for name, value in facts
    )
    return Html(f"<table>{rows}</table>")


def table(headers: Sequence[str], rows: Iterable[Iterable[Any]]) -> Html:
    """A table; a cell is text (escaped), a number (aligned right) or what :func:`cell` gave."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = zip(*cells, strict=False)
    numbers = [all(one.startswith('<td class="n"') for one in column) for column in columns]
    head = "".join(
        f'<th class="n">{escape(name)}</th>' if number else f"<th>{escape(name)}</th>"
        for name, number in itertools.zip_longest(headers, numbers[: len(headers)])
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return Html(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def cell(value: Any, css_class: str) -> Html:
    """A table cell of its own class: ``o passed`` for an outcome, ``c`` around code that must not wrap."""
    return Html(f'<td class="{escape(css_class)}">{_text(value)}</td>')


def figure(value: Any) -> str:
    """A number as people read it; nothing for None.

    >>> figure(1234567), figure(0.123456789), figure(None)
    ('1,234,567', '0.123457', '')
    """
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _cell(value: Any) -> str:
    if isinstance(value, Html):
        return value if value.startswith("<td") else f"<td>{value}</td>"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="n">{figure(value)}</td>'
    return f"<td>{_text(value)}</td>"


def _text(value: Any) -> str:
    return value if isinstance(value, Html) else "" if value is None else escape(str(value))
