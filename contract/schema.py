"""The schema: what a model takes and predicts, fitted on training rows, with a stable fingerprint.

Training data, checkpoint, bundle and server all carry it and refuse each other by name when the fingerprints differ.
"""

import json
import math
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from contract.errors import DataError, SchemaMismatchError
from contract.inputs import PartName
from contract.settings import Settings
from contract.sha256 import sha256_of_bytes

Side = Literal["user", "item", "context", "pair"]
Moment = Literal["", "date", "time"]
"""Whether a column holds dates (ids are days since 1970) or times (numbers are milliseconds since then)."""
SCHEMA_FILE = "schema.json"


def _is_none(value: object) -> bool:
    """Fields that are left out where they say nothing change no fingerprint of an earlier schema."""
    return value is None


class IdSpec(Settings):
    """A categorical feature: one id per row (`id`) or several (`id_list`, pooled).

    `rows` counts the embedding rows, of which row 0 stands for unknown and null. `encoding` says how values become
    rows: by the fitted vocabulary, or by a salted 64-bit hash. `max_length` bounds a list (0: one id).
    """

    name: str
    kind: Literal["id", "id_list"]
    side: Side
    keys: tuple[str, ...] = ()
    rows: int = Field(ge=1)
    encoding: Literal["vocabulary", "hash"] = "vocabulary"
    dtype: Literal["integer", "string"] = "integer"
    pooling: Literal["sum", "mean"] = "mean"
    max_length: int = 0
    table: str = ""
    """Features with the same table share vocabulary and embedding; empty: its own name."""
    cross: bool = False
    """The hash of its `keys` together, made from the request rather than looked up."""
    null_row: bool = False
    """Row 1 stands for null, which otherwise shares row 0 with the unknown."""
    unknown_rows: int = 0
    """This many rows after that are shared by values without a row of their own, by their hash."""
    refuse_null: bool = False
    moment: Moment = Field(default="", exclude_if=operator.not_)
    """A date or a time, which a request may also give as RFC 3339 text."""

    @property
    def table_name(self) -> str:
        """The embedding table and vocabulary that this feature reads."""
        return self.table or self.name


class DenseSpec(Settings):
    """A numeric feature, encoded to one float a row.

    `encoding` and its fitted numbers: ``piecewise_linear`` (`edges`: quantile edges, position in [0, bins], null -1),
    ``standardise`` (`mean`, `scale`), ``log1p`` (then standardised). `default` fills nulls of the last two.
    """

    name: str
    kind: Literal["dense"] = "dense"
    side: Side
    keys: tuple[str, ...] = ()
    encoding: Literal["piecewise_linear", "standardise", "log1p"]
    edges: tuple[float, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    default: float | None = None
    fill: float | None = None
    """What a null counts as, before encoding; None: what the encoding makes of nulls."""
    refuse_null: bool = False
    refuse_nan: bool = False
    moment: Moment = Field(default="", exclude_if=operator.not_)
    """A date or a time, which a request may also give as RFC 3339 text."""
    lowest: float | None = Field(default=None, exclude_if=_is_none)
    """The least value that was seen when the numbers were fitted; what is below counts as it. Edges have their own."""
    highest: float | None = Field(default=None, exclude_if=_is_none)
    """The greatest one."""
    vector: str = Field(default="", exclude_if=operator.not_)
    """The vector that this is a number of, under whose name requests give it; empty: a number by itself."""
    half: bool = Field(default=False, exclude_if=operator.not_)
    """Whether encoded values are rounded to half precision, in which online tables then keep them."""
    null_bin: bool = Field(default=False, exclude_if=operator.not_)
    """The model gives nulls a component of their own; without, a null looks like the lowest value.

    This, `half` and `vector` are left out of the schema's JSON where they say nothing, so that the fingerprints of
    earlier schemas stay as they were.
    """

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value that the encoding tells from those beyond it."""
        if self.encoding == "piecewise_linear" and self.edges:
            return self.edges[0], self.edges[-1]
        lowest, highest = self.lowest, self.highest
        return -math.inf if lowest is None else lowest, math.inf if highest is None else highest

    @property
    def bins(self) -> int:
        """How many components the model expands this feature to; 0: the scalar itself."""
        return max(len(self.edges) - 1, 0) if self.encoding == "piecewise_linear" else 0


FeatureSpec = Annotated[IdSpec | DenseSpec, Field(discriminator="kind")]


class TaskSpec(Settings):
    """A thing to predict: `binary` (probability, AUC) or `regression` (label scale, RMSE).

    `unit` describes the scale of a regression label, such as ``log1p seconds``.
    """

    name: str
    kind: Literal["binary", "regression"]
    unit: str = ""
    base_rate: float = 0.0
    """Mean of the label over the training rows to which the task applies."""
    spread: float = 1.0
    """Standard deviation of the label over the same rows."""


class KeySpec(Settings):
    """A value that a request or an item row must offer so that pair tables can be looked up.

    `side` says who offers it: the request's user or context, or the candidate's item.
    """

    name: str
    side: Side
    dtype: Literal["integer", "string"] = "integer"
    moment: Moment = Field(default="", exclude_if=operator.not_)
    """A date or a time, which a request may also give as RFC 3339 text."""


@dataclass(frozen=True)
class Part:
    """The features of one part in column order."""

    ids: tuple[IdSpec, ...]
    lists: tuple[IdSpec, ...]
    dense: tuple[DenseSpec, ...]


class Schema(Settings):
    """Everything that fixes the meaning of a model's inputs and outputs."""

    features: tuple[FeatureSpec, ...]
    tasks: tuple[TaskSpec, ...]
    keys: tuple[KeySpec, ...] = ()
    user_key: str = ""
    item_key: str = ""
    vocabulary_sha256: str = ""

    def part_of(self, feature: IdSpec | DenseSpec) -> PartName:
        """Which part a feature travels in: a pair feature whose keys are all the request's is the request's."""
        if feature.side != "pair":
            return "candidate" if feature.side == "item" else "request"
        sides = {key.name: key.side for key in self.keys}
        return "candidate" if any(sides.get(key) == "item" for key in feature.keys) else "request"

    def part(self, name: PartName) -> Part:
        """The features of a part, split by how they travel."""
        of_part = [f for f in self.features if self.part_of(f) == name]
        ids = [f for f in of_part if isinstance(f, IdSpec)]
        return Part(
            ids=tuple(f for f in ids if f.kind == "id"),
            lists=tuple(f for f in ids if f.kind == "id_list"),
            dense=tuple(f for f in of_part if isinstance(f, DenseSpec)),
        )

    @property
    def request(self) -> Part:
        """Features of the user and the context."""
        return self.part("request")

    @property
    def candidate(self) -> Part:
        """Features of the item, and of pairs that need the item."""
        return self.part("candidate")

    def tables(self) -> dict[str, int]:
        """Embedding tables by name with their row counts, in first-use order."""
        return {f.table_name: f.rows for f in self.features if isinstance(f, IdSpec)}

    def vocabulary_tables(self) -> tuple[str, ...]:
        """The embedding tables whose rows come from a vocabulary rather than from a hash."""
        used = (f for f in self.features if isinstance(f, IdSpec) and f.encoding == "vocabulary")
        return tuple(dict.fromkeys(f.table_name for f in used))

    def fingerprint(self) -> str:
        """A stable hash of all of the above: 16 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256_of_bytes(canonical.encode())[:16]

    def require(self, fingerprint: str, owner: str) -> None:
        """Refuse an artefact made with another schema.

        Raises:
            SchemaMismatchError: naming the owner and both fingerprints.
        """
        if fingerprint != self.fingerprint():
            message = (
                f"{owner} was made with schema {fingerprint}, but this data has schema {self.fingerprint()}; "
                "rebuild one of them so that both come from the same features run"
            )
            raise SchemaMismatchError(message)

    def save(self, directory: Path) -> None:
        """Write ``schema.json`` into an existing directory."""
        text = self.model_dump_json(indent=1)
        (directory / SCHEMA_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``schema.json`` from a directory.

        Raises:
            DataError: no such file, or not a schema.
        """
        path = directory / SCHEMA_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            message = f"no {SCHEMA_FILE} in {directory}; build features first with `moerank features CONFIG`"
            raise DataError(message) from error
        except ValidationError as error:
            message = f"{path} is not a schema of this version: {error.errors()[0]['msg']}; rebuild the features"
            raise DataError(message) from error
