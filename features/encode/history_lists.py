"""The encoded lists of stored rows: an event is encoded once, however many lists hold it."""

import pyarrow as pa

from contract.columns import TIME
from contract.schema import FeatureSpec, IdSpec
from features.encode.encoder import Encoder, Ids
from features.incremental.raw_rows import PartitionRows
from features.point_in_time.elapsed import elapsed
from features.point_in_time.feature_plan import FeaturePlan


class HistoryLists:
    """The histories of a partition's rows."""

    def __init__(
        self, part: PartitionRows, feature_plans: list[FeaturePlan], specs: tuple[FeatureSpec, ...], encoder: Encoder
    ) -> None:
        """Encode the events of each list; how long ago they happened differs from row to row."""
        lists = [(p, s) for p, s in zip(feature_plans, specs, strict=True) if p.history and isinstance(s, IdSpec)]
        self._part, self._encoder = part, encoder
        self._events: dict[str, Ids] = {p.name: encoder.ids(s, part.events(p.name)) for p, s in lists if not p.elapsed}
        self._times = [(s, part.events(p.name)) for p, s in lists if p.elapsed]

    def of(self, raw: pa.Table) -> dict[str, pa.Array]:
        """By name the lists of rows as they are stored."""
        columns = {
            name: self._part.slices(raw, name).gather_ids(encoded).to_arrow() for name, encoded in self._events.items()
        }
        for spec, times in self._times:
            passed = elapsed(self._part.slices(raw, spec.name).gather(times), raw[TIME].to_numpy())
            columns[spec.name] = self._encoder.lists(spec, passed).to_arrow()
        return columns
