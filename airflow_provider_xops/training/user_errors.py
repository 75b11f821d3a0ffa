"""What an estimator said when it raised, without the data in it.

For training, evaluation and scoring. Messages of estimators quote values ("could not convert string to
float: 'N328NB'"), and task logs are read by many: quoted text, numbers and every value of the frame's text
columns are hidden; column names stay, because they are what a person needs.

What it does not do: it cannot know a value that the user's own code put into words. Read such a message
with the data's confidentiality in mind.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

__all__ = ["describe"]

LIMIT = 300
HIDDEN = "<hidden>"
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|'[^']*$|\"[^\"]*$")
NUMBER = re.compile(r"(?<![\w<])[-+]?\d[\w.:+-]*")
WORD = re.compile(r"\w+")


def describe(error: BaseException, frame: Any = None) -> str:
    """Type, place and first line of an exception; values are hidden.

    :param frame: the pandas frame the code worked on; the values of its text columns are hidden too, its
        column names are kept.

    >>> describe(ValueError("could not convert string to float: 'N328NB' in row 17"))
    'ValueError: could not convert string to float: <hidden> in row <hidden> (values may be hidden)'
    """
    names = set() if frame is None else {str(name) for name in frame.columns}
    lines = str(error).strip().splitlines()
    text = _hide(lines[0][: 4 * LIMIT], names, frame) if lines else ""
    place = _place(error)
    shown = f"{type(error).__name__}{place}"
    return f"{shown}: {text[:LIMIT]} (values may be hidden)" if text else shown


def _hide(text: str, names: set[str], frame: Any) -> str:
    text = QUOTED.sub(lambda match: match[0] if match[0].strip("'\"`") in names else HIDDEN, text)
    for value in sorted(_values_in(text, frame) - names - {HIDDEN.strip("<>")}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, text)
    return NUMBER.sub(lambda match: match[0] if match[0] in names else HIDDEN, text)


def _values_in(text: str, frame: Any) -> set[str]:
    """The text values of the frame that occur in the message as words of their own."""
    if frame is None:
        return set()
    words = set(WORD.findall(text))
    found: set[str] = set()
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        if column.dtype == object or str(column.dtype) in {"str", "string", "category"}:
            for value in column.dropna().astype(str).unique():
                if value and (value in words or (not WORD.fullmatch(value) and value in text)):
                    found.add(value)
    return found


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if len(frames) > 1 else ""
