"""Declared types of the two feeds, in the package's small type language.

``time_hour`` is UTC in the source (it ends in Z); the clock times (``517`` is 5:17) are airport-local
integers, as the source gives them.
"""

__all__ = ["FLIGHTS", "WEATHER"]

FLIGHTS = {
    "year": "int64",
    "month": "int64",
    "day": "int64",
    "dep_time": "int64",
    "sched_dep_time": "int64",
    "dep_delay": "float64",
    "arr_time": "int64",
    "sched_arr_time": "int64",
    "arr_delay": "float64",
    "carrier": "string",
    "flight": "int64",
    "tailnum": "string",
    "origin": "string",
    "dest": "string",
    "air_time": "float64",
    "distance": "float64",
    "hour": "int64",
    "minute": "int64",
    "time_hour": "timestamp",
}

WEATHER = {
    "origin": "string",
    "year": "int64",
    "month": "int64",
    "day": "int64",
    "hour": "int64",
    "temp": "float64",
    "dewp": "float64",
    "humid": "float64",
    "wind_dir": "float64",
    "wind_speed": "float64",
    "wind_gust": "float64",
    "precip": "float64",
    "pressure": "float64",
    "visib": "float64",
    "time_hour": "timestamp",
}
