"""The daily files of the demo: the original's lines, byte for byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from airflow_provider_xops.errors import NotFoundError, SourceError
from airflow_provider_xops.examples.flights import landing


def _original_lines(day: tuple[str, str, str]) -> list[bytes]:
    with zipfile.ZipFile(landing._package_data() / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").splitlines(keepends=True)
    prefix = ",".join(day).encode() + b","
    return [lines[0], *(line for line in lines[1:] if line.startswith(prefix))]


def test_a_delivered_day_is_the_originals_lines_byte_for_byte(tmp_path: Path) -> None:
    written = landing.deliver(tmp_path, ["2013-04-01"])

    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "flights/2013-04-01.csv",
        "weather/2013-04-01.csv",
    ]
    assert written[0].read_bytes() == b"".join(_original_lines(("2013", "4", "1")))


def test_all_days_together_are_all_rows_of_those_days(tmp_path: Path) -> None:
    landing.deliver(tmp_path, ["2013-12-29", "2013-12-30"])

    rows = sum(
        len((tmp_path / "flights" / f"2013-12-{day}.csv").read_bytes().splitlines()) - 1 for day in (29, 30)
    )
    assert rows == 888 + 968


def test_a_day_outside_the_data_is_a_typed_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="2014-01-01"):
        landing.deliver(tmp_path, ["2014-01-01"])
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_keeps_its_shape_and_changes_its_values(tmp_path: Path) -> None:
    path = landing.deliver(tmp_path, ["2013-04-01"])[0]
    before = path.read_text().splitlines()

    landing.break_file(path)

    after = path.read_text().splitlines()
    assert after[0] == before[0]
    assert len(after) == len(before)
    assert (
        sum(line.split(",")[15].startswith("-") for line in after[1:])
        == len(before[1:]) // 2 + len(before[1:]) % 2
    )


def test_a_soiled_file_has_a_few_bad_rows_and_a_shifted_one_only_plausible_values(tmp_path: Path) -> None:
    path = landing.deliver(tmp_path, ["2013-04-01"])[0]
    distances = [float(line.split(",")[15]) for line in path.read_text().splitlines()[1:]]

    landing.soil_file(path)
    soiled = [float(line.split(",")[15]) for line in path.read_text().splitlines()[1:]]
    landing.deliver(tmp_path, ["2013-04-01"])
    landing.shift_file(path)
    shifted = [float(line.split(",")[15]) for line in path.read_text().splitlines()[1:]]

    assert sum(value < 0 for value in soiled) == -(-len(distances) // 100)
    assert [abs(value) for value in soiled] == distances
    assert all(abs(new - old * 0.868976) <= 0.5 for new, old in zip(shifted, distances, strict=True))


def test_an_empty_file_cannot_be_broken(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("")
    with pytest.raises(SourceError):
        landing.break_file(path)


def test_a_missing_data_package_says_which_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotFoundError, match=r"airflow-provider-xops\[demo\]"):
        landing.deliver(tmp_path, ["2013-04-01"])
