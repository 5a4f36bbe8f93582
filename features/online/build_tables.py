"""Make online tables out of the probes: the same expressions as the training rows, as of the end of the log."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.hashing import combine, hash_array
from contract.schema import DenseSpec, FeatureSpec, IdSpec
from features.encode.encoder import Encoder
from features.encode.fit_encoders import Fitted, raw_values
from features.incremental.compute_rows import probe_file, probe_plans
from features.online.online_table import OnlineTable, OnlineTables
from features.point_in_time.feature_plan import FeaturePlan
from features.point_in_time.timeline import Timeline
from features.source.row_types import FIRST_PAIR, ITEM, KIND, NOBODY, USER

_HALF = np.dtype(np.float16)
T = TypeVar("T", bound=np.generic)
Plans = list[tuple[FeaturePlan, FeatureSpec]]


def build_online(
    raw: Path, directory: Path, feature_plans: list[FeaturePlan], timeline: Timeline, encoder: Encoder, fitted: Fitted
) -> None:
    """Encode each kind of probe into its table; the probe without a key becomes the row of unknown keys."""
    specs = {spec.name: spec for spec in encoder.schema.features}
    plans = probe_plans(feature_plans, timeline)
    owner = timeline.ownership

    def table(row_type: int, keys: tuple[str, ...], key_names: tuple[str, ...]) -> OnlineTable:
        table_plans = [(plan, specs[plan.name]) for plan in plans[row_type]]
        rows = pa.ipc.open_file(probe_file(raw, row_type)).read_all()
        nobody = pc.equal(rows[KIND], NOBODY)
        rows = pa.concat_tables([rows.filter(pc.invert(nobody)), rows.filter(nobody)])
        return _encode_table(rows, keys, table_plans, key_names, encoder, fitted)

    def entity(row_type: int, side: str, key: str | None) -> OnlineTable | None:
        if key is None:
            return None
        return table(row_type, (key,), tuple(k.name for k in encoder.schema.keys if k.side == side and k.name != key))

    pairs = {keys: table(FIRST_PAIR + number, keys, ()) for number, keys in enumerate(timeline.pairs)}
    OnlineTables(entity(USER, "user", owner.user), entity(ITEM, "item", owner.item), pairs).save(directory)


def _encode_table(
    rows: pa.Table,
    keys: tuple[str, ...],
    table_plans: Plans,
    key_names: tuple[str, ...],
    encoder: Encoder,
    fitted: Fitted,
) -> OnlineTable:
    """Sort by key hash, the unknown's row last, and encode the features that hang on these keys."""
    hashes = combine([hash_array(rows[key], key) for key in keys])
    order = np.append(np.argsort(hashes[:-1], kind="stable"), len(hashes) - 1)
    rows = rows.take(pa.array(order))
    values = {spec.name: raw_values(rows, plan, fitted.priors) for plan, spec in table_plans}
    ids = [s for _, s in table_plans if isinstance(s, IdSpec) and s.kind == "id"]
    lists = [s for _, s in table_plans if isinstance(s, IdSpec) and s.kind == "id_list"]
    dense = [s for _, s in table_plans if isinstance(s, DenseSpec) and not s.half]
    rounded = [s for _, s in table_plans if isinstance(s, DenseSpec) and s.half]
    count = len(order)
    return OnlineTable(
        keys=hashes[order][:-1],
        ids=_stack([encoder.ids(s, values[s.name]) for s in ids], count, np.dtype(np.int32)),
        dense=_stack([encoder.dense(s, values[s.name]) for s in dense], count, np.dtype(np.float32)),
        key_hashes=_stack([hash_array(rows[key], key) for key in key_names], count, np.dtype(np.uint64)),
        lists={s.name: encoder.lists(s, values[s.name]) for s in lists},
        id_names=tuple(s.name for s in ids),
        dense_names=tuple(s.name for s in (*dense, *rounded)),
        key_names=key_names,
        # Nothing is lost: the encoder has rounded them.
        halves=_stack([encoder.dense(s, values[s.name]).astype(np.float16) for s in rounded], count, _HALF),
    )


def _stack(columns: Sequence[NDArray[T]], rows: int, dtype: np.dtype[T]) -> NDArray[T]:
    """Columns side by side, row-major [rows, columns]."""
    return np.ascontiguousarray(np.stack(columns, axis=1)) if columns else np.zeros((rows, 0), dtype=dtype)
