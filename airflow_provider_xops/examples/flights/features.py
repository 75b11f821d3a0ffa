"""Features of a flight: what is known before it departs, and the label that is known after it arrived.

Known before departure: carrier, route, schedule, distance, the weather of the scheduled hour. Not used,
because they are known only later: ``dep_time``, ``dep_delay``, ``arr_time``, ``air_time``, ``tailnum`` (the
aircraft is assigned late). ``late`` is the label: the flight arrived more than 15 minutes after its schedule;
null for a canceled or diverted flight, which has no arrival to predict.
"""

__all__ = ["COLUMNS", "FEATURES", "KEYS", "LABEL", "SQL"]

LABEL = "late"
KEYS = ("carrier", "flight", "origin", "dest", "time_hour")
FEATURES = (
    "carrier", "origin", "dest", "distance", "month", "day_of_week", "departure_hour", "arrival_hour",
    "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib",
)  # fmt: skip
COLUMNS = ("flight", "time_hour", *FEATURES, LABEL)

SQL = """
SELECT
    f.flight,
    f.time_hour,
    f.carrier,
    f.origin,
    f.dest,
    f.distance,
    CAST(f.month AS BIGINT) AS month,
    CAST(isodow(make_date(f.year, f.month, f.day)) AS BIGINT) AS day_of_week,
    f.hour + f.minute / 60.0 AS departure_hour,
    f.sched_arr_time // 100 + (f.sched_arr_time % 100) / 60.0 AS arrival_hour,
    w.temp,
    w.dewp,
    w.humid,
    w.wind_dir,
    w.wind_speed,
    w.wind_gust,
    w.precip,
    w.pressure,
    w.visib,
    CAST(CASE WHEN f.arr_delay IS NULL THEN NULL WHEN f.arr_delay > 15 THEN 1 ELSE 0 END AS BIGINT) AS late
FROM flights AS f
LEFT JOIN (
    SELECT * FROM weather
    QUALIFY row_number() OVER (PARTITION BY origin, time_hour ORDER BY hour) = 1
) AS w
    ON w.origin = f.origin AND w.time_hour = f.time_hour
"""
