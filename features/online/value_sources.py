"""Where each value that a request was answered with came from, in words.

``overridden`` by the request, ``pushed`` since the version was made, ``stale`` (pushed, but so old that the table's
value was taken), ``null``, ``unknown`` (of an unknown id), or ``looked up``. Where candidates differ,
how many of each: ``looked up 2, pushed 1``.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from contract.hashing import NULL_HASH
from contract.inputs import PARTS, Inputs, PartInputs
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Part, Schema
from features.encode.encoder import NULL_POSITION
from features.online.given_values import RequestColumn
from features.online.request_encoder import EncodedRequest

Words = NDArray[np.str_]


def value_sources(schema: Schema, encoded: EncodedRequest, inputs: Inputs) -> dict[str, str]:
    """By feature; `inputs` are those of all features, also where the request was encoded for a graph over fewer."""
    unknown = {"request": np.array([encoded.unknown_user]), "candidate": encoded.unknown_items}
    sources = {}
    for name in PARTS:
        part, piece = schema.part(name), getattr(inputs, name)
        specs: tuple[FeatureSpec, ...] = (*part.ids, *part.lists, *part.dense)
        for spec in specs:
            words = np.full(piece.rows, "looked up", "U10")
            own = spec.side in {"user", "item"}
            words[_nulls(spec, part, piece)] = "null"
            if own:
                words[unknown[name]] = "unknown"
            _add_fresh(words, spec, encoded)
            sources[spec.name] = _told(words)
    sources |= {name: "null" for name in encoded.missing_context if name in sources}
    return sources | dict.fromkeys(encoded.unseen_context, "unknown")


def _add_fresh(words: Words, spec: FeatureSpec, encoded: EncodedRequest) -> None:
    """What replaced a table's values, or was too old to."""
    if spec.name in encoded.stale:
        words[encoded.stale[spec.name]] = "stale"
    if spec.name in encoded.pushed:
        words[encoded.pushed[spec.name]] = "pushed"
    if spec.name in encoded.given:
        words[:] = np.where(_given_nulls(encoded.given[spec.name], len(words)), "null", "overridden")


def _given_nulls(given: RequestColumn, rows: int) -> NDArray[np.bool_]:
    if not isinstance(given, np.ndarray):
        return np.zeros(rows, dtype=np.bool_)
    return np.broadcast_to(np.isnan(given) if given.dtype.kind == "f" else given == NULL_HASH, rows)


def _nulls(spec: FeatureSpec, part: Part, piece: PartInputs) -> NDArray[np.bool_]:
    """Where the encoded value says that it is null, which not every encoding can."""
    if isinstance(spec, DenseSpec) and spec.encoding == "piecewise_linear":
        return np.asarray(piece.dense[:, part.dense.index(spec)] == NULL_POSITION)
    if isinstance(spec, IdSpec) and spec.kind == "id" and spec.null_row:
        return np.asarray(piece.ids[:, part.ids.index(spec)] == 1)
    return np.zeros(piece.rows, dtype=np.bool_)


def _told(words: Words) -> str:
    counts = Counter(words.tolist())
    if len(counts) == 1:
        return str(words[0])
    return ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
