"""What may be said of an exception: its type and its first useful line, without any value of a row.

For the engines. Messages of libraries quote what they stumbled over (``could not convert string to float:
'Jane Doe'``, ``unable to parse: 12 Elm Street``), quoted or not, so no pattern finds all values. Hence the
other way round: a message is rebuilt from the words that error messages are made of. Kept are

- the exception's own name,
- the words of :data:`VOCABULARY` (plain words of error messages, arguments, data types),
- the columns the check names, and comparison signs,

and everything else, numbers too, becomes ``…``. A reader learns what kind of thing went wrong with which
column; the value is in the data.

What it does not do: a value that is itself such a word (``string``) is kept; nobody can tell that it was one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["VOCABULARY", "exception_of", "safe_line"]

LIMIT = 240
GAP = "…"

_WORDS = """
a about absent after aggregate all allowed already ambiguous an and any are argument arguments array as at
attribute available base be because been before between binder boolean bound bounds broken but by call
called can cannot cast casting catalog character characters check closed column columns comparable compare
comparison compute computed condition connection constraint contain contains conversion convert converted
could data database dataset date datetime decimal defined denied deprecated dialect dictionary did different
division do does domain dtype duplicate duplicated either element elements empty engine error escape
evaluate exceed exceeds exception exist existing exists expect expectation expected explicit expression
failed false field filter final find first float for format found from function functions generic given got
greater group has have hint identifier implemented implicit in incompatible incorrect index infinite
infinity input instance instances int integer internal interval into invalid is isnan it iterable its json
key keyword large least left length less library like limit line list literal local lock long map mapping
match matches matching max maximum mean median memory message method metric metrics min minimum missing
mixed module more most must name named names nan needs negative nested no non none not nothing null number
numbers numeric numpy object objects of offset on one only operand operands operation operator operators
option or order other out overflow overflows pandas parameter parameters parse parsed parser parsing
partition pattern permission position positional possible precision provided provider query range read real
reference references regex regexp regular relation required resolve resolved result return returned right
row rows same scalar scale schema select sequence serializable series session set shape should signature
similar single size small some sql standard start statement string strings struct support supported syntax
table tables take takes temporary term text than that the them there this time timestamp to too transaction
true try tuple two type types ufunc unable undefined unexpected unhashable unicode union unique unit unknown
unrecognized unsigned unsupported unterminated update use used user uses using valid value values varying
version view was were when where which while width with within without wrong year zero zone
"""
_ARGUMENTS = """
column_a column_b column_list column_set max_value min_value mostly partition_object quantile_ranges
result_format row_condition strict_max strict_min sum_total type_ type_list value_set
"""
_TYPES = """
bigint binary blob bool bytea bytes categorical char clob complex128 dataframe date32 date64 datetime64
datetime64[ns] datetime64[us] decimal128 dict double enum float16 float32 float64 hugeint inet int128 int16
int2 int32 int4 int64 int8 integer[] jsonb largebinary largestring long longinteger money nattype ndarray
nonetype ntext nvarchar period real smallint str string[] text timedelta timedelta64 timestamp timestamptz
timetz tinyint tinyinteger ubigint uhugeint uint16 uint32 uint64 uint8 usmallint utf8 utinyint uuid varchar
xml
"""

#: the words that survive, in lower case
VOCABULARY: frozenset[str] = frozenset(f"{_WORDS} {_ARGUMENTS} {_TYPES}".split())

_SIGNS = frozenset({"<", "<=", ">", ">=", "=", "==", "!=", "<>", "+", "-", "*", "/"})
_EDGES = ",.:;()'\"`"
_NAME = re.compile(r"^((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?::\s+(.*)|:?\s*)$")
_ENDS_LIKE_ONE = re.compile(r"(Error|Exception|Warning|Exit|Interrupt)$")
_LIBRARIES = frozenset(
    {"duckdb", "great_expectations", "numpy", "pandas", "psycopg", "psycopg2", "pyarrow", "sqlalchemy"}
)
# SQLAlchemy puts the driver's own exception before its message.
_DRIVERS = re.compile(r"^\((?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)\)\s*(.*)$")
_QUOTED = re.compile(r"(?<!\w)('[^']*'|\"[^\"]*\"|`[^`]*`)(?!\w)")


def safe_line(traceback_or_message: str, *, columns: Iterable[str] = ()) -> str:
    """The type and the first useful line of the exception that began it, without values.

    :param traceback_or_message: a formatted traceback, chained ones included, or a message alone.
    :param columns: names that may be said.

    >>> safe_line("ValueError: could not convert string to float: 'Jane Doe'")
    "ValueError: could not convert string to float: '…'"
    >>> safe_line("unable to parse: 12 Elm Street, column born", columns=["born"])
    'unable to parse: …, column born'
    """
    name, message = exception_of(traceback_or_message)
    said = _without_values(message, frozenset(columns))
    return ": ".join(part for part in (name, said) if part)[:LIMIT]


def exception_of(traceback_or_message: str) -> tuple[str, str]:
    """``(type, first line of its message)`` of the first exception in a text; the message may hold values.

    >>> exception_of("Traceback (most recent call last):\\n  File x\\nKeyError: 'a'\\n\\nDuring ...")
    ('KeyError', "'a'")
    """
    lines = str(traceback_or_message or "").splitlines()
    headed = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call")]
    if headed:
        # Frames are indented; the first line at the margin is the exception they led to.
        first = next((line for line in lines[headed[0] + 1 :] if line[:1].strip()), "").strip()
        found = _NAME.match(first)
    else:
        first = next((line.strip() for line in lines if line.strip()), "")
        found = _NAME.match(first)
        if found and not (_ENDS_LIKE_ONE.search(found[1]) or found[1].partition(".")[0] in _LIBRARIES):
            found = None
    name, message = (found[1].rpartition(".")[2], found[2] or "") if found else ("", first)
    driver = _DRIVERS.match(message)
    return (driver[1], driver[2]) if driver else (name, message)


def _without_values(message: str, columns: frozenset[str]) -> str:
    """Quoted texts as one each, then word by word; a word is what stands between blanks."""
    kept: list[str] = []
    for number, part in enumerate(_QUOTED.split(message)):
        if number % 2:
            kept.append(part if _known(part[1:-1], columns) else f"{part[0]}{GAP}{part[0]}")
        else:
            kept += [_word(word, columns) for word in re.split(r"(\s+)", part)]
    # One gap for all that was left out in a row.
    text = re.sub(rf"{GAP}(?:\s*{GAP})+", GAP, "".join(kept))
    return " ".join(text.split())


def _word(word: str, columns: frozenset[str]) -> str:
    core = word.strip(_EDGES)
    if not core or word.isspace() or _known(core, columns):
        return word
    before = word[: len(word) - len(word.lstrip(_EDGES))]
    return f"{before}{GAP}{word[len(word.rstrip(_EDGES)) :]}"


def _known(text: str, columns: frozenset[str]) -> bool:
    return text in columns or text in _SIGNS or text.lower() in VOCABULARY
