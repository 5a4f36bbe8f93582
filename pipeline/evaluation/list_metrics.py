"""Metrics of each user's list of rows, ranked by score: NDCG, MRR, MAP, precision and recall at k.

A list has at least two rows: a single one is ranked rightly by any model. Rows of equal score share their labels, so
that no value depends on the order of the rows.

Shape legend: n rows, L lists.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import Floats, Values, shared_gains, tie_starts


@dataclass(frozen=True)
class RankedLists:
    """Rows sorted by list and falling score.

    `group` [n] is the list of each row in 0..L-1, `labels` [n] the labels in that order, ties averaged, `position` [n]
    the place in the list from 0, `rows` [L] the length and `positives` [L] the sum of labels.
    """

    group: NDArray[np.int64]
    gains: Floats
    position: NDArray[np.int64]
    rows: Floats
    positives: Floats
    ideal: Floats
    first: Floats

    @classmethod
    def of(cls, labels: Values, scores: Values, group: NDArray[np.int64], count: int) -> "RankedLists":
        """Sort n rows of `count` lists; a list may have no rows."""
        order = np.lexsort((-scores, group))
        sizes = np.bincount(group, minlength=count)
        position = np.arange(group.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ranked_group, ranked = group[order], labels[order].astype(np.float64)
        best = np.lexsort((-labels, group))
        return cls(
            group=ranked_group,
            gains=shared_gains(ranked_group, scores[order], ranked),
            position=position,
            rows=sizes.astype(np.float64),
            positives=np.bincount(group, weights=labels, minlength=count).astype(np.float64),
            ideal=labels[best].astype(np.float64),
            first=_first_ranks(ranked_group, scores[order], ranked, position, count),
        )

    def _sum(self, values: Values) -> Floats:
        return np.bincount(self.group, weights=values, minlength=self.rows.size).astype(np.float64)

    def _defined(self, above: Floats, below: Floats) -> Floats:
        """A quotient for each list of two rows and a positive label; NaN for the others."""
        judged = (self.rows > 1) & (self.positives > 0) & (below > 0)
        return np.divide(above, below, out=np.full(self.rows.size, np.nan), where=judged)

    def metrics(self, k: int) -> dict[str, Floats]:
        """By metric its value for each list, [L]; NaN where a list defines none.

        NDCG's gain is the label and its discount 1 / log2(rank + 1); MRR is 1 over the expected rank of the first
        positive row, 0 beyond k; MAP divides by the positives that k places can hold.
        """
        inside = self.position < k
        discount = np.where(inside, 1.0 / np.log2(self.position + 2.0), 0.0)
        hits = self._sum(np.where(inside, self.gains, 0.0))
        before = np.cumsum(self.gains)
        starts = np.cumsum(self.rows) - self.rows
        offset = np.where(starts > 0, before[np.maximum(starts.astype(np.int64) - 1, 0)], 0.0) if before.size else 0.0
        found = before - np.repeat(offset, self.rows.astype(np.int64)) if before.size else before
        precision = np.where(inside, self.gains * found / (self.position + 1.0), 0.0)
        first = np.where(self.first <= k, 1.0 / self.first, 0.0)
        return {
            f"ndcg@{k}": self._defined(self._sum(self.gains * discount), self._sum(self.ideal * discount)),
            f"mrr@{k}": self._defined(first, np.ones(self.rows.size)),
            f"map@{k}": self._defined(self._sum(precision), np.minimum(self.positives, k)),
            f"precision@{k}": self._defined(hits, np.minimum(self.rows, k)),
            f"recall@{k}": self._defined(hits, self.positives),
        }


def _first_ranks(group: Values, scores: Values, labels: Values, position: Values, count: int) -> Floats:
    """The expected rank of each list's first positive row, [L]; infinite without one.

    Among m rows of equal score with p positives, in random order, the first positive stands at (m + 1) / (p + 1).
    """
    starts = tie_starts(group, scores)
    sizes = np.diff(np.append(starts, group.size))
    positives = np.add.reduceat(labels, starts) if starts.size else np.zeros(0)
    ranks = np.where(positives > 0, position[starts] + (sizes + 1.0) / (positives + 1.0), np.inf)
    found = np.full(count, np.inf)
    np.minimum.at(found, group[starts], ranks)
    return found
