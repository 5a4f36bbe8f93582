"""A tiny real project: raw Parquet of made-up ratings, and the YAML file that trains on it in seconds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

YAML = """\
name: tiny
data:
  events: {path: raw/events.parquet, user: user, item: item, time: time}
  items: {path: raw/items.parquet, key: item}
  features:
    - {name: user}
    - {name: item}
    - {name: year, kind: dense}
  aggregates:
    - {by: [item], of: [rating]}
  tasks:
    - {name: like, kind: binary, label: rating >= 4}
    - {name: rating, kind: regression, label: rating, unit: stars}
  split: {by: user_time, valid: 0.2, test: 0.2}
model:
  embedding_dim: 4
  experts: 4
  expert_widths: [8]
  tower_widths: [4]
  gate: {name: softmax}
train: {epochs: 2, batch_size: 256}
evaluate: {replicates: 60, slice_replicates: 60}
"""
USERS, ITEMS, EVENTS = 40, 30, 2000


def write_project(folder: Path) -> Path:
    """Write raw tables and ``tiny.yaml`` into a folder, and return the YAML file's path."""
    rng = np.random.default_rng(7)
    user, item = rng.integers(1, USERS + 1, EVENTS), rng.integers(1, ITEMS + 1, EVENTS)
    taste = rng.normal(size=(USERS + 1,))[user] + rng.normal(size=(ITEMS + 1,))[item]
    rating = np.clip(np.round(3.5 + taste + rng.normal(size=EVENTS) * 0.5), 1, 5)
    time = np.datetime64("2026-01-01") + np.sort(rng.integers(0, 10_000_000, EVENTS)).astype("timedelta64[s]")
    events = {"user": user, "item": item, "rating": rating.astype(np.float32)}
    stamps = pa.array(time.astype("datetime64[ms]")).cast(pa.timestamp("ms", tz="UTC"))
    raw = folder / "raw"
    raw.mkdir(parents=True)
    pq.write_table(pa.table(events | {"time": stamps}), raw / "events.parquet")
    items = {"item": np.arange(1, ITEMS + 1), "year": rng.integers(1950, 2026, ITEMS).astype(np.float32)}
    pq.write_table(pa.table(items), raw / "items.parquet")
    path = folder / "tiny.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def leave_late_events_out(project: Path) -> tuple[pa.Table, pa.Table]:
    """Cut a project's log at 2026-04-01, as of an earlier night; returns the whole log and the early rows."""
    path = project.parent / "raw" / "events.parquet"
    log = pq.read_table(path)
    early = log.filter(pc.less(pc.strftime(log["time"], format="%Y-%m-%d"), "2026-04-01"))
    pq.write_table(early, path)
    return log, early
