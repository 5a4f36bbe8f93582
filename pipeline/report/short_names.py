"""What the short names on the pages mean."""

from collections.abc import Iterable

_WORDS = {
    "auc": "AUC: the share of pairs of a positive and a negative row that the model puts in the right order; 0.5 is "
    "chance, 1 is best",
    "pr_auc": "area under the precision-recall curve (average precision); chance is the rate of positives, 1 is best",
    "lift": "the rate among the tenth of the rows with the highest scores, over the rate of all rows; 1 is chance",
    "log_loss": "mean cross-entropy in nats; 0 is best",
    "ne": "normalised entropy: log loss over that of always saying the mean; below 1 beats the mean",
    "calibration": "predicted / actual: the sum of the predictions over the sum of the labels; 1 is right, above 1 "
    "promises too much",
    "ece": "expected calibration error: how far probabilities are from observed shares on average, over 20 bins of "
    "equal size, without the bias of its plain form; 0 is best",
    "gauc": "AUC within each user, averaged by the weight of the user's rows; 0.5 is chance",
    "ndcg": "how far up a user's positives stand among the first k, discounted by rank; 1 is best",
    "mrr": "mean of 1 / rank of each user's first positive among the first k; 1 is best",
    "map": "mean average precision of each user's first k; 1 is best",
    "precision": "the share of positives among each user's first k",
    "recall": "the share of each user's positives that are among the first k",
    "rmse": "root mean squared error, in the label's unit; 0 is best",
    "mae": "mean absolute error, in the label's unit; 0 is best",
    "r2": "the share of the label's variance that the model explains; 1 is best",
    "xauc": "the share of row pairs with different labels that are in the right order; 0.5 is chance",
    "gxauc": "XAUC within each user, averaged by the weight of the user's rows; 0.5 is chance",
    "95 %": "the interval that holds the true value in 95 of 100 such evaluations; users are drawn again with all "
    "their rows, as rows of one user are alike",
    "constant": "baseline: the mean label of the training rows, for every row",
    "popularity": "baseline: the item's own mean label in the training rows, drawn towards the mean of all",
    "trees": "baseline: LightGBM trained on the very columns that the model was trained on, with ids as categories "
    "or as numbers, whichever is better on held-out training rows",
    "PSI": "population stability index between two distributions; below 0.1 is stable, above 0.2 is a shift",
    "KS": "Kolmogorov-Smirnov distance: the largest gap between two distribution functions, 0 to 1",
    "JS": "Jensen-Shannon divergence of two distributions of values, 0 (the same) to 1 (nothing in common)",
    "importance": "how much worse the metric becomes when a feature's values are shuffled among the rows",
    "p": "the chance of a difference at least so large between equal models, adjusted for the number of tests",
}


def meanings(names: Iterable[str]) -> dict[str, str]:
    """The names of a page that have a meaning here, in the order of this list; ``ndcg@10`` is ``ndcg``.

    Example:
        >>> list(meanings(["rmse", "auc", "unheard of"]))
        ['auc', 'rmse']
    """
    wanted = {name.partition("@")[0] for name in names}
    return {name.replace("_", " "): text for name, text in _WORDS.items() if name in wanted}
