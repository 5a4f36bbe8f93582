"""Names of the columns of training Parquet beside the features', and of prediction files.

Names that begin with two underscores are not features; a task's columns are named after it.
"""

from collections.abc import Iterable

USER_HASH, ITEM_HASH = "__user", "__item"
"""The stable uint64 hashes of a row's keys."""
SERVED_ROW = "__served_row"
"""Where a raw row's features lie in the log of served requests, int64; null: it was not served."""
TIME = "__time"
"""When the row's event was, int64 milliseconds since 1970 in UTC."""
KEY, LIST = "__key", "__list"
"""In prediction files: the hash of the row's key in its source, and of what is ranked together with it."""
LABEL, WEIGHT, PREDICTION, FEATURE = "label__", "weight__", "prediction__", "feature__"


def label_column(task: str) -> str:
    """A task's labels, float32.

    Example:
        >>> label_column("like")
        'label__like'
    """
    return LABEL + task


def weight_column(task: str) -> str:
    """The weights of a task's labels, float32; 0 where the task does not apply to the row.

    Example:
        >>> weight_column("like")
        'weight__like'
    """
    return WEIGHT + task


def prediction_column(task: str) -> str:
    """A model's answers for a task, in the file that an evaluation keeps.

    Example:
        >>> prediction_column("like")
        'prediction__like'
    """
    return PREDICTION + task


def task_columns(tasks: Iterable[str]) -> list[str]:
    """Labels and weights, task by task.

    Example:
        >>> task_columns(["like", "watch"])
        ['label__like', 'weight__like', 'label__watch', 'weight__watch']
    """
    return [name for task in tasks for name in (label_column(task), weight_column(task))]
