"""What texts look like: well-known forms (dates, e-mail addresses, ...) and shapes such as ``A99999``.

For profiles. A shape has ``A`` and ``a`` for a letter of A-Z or a-z, ``9`` for a digit, ``L`` for any other
letter, ASCII punctuation and spaces as they are and ``?`` for all else; so it holds no letter and no digit of
the text. Where texts differ in length too much to be counted as they are, a run is one symbol and ``+``.

What it does not do: recognize what a text means. ``999-99-9999`` is a shape, not a social security number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

__all__ = ["FORMS", "Shape", "form_of", "shapes_of"]

_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
# Regular expressions that Python, pandas and DuckDB (RE2) read alike: no look-around, no back reference.
FORMS: dict[str, str] = {
    "UUID": r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    "whole number": r"-?(?:0|[1-9][0-9]{0,17})",
    "decimal number": r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}",
    "date": r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])",
    "time with offset": _TIME + r":[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})",
    "time without offset": _TIME + r"(?::[0-9]{2}(?:\.[0-9]{1,6})?)?",
    "e-mail address": r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    "URL": r"https?://[^ ]{1,2000}",
    "IPv4 address": r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}",
}
EMPTY = "empty"

MOST_SHAPES = 12
LONGEST = 24  # characters of a shape that counts them
COVERS = 0.95  # so many texts in FEW shapes: they are counted as they are, else runs are one symbol
FEW = 4

_FORMS = {name: re.compile(text) for name, text in FORMS.items()}
_CLASSES = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}
_SPECIAL = frozenset(r"\.+*?()[]{}^$|-")


@dataclass(frozen=True)
class Shape:
    """One shape or form: how many of the texts looked at have it, and the expression that matches it.

    :param regex: without anchors; None where no portable expression tells it from other texts.
    """

    shape: str
    count: int
    regex: str | None
    form: bool = False


def shapes_of(texts: Iterable[tuple[str, int]]) -> list[Shape]:
    """The shapes of texts with how often each occurs, the most frequent first, at most :data:`MOST_SHAPES`.

    >>> [(one.shape, one.count) for one in shapes_of([("N123", 2), ("N456", 1), ("2013-01-01", 1)])]
    [('A999', 3), ('date', 1)]
    """
    forms: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    short: Counter[str] = Counter()
    for text, count in texts:
        form = form_of(text)
        if form is not None:
            forms[form] += count
            continue
        symbols = _symbols(text)
        runs = _runs(symbols)
        short[runs] += count
        exact[symbols if len(symbols) <= LONGEST else runs] += count
    total = sum(exact.values())
    few = sum(count for _, count in exact.most_common(FEW))
    drawn = exact if few >= COVERS * total else short
    found = [Shape(name, count, FORMS.get(name, ""), form=True) for name, count in forms.items()]
    found += [Shape(name, count, _regex(name)) for name, count in drawn.items()]
    return sorted(found, key=lambda one: (-one.count, one.shape))[:MOST_SHAPES]


def form_of(text: str) -> str | None:
    """The well-known form of a text: the first of :data:`FORMS` that it has, or ``empty``.

    >>> form_of("007"), form_of("-7"), form_of("2013-02-30"), form_of("")
    (None, 'whole number', 'date', 'empty')
    """
    if not text:
        return EMPTY
    return next((name for name, pattern in _FORMS.items() if pattern.fullmatch(text)), None)


def _symbols(text: str) -> str:
    return "".join(map(_symbol, text))


def _symbol(character: str) -> str:
    if "0" <= character <= "9":
        return "9"
    if "A" <= character <= "Z":
        return "A"
    if "a" <= character <= "z":
        return "a"
    if " " <= character <= "~" and character not in "+?":  # these two are symbols themselves
        return character
    return "L" if character.isalpha() else "?"


def _runs(symbols: str) -> str:
    """Each run of letters or digits as one symbol and ``+``."""
    drawn = "".join(symbol + "+" if symbol in _CLASSES else "".join(run) for symbol, run in groupby(symbols))
    return drawn if len(drawn) <= 2 * LONGEST else drawn[: 2 * LONGEST] + "…"


def _regex(shape: str) -> str | None:
    """The expression of a shape; None for one with symbols that stand for more than ASCII can say."""
    if any(symbol in shape for symbol in "L?…"):
        return None
    parts = []
    for symbol, repeated in _counted(shape):
        one = _CLASSES.get(symbol, "\\" + symbol if symbol in _SPECIAL else symbol)
        parts.append(one + repeated)
    return "".join(parts)


def _counted(shape: str) -> list[tuple[str, str]]:
    """Symbols with their repetition: ``A999`` gives A and 9{3}; ``A+`` gives A and +."""
    parts: list[tuple[str, str]] = []
    for found in re.finditer(r"([Aa9])\+|(.)\2*", shape):
        if found[1]:
            parts.append((found[1], "+"))
        else:
            length = len(found[0])
            parts.append((found[2], "" if length == 1 else f"{{{length}}}"))
    return parts
