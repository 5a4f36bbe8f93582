"""What encoding makes of a ranking request: the graph's inputs, and what is to be said of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.inputs import Inputs
from features.online.given_values import RequestColumn


class Apart(NamedTuple):
    """The candidates `rows` that need the general graph, and its inputs for all candidates."""

    rows: NDArray[np.int64]
    inputs: Inputs


@dataclass(frozen=True)
class EncodedRequest:
    """Inputs with one request row and N candidate rows, and who was unknown: `unknown_items` bool [N].

    `missing_context` names features of the context that the request left out, `unseen_context` those whose id training
    never saw, and `clipped` counts, by feature, the given numbers beyond what training saw: they count as its extremes.
    With `item_rows`, each candidate's row [N] of prepared items, the inputs are those of the graph over these.
    """

    inputs: Inputs
    unknown_user: bool
    unknown_items: NDArray[np.bool_]
    missing_context: tuple[str, ...] = ()
    unseen_context: tuple[str, ...] = ()
    clipped: Mapping[str, int] = field(default_factory=dict)
    given: Mapping[str, RequestColumn] = field(default_factory=dict)
    """The request's own values, checked."""
    pushed: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By feature the rows whose value was pushed since the tables were made."""
    stale: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By feature, the rows whose pushed values are all too old."""
    item_rows: NDArray[np.int64] | None = None
    rows_of: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By table whose features are prepared, its rows [N], or [1] for all candidates."""
    apart: Apart | None = None
    """With `rows_of`, the candidates whose prepared rows are not theirs: something was pushed, or they are unknown."""
