"""Logs of kinds that differ from the three sets: other domains, other names, other types, other layouts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Draw = np.random.Generator
START_MS = 1_772_323_200_000
"""The first of March 2026, in milliseconds since 1970."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Unseen:
    """A kind of log: who writes it, the words after `moerank init`, and the tasks that are to be found."""

    write: Callable[[Path], None]
    words: Sequence[str]
    tasks: set[str]


def _likes(draw: Draw, users: Any, items: Any, rate: float = 0.3) -> Any:
    """Answers that depend on who is asked and about what."""
    return draw.random(len(users)) < np.where((users + items) % 3 == 0, min(2 * rate, 0.9), rate / 2)


def _moments(draw: Draw, rows: int, days: int) -> Any:
    """Milliseconds since 1970, in order."""
    return START_MS + np.sort(draw.integers(0, days * DAY_MS, rows))


def write_jobs(directory: Path, rows: int = 2_500) -> None:
    """A jobs board: nested structs, nullable decimals, keys that are named otherwise in their own tables, camelCase."""
    draw = np.random.default_rng(11)
    seekers, postings = draw.integers(0, 150, rows), draw.integers(0, 70, rows)
    applied = _likes(draw, seekers, postings)
    shown = _moments(draw, rows, 20)
    log = {
        "impressionUuid": [f"{n:032x}" for n in range(rows)],
        "candidateId": [f"c{n}" for n in seekers],
        "jobId": postings.astype(np.int32),
        "shownAt": pa.array(shown, pa.timestamp("ms")),
        "page": pa.array(
            [{"rank": int(n % 20), "query": {"text": f"q{n % 9}", "remote": bool(n % 2)}} for n in range(rows)]
        ),
        "hasApplied": applied,
        # Known only after the answer: it must not be a feature.
        "appliedAt": pa.array(
            [int(at) + 60_000 if yes else None for at, yes in zip(shown, applied, strict=True)], pa.timestamp("ms")
        ),
    }
    jobs = [
        {
            "id": n,
            "class": f"k{n % 5}",
            "salary": {"low": Decimal(1000 + n) / 10 if n % 4 else None, "high": Decimal(2000 + n) / 10},
            "employer": {"name": f"e{n % 11}", "size": n % 3},
            "skills": [f"s{n % 6}", f"s{n % 4}"],
            "shownAt": datetime(2026, 2, 1 + n % 20, tzinfo=UTC),
        }
        for n in range(70)
    ]
    candidates = [
        {"id": f"c{n}", "profile": {"years of practice": n % 30, "place": f"p{n % 8}"}, "page": f"x{n % 3}"}
        for n in range(150)
    ]
    pq.write_table(pa.table(log), directory / "log.parquet")
    pq.write_table(pa.Table.from_pylist(jobs), directory / "jobs.parquet")
    pq.write_table(pa.Table.from_pylist(candidates), directory / "candidates.parquet")


def write_video(directory: Path, rows: int = 2_500) -> None:
    """Short videos: epoch milliseconds, lists, vectors, several answers, and what was computed from an answer."""
    draw = np.random.default_rng(12)
    users, videos = draw.integers(10**12, 10**12 + 120, rows), draw.integers(0, 90, rows)
    duration = draw.integers(5_000, 60_000, rows)
    watched = np.minimum(duration * 1.5, draw.exponential(15_000, rows) * (1 + (users + videos) % 3)).astype(np.int64)
    log = {
        "user_id": users,
        "video_id": videos,
        "time_ms": _moments(draw, rows, 12),
        "date": pa.array([20260301 + n * 12 // rows for n in range(rows)], pa.int32()),
        "hourmin": (draw.integers(0, 24, rows) * 100).astype(np.int16),
        "tab": draw.integers(0, 5, rows).astype(np.int8),
        "is_click": _likes(draw, users, videos).astype(np.int8),
        "is_like": (draw.random(rows) < 0.1).astype(np.int8),
        "play_time_ms": watched,
        "duration_ms": duration,
        "watch_ratio": watched / duration,
    }
    tags = [None if n % 9 == 0 else [f"t{n % 7}", f"t{n % 5}"] for n in range(90)]
    videos_table = {
        "video_id": np.arange(90),
        "tag": tags,
        "embedding": pa.array([draw.normal(size=8).astype(np.float32).tolist() for _ in range(90)]),
        "thumbs": pa.array([[{"w": 1, "h": 2}]] * 90),
        "music_id": draw.integers(0, 40, 90),
    }
    pq.write_table(pa.table(log), directory / "views.parquet")
    pq.write_table(pa.table(videos_table), directory / "videos.parquet")


def write_ads(directory: Path, rows: int = 3_000) -> None:
    """Clicks on ads, and the sales that they led to, up to weeks later, in a file of their own."""
    draw = np.random.default_rng(13)
    at = _moments(draw, rows, 25)
    users, ads = draw.integers(0, 200, rows), draw.integers(0, 60, rows)
    sold = _likes(draw, users, ads, 0.4)
    delay = (draw.exponential(4 * DAY_MS, rows)).astype(np.int64)
    clicks = {
        "click_id": pa.array([f"k{n:06d}" for n in range(rows)]).dictionary_encode(),
        "cookie": pa.array([f"u{n}" if n % 17 else None for n in users]),
        "ad": ads,
        "campaign_id": ads % 9,
        "cost": pa.array([Decimal(int(v)) / 10_000 for v in draw.integers(1, 9_999, rows)]),
        "ts": [datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in at.tolist()],
        "conversions": pa.array(["none"] * rows),
    }
    sales = {
        "click_id": [f"k{n:06d}" for n in np.flatnonzero(sold)],
        "sold_at": [
            (datetime.fromtimestamp(ms / 1000, UTC) + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")
            for ms in (at + delay)[sold].tolist()
        ],
        "revenue": draw.gamma(2, 30, int(sold.sum())),
        "order_no": np.arange(int(sold.sum())),
    }
    pq.write_table(pa.table(clicks), directory / "clicks.parquet")
    pq.write_table(pa.table(sales), directory / "conversions.parquet")


def write_ratings(directory: Path, rows: int = 2_500) -> None:
    """Ratings without times; the items' table has the key as a text, twice for some, and free texts."""
    draw = np.random.default_rng(14)
    users, books = draw.integers(1, 120, rows), draw.integers(1, 80, rows)
    rating = np.clip(np.round(3 + (users + books) % 3 + draw.normal(size=rows)), 1, 5)
    log = {"userId": users, "bookId": books, "rating": rating}
    numbers = [*range(1, 80), 5, 6]
    table = {
        "ISBN": [str(n) for n in numbers],
        "title": [f"title {n}" for n in range(len(numbers))],
        "genres": ["drama, war" if n % 2 else "war" for n in numbers],
        "pages": pa.array([None if n % 5 == 0 else float(n) for n in numbers]),
        "in print": [bool(n % 3) for n in numbers],
    }
    pq.write_table(pa.table(log), directory / "ratings.parquet")
    pq.write_table(pa.table(table), directory / "books.parquet")


def write_partitioned(directory: Path, days: int = 12, rows: int = 250) -> None:
    """A ride log in folders by year, month and day; whole numbers of differing width, a column that came later."""
    draw = np.random.default_rng(15)
    for number in range(days):
        day = date(2026, 3, 1) + timedelta(days=number)
        folder = directory / "rides" / f"year={day.year}" / f"month={day.month:02d}" / f"day={day.day}"
        folder.mkdir(parents=True)
        riders, drivers = draw.integers(0, 90, rows), draw.integers(0, 40, rows)
        seconds = START_MS // 1000 + number * 86_400 + draw.integers(0, 86_400, rows)
        narrow = number % 2 == 0
        columns = {
            "rider": riders.astype(np.int32 if narrow else np.int64),
            "driver_id": pa.array([None if n % 50 == 0 else float(d) for n, d in enumerate(drivers)]),
            "requested_at": pa.array(seconds.astype(np.int32 if narrow else np.int64)),
            "zone": pa.array([f"z{n % 6}" for n in riders], pa.string() if narrow else pa.large_string()),
            "surge": draw.gamma(2, 1, rows).astype(np.float32 if narrow else np.float64),
            "accepted": _likes(draw, riders, drivers, 0.5),
            "eta_seconds": draw.gamma(2, 200, rows).astype(np.int16 if narrow else np.int32),
        }
        if number >= 6:
            columns["vehicle"] = [f"v{n % 3}" for n in drivers]
        pq.write_table(pa.table(columns), folder / "part-00000.parquet")
        (folder / ".part-00000.parquet.crc").touch()
    (directory / "rides" / "_SUCCESS").touch()


def write_spaced(directory: Path, rows: int = 2_500) -> None:
    """Hotels: column names with spaces and signs, words of the language, text times, answers in words."""
    draw = np.random.default_rng(16)
    guests, hotels = draw.integers(0, 130, rows), draw.integers(0, 50, rows)
    booked = _likes(draw, guests, hotels)
    at = _moments(draw, rows, 15)
    log = {
        "Guest ID": [f"g{n}" for n in guests],
        "Hotel-ID": hotels,
        "Search Time": [datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") for ms in at.tolist()],
        "price (EUR)": draw.gamma(3, 40, rows),
        "from": [f"c{n % 5}" for n in guests],
        "utm:source, {raw}": ["mail" if n % 3 else "ad" for n in range(rows)],
        "hour": [f"h{n % 7}" for n in range(rows)],
        "Booked?": np.where(booked, "yes", "no"),
        "café": [bool(n % 2) for n in hotels],
        "7d clicks": draw.integers(0, 100, rows),
        "empty": pa.nulls(rows),
        "nothing": pa.array([float("nan")] * rows),
    }
    (directory / "my data").mkdir()
    pq.write_table(pa.table(log), directory / "my data" / "search log #1.parquet")


def write_songs(directory: Path, rows: int = 3_000) -> None:
    """Plays of songs with a kind of event in words, and one second as the unit of time, as a fraction."""
    draw = np.random.default_rng(17)
    listeners, tracks = draw.integers(0, 100, rows), draw.integers(0, 60, rows)
    answer = np.where(_likes(draw, listeners, tracks), "SKIP", np.where(draw.random(rows) < 0.2, "LIKE", "PLAY"))
    log = {
        "listener": [f"{n:08x}-0000-4000-8000-000000000000" for n in listeners],
        "track_id": tracks.astype(np.uint64) + np.uint64(2**63),
        "occurred": _moments(draw, rows, 9) / 1000 + 0.123,
        "interaction": answer,
        "context": pa.array([[("k", "v")]] * rows, pa.map_(pa.string(), pa.string())),
        "payload": pa.array([b"\x00\x01"] * rows),
        "device.os": ["ios" if n % 2 else "web" for n in range(rows)],
    }
    pq.write_table(pa.table(log), directory / "plays.parquet", use_dictionary=False)


def write_census(directory: Path, rows: int = 2_000) -> None:
    """A table without users, items or times: one row a case."""
    draw = np.random.default_rng(18)
    age, hours = draw.integers(17, 90, rows), draw.integers(1, 99, rows)
    table = {
        "age": age,
        "workclass": [f"w{n % 6}" for n in age],
        "hours-per-week": hours,
        "capital.gain": draw.exponential(1000, rows) * (draw.random(rows) < 0.1),
        "target": (draw.random(rows) < 1 / (1 + np.exp(-(age - 45) / 10 - (hours - 50) / 30))).astype(np.int64),
    }
    pq.write_table(pa.table(table), directory / "census.parquet")


def write_nested(directory: Path, rows: int = 2_000) -> None:
    """A log of which keys and time are fields of structs, next to fields that only describe the same things."""
    draw = np.random.default_rng(19)
    viewers, videos, moments = draw.integers(0, 120, rows), draw.integers(0, 80, rows), _moments(draw, rows, 20)
    log = {
        "session": [{"viewer": f"w{n}", "app": f"a{n % 3}"} for n in viewers],
        "video": [{"id": int(n), "topic": f"t{n % 7}"} for n in videos],
        "playback": [{"started_ms": int(at), "muted": bool(at % 2)} for at in moments],
        "finished": _likes(draw, viewers, videos),
    }
    pq.write_table(pa.table(log), directory / "nested.parquet")


def write_board(directory: Path, rows: int = 2_000) -> None:
    """Times as ISO texts under names that do not say so, and a table of users with several rows per key."""
    draw = np.random.default_rng(20)
    people, posts = draw.integers(0, 100, rows), draw.integers(0, 60, rows)
    stamps = [datetime.fromtimestamp(at / 1_000, tz=UTC).isoformat() for at in _moments(draw, rows, 20)]
    log = {
        "seeker_id": [f"s{n}" for n in people],
        "posting_id": [f"p{n}" for n in posts],
        "seen": stamps,
        "applied": _likes(draw, people, posts),
    }
    pq.write_table(pa.table(log), directory / "board.parquet")
    seekers = {
        "seeker_id": [f"s{n}" for n in range(100) for _ in range(2)],
        "city": [f"c{n % 9}" for n in range(200)],
        "updated": [f"2026-02-{1 + n % 27:02d}T08:00:00+00:00" for n in range(200)],
    }
    pq.write_table(pa.table(seekers), directory / "seekers.parquet")


def write_seekers(directory: Path, rows: int = 2_000) -> None:
    """Times as texts in a table of users, and columns that are not features."""
    draw = np.random.default_rng(22)
    people, posts = draw.integers(0, 100, rows), draw.integers(0, 60, rows)
    log = {
        "request": [f"r{n}" for n in range(rows)],
        "seeker_id": [f"s{n}" for n in people],
        "posting_id": posts.astype(np.uint32),
        "seen_ms": _moments(draw, rows, 20),
        "links": pa.array([[{"to": "x"}]] * rows),
        "applied": _likes(draw, people, posts),
    }
    pq.write_table(pa.table(log), directory / "seen.parquet")
    seekers = {
        "seeker_id": [f"s{n}" for n in range(100)],
        "birthday": [f"{1950 + n // 2}-0{1 + n % 9}-1{n % 10}" for n in range(100)],
        "joined": [f"{1 + n % 27:02d}.{1 + n % 12:02d}.2025" for n in range(100)],
        "country": ["IT"] * 100,
        "updated": [f"2026-02-{1 + n % 27:02d}T08:00:00+00:00" for n in range(100)],
    }
    pq.write_table(pa.table(seekers), directory / "seekers.parquet")


UNSEEN: dict[str, Unseen] = {
    "jobs": Unseen(
        write_jobs,
        ("log.parquet", "--users", "candidates.parquet", "--items", "jobs.parquet"),
        {"has_applied"},
    ),
    "video": Unseen(
        write_video,
        ("views.parquet", "--items", "videos.parquet"),
        {"is_click", "is_like", "play_time_ms", "watch_ratio"},
    ),
    "ads": Unseen(
        write_ads, ("clicks.parquet", "--labels", "conversions.parquet"), {"conversion", "conversion_revenue"}
    ),
    "ratings": Unseen(write_ratings, ("ratings.parquet", "--items", "books.parquet"), {"rating"}),
    "partitioned": Unseen(write_partitioned, ("rides",), {"accepted", "eta_seconds"}),
    "spaced": Unseen(write_spaced, ("my data/search log #1.parquet",), {"booked"}),
    "songs": Unseen(write_songs, ("plays.parquet",), {"skip", "like"}),
    "nested": Unseen(write_nested, ("nested.parquet",), {"finished"}),
    "board": Unseen(write_board, ("board.parquet", "--users", "seekers.parquet"), {"applied"}),
    "seekers": Unseen(write_seekers, ("seen.parquet", "--users", "seekers.parquet"), {"applied"}),
    "census": Unseen(write_census, ("census.parquet",), {"target"}),
}
