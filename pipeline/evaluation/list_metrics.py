"""Metrics of each user's list of rows, ranked by score: AUC within the list, NDCG, MRR, MAP, precision, recall at k.

A list has at least two rows: a single one is ranked rightly by any model. Rows of equal score share their labels, so
that no value depends on the order of the rows.

Shape legend: n rows, L lists, E groups of equal scores within a list.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from pipeline.evaluation.metrics import check
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.ranking import Floats, Ranking, Values, order_of


@dataclass(frozen=True)
class RankedLists:
    """Rows sorted by list and falling score.

    `group` [n] is the list of each row in 0..L-1, `gains` [n] the labels in that order, ties averaged, `position` [n]
    the place in the list from 0, `rows` [L] the length and `positives` [L] the positive rows, `first` [L] the expected
    rank of the first positive row, `area` [L] the AUC within the list and `weight` [L] the sample weight of its rows.
    """

    group: NDArray[np.int64]
    gains: Floats
    position: NDArray[np.int64]
    rows: Floats
    positives: Floats
    first: Floats
    area: Floats
    weight: Floats

    @classmethod
    def of(cls, labels: Values, scores: Values, group: NDArray[np.int64], count: int) -> "RankedLists":
        """Sort n rows of `count` lists with labels 0 and 1; a list may have no rows."""
        ranking = Ranking.of(labels, scores)
        return cls.from_ranking(ranking, group[ranking.order], count)

    @classmethod
    def from_ranking(
        cls, ranking: Ranking, group: NDArray[np.int64], count: int, weights: Floats | None = None
    ) -> "RankedLists":
        """From rows that are sorted by falling score already; `group` and `weights` [n] are in that order."""
        place = order_of(group.astype(np.uint32))
        sizes = np.bincount(group, minlength=count)
        by_list = np.repeat(np.arange(count), sizes)
        labels = ranking.positive[place]
        ties = _Ties.of(by_list, ranking.group[place])
        position = np.arange(group.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        weight = None if weights is None else weights[place]
        return cls(
            group=by_list,
            gains=ties.averaged(labels),
            position=position,
            rows=sizes.astype(np.float64),
            positives=np.bincount(group, weights=ranking.positive, minlength=count).astype(np.float64),
            first=_first_ranks(ties, labels, position, count),
            area=_areas(ties, labels, weight, count),
            weight=sizes.astype(np.float64)
            if weights is None
            else np.bincount(group, weights=weights, minlength=count).astype(np.float64),
        )

    @property
    def mean_weight(self) -> Floats:
        """The mean sample weight of each list's rows, [L]: a list whose rows weigh 2 counts as two such lists."""
        return np.divide(self.weight, self.rows, out=np.zeros(self.rows.size), where=self.rows > 0)

    def metrics(self, k: int) -> dict[str, Floats]:
        """By metric its value for each list, [L]; NaN where a list defines none.

        NDCG's gain is the label and its discount 1 / log2(rank + 1); MRR is 1 over the expected rank of the first
        positive row, 0 beyond k; MAP divides by the positives that k places can hold.
        """
        inside = np.flatnonzero(self.position < k)
        group, gains, position = self.group[inside], self.gains[inside], self.position[inside]
        discount = 1.0 / np.log2(np.arange(k) + 2.0)
        gained, starts = np.cumsum(gains), np.flatnonzero(position == 0)
        # Less the sum of the lists before.
        gained -= np.repeat((gained - gains)[starts], np.diff(np.append(starts, group.size)))

        def summed(values: Values) -> Floats:
            return np.bincount(group, weights=values, minlength=self.rows.size).astype(np.float64)

        hits = summed(gains)
        first = np.where(self.first <= k, 1.0 / self.first, 0.0)
        most = np.minimum(self.positives, k)
        ideal = np.append(0.0, np.cumsum(discount))[most.astype(np.int64)]
        return {
            f"ndcg@{k}": self._defined(summed(gains * discount[position]), ideal),
            f"mrr@{k}": self._defined(first, np.ones(self.rows.size)),
            f"map@{k}": self._defined(summed(gains * gained / (position + 1.0)), most),
            f"precision@{k}": self._defined(hits, np.minimum(self.rows, k)),
            f"recall@{k}": self._defined(hits, self.positives),
        }

    def _defined(self, above: Floats, below: Floats) -> Floats:
        """A quotient for each list of two rows and a positive label; NaN for the others."""
        judged = (self.rows > 1) & (self.positives > 0) & (below > 0)
        return np.divide(above, below, out=np.full(self.rows.size, np.nan), where=judged)


@dataclass(frozen=True)
class _Ties:
    """Runs of equal scores of one list: `starts`, `sizes` and `group` (the list) of each, [E]."""

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def of(cls, group: NDArray[np.int64], score: NDArray[np.int64]) -> "_Ties":
        """From rows sorted by list and score; `score` [n] is equal where scores are."""
        new = np.ones(group.size, dtype=bool)
        new[1:] = (group[1:] != group[:-1]) | (score[1:] != score[:-1])
        starts = np.flatnonzero(new)
        return cls(starts, np.diff(np.append(starts, group.size)), group[starts])

    def sums(self, values: Floats) -> Floats:
        """Sums of values [n] by run."""
        if self.starts.size == values.size:
            return values
        return np.add.reduceat(values, self.starts) if self.starts.size else np.zeros(0)

    def averaged(self, values: Floats) -> Floats:
        """Values [n], the same within each run."""
        if self.starts.size == values.size:
            return values
        return np.repeat(self.sums(values) / self.sizes, self.sizes)


def _areas(ties: _Ties, labels: Floats, weights: Floats | None, count: int) -> Floats:
    """AUC within each list, [L]; NaN for a list whose rows are all of one class."""
    positive = ties.sums(labels if weights is None else labels * weights)
    negative = (ties.sizes if weights is None else ties.sums(weights)) - positive
    positives = np.bincount(ties.group, weights=positive, minlength=count)
    negatives = np.bincount(ties.group, weights=negative, minlength=count)
    # Negatives of the lists before, and down to this run's middle: the rest of the list's negatives lie below.
    below = np.cumsum(negatives)[ties.group] - np.cumsum(negative) + negative / 2.0
    right = np.bincount(ties.group, weights=positive * below, minlength=count)
    pairs = positives * negatives
    mixed = np.bincount(ties.group, weights=ties.sums(labels), minlength=count) * (pairs > 0) > 0
    return np.divide(right, pairs, out=np.full(count, np.nan), where=mixed)


def _first_ranks(ties: _Ties, labels: Floats, position: NDArray[np.int64], count: int) -> Floats:
    """The expected rank of each list's first positive row, [L]; infinite without one.

    Among m rows of equal score with p positives, in random order, the first positive stands at (m + 1) / (p + 1).
    """
    positives = ties.sums(labels)
    mine = np.flatnonzero(positives > 0)
    group = ties.group[mine]
    first = mine[np.append(True, group[1:] != group[:-1])] if mine.size else mine
    ranks = np.full(count, np.inf)
    ranks[ties.group[first]] = position[ties.starts[first]] + (ties.sizes[first] + 1.0) / (positives[first] + 1.0)
    return ranks


def ndcg(labels: Values, scores: Values, user: Values, k: int, *, name: str = "label") -> float:
    """Mean NDCG at k over the users with at least two rows and one positive label; labels are 0 and 1.

    Raises:
        DataError: no such user, or unusable values.
    """
    check(labels, scores, name)
    distinct, group = numbered(user)
    gains = RankedLists.of(labels, scores, group, distinct.size).metrics(k)[f"ndcg@{k}"]
    if not np.isfinite(gains).any():
        message = f"{name}: no user has two rows and a label above 0, so NDCG is not defined"
        raise DataError(message)
    return float(np.nanmean(gains))
