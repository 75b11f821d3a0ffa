"""No leakage: nothing known only after departure reaches the features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_xops.examples.flights import features, landing, models

AFTER_DEPARTURE = {
    "dep_time": "999",
    "dep_delay": "dep_delay + 500",
    "arr_time": "1",
    "air_time": "air_time * 3",
    "tailnum": "'N00000'",
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("landing")
    landing.deliver(folder, ["2013-01-01", "2013-04-01"])
    con = duckdb.connect()
    con.sql("SET TimeZone = 'UTC'")
    for feed in landing.FEEDS:
        con.sql(
            f"CREATE TABLE {feed}_0 AS SELECT * FROM"
            f" read_csv('{folder}/{feed}/*.csv', nullstr='NA', union_by_name=true, sample_size=-1)"
        )
    con.sql("CREATE VIEW weather AS SELECT * FROM weather_0")
    return con


def _features(con: Any, replaced: str = "") -> list[tuple[Any, ...]]:
    con.sql(f"CREATE OR REPLACE VIEW flights AS SELECT * {replaced} FROM flights_0")
    names = ", ".join(("flight", "time_hour", *features.FEATURES))
    rows: list[tuple[Any, ...]] = con.sql(f"SELECT {names} FROM ({features.SQL}) ORDER BY ALL").fetchall()
    return rows


def test_the_query_gives_the_declared_columns_in_order(connection: Any) -> None:
    _features(connection)
    assert tuple(connection.sql(features.SQL).columns) == features.COLUMNS


@pytest.mark.parametrize("column", AFTER_DEPARTURE)
def test_changing_what_is_known_only_after_departure_changes_no_feature(connection: Any, column: str) -> None:
    untouched = _features(connection)
    changed = _features(connection, f"REPLACE ({AFTER_DEPARTURE[column]} AS {column})")
    assert changed == untouched


def test_changing_the_arrival_delay_changes_the_label_and_no_feature(connection: Any) -> None:
    untouched = _features(connection)
    labels = connection.sql(f"SELECT sum(late) FROM ({features.SQL})").fetchall()[0][0]

    changed = _features(connection, "REPLACE (-60.0 AS arr_delay)")

    assert changed == untouched
    assert labels > 0
    assert connection.sql(f"SELECT sum(late) FROM ({features.SQL})").fetchall()[0][0] == 0


def test_a_flight_without_an_arrival_has_no_label(connection: Any) -> None:
    _features(connection)
    missing = connection.sql("SELECT count(*) FROM flights_0 WHERE arr_delay IS NULL").fetchall()[0][0]
    unlabeled = connection.sql(f"SELECT count(*) FROM ({features.SQL}) WHERE late IS NULL").fetchall()[0][0]
    assert unlabeled == missing > 0


def test_every_flight_has_exactly_one_row_of_features(connection: Any) -> None:
    rows = _features(connection)
    assert len(rows) == connection.sql("SELECT count(*) FROM flights_0").fetchall()[0][0]


def test_the_label_is_not_a_feature_and_the_models_use_only_features() -> None:
    assert features.LABEL not in features.FEATURES
    assert not set(AFTER_DEPARTURE) & set(features.FEATURES)
    assert {*models.CATEGORICAL, *models.NUMERIC} == set(features.FEATURES)


@pytest.mark.parametrize("factory", [models.baseline, models.gradient_boosting])
def test_both_candidates_learn_from_the_raw_feature_frame(connection: Any, factory: Any) -> None:
    _features(connection)
    frame = (
        connection.sql(f"SELECT * FROM ({features.SQL}) WHERE late IS NOT NULL")
        .fetch_arrow_table()
        .to_pandas()
    )
    numbers = frame[models.NUMERIC].astype("float64")
    frame = numbers.join(frame[[*models.CATEGORICAL, features.LABEL]])

    fitted = factory(seed=1).fit(frame[list(features.FEATURES)], frame[features.LABEL])

    scores = fitted.predict_proba(frame[list(features.FEATURES)])[:, 1]
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert scores[frame[features.LABEL] == 1].mean() > scores[frame[features.LABEL] == 0].mean()
