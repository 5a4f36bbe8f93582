"""Writes a whole table of users to the user store: what servers of the same schema then read before their bundle's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from contract.errors import DataError
from contract.graph_names import ONLINE_FOLDER
from contract.schema import Schema
from features.online.online_table import OnlineTable, OnlineTables, TableRows
from serving.graph.users import StoredUsers, UserStore

AT_ONCE = 1000
"""Users of one round trip."""


def export_users(
    directory: Path, store: UserStore, seconds: int | None = None, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write every user of a bundle, or of a directory of features, to be forgotten after so many seconds if given.

    Blobs are written for the schema of the directory; servers of another one do not read them.

    Returns:
        How many users there are.

    Raises:
        DataError: no table of users.
        UnavailableError: the store does not take them; those written before stay.
    """
    table = OnlineTables.open(directory / ONLINE_FOLDER).user
    if table is None:
        message = f"{directory} has no table of users, so there is nothing to export"
        raise DataError(message)
    stored = StoredUsers(store, table, Schema.load(directory).fingerprint())
    total = len(table.keys)
    for begin in range(0, total, AT_ONCE):
        end = min(begin + AT_ONCE, total)
        store.put(
            {stored.key(int(table.keys[row])): stored.encode(_row(table, row)) for row in range(begin, end)}, seconds
        )
        if progress is not None:
            progress(end, total)
    return total


def _row(table: OnlineTable, row: int) -> TableRows:
    """One user as a look-up would find them."""
    return table.at(np.array([row]), np.ones(1, np.bool_))
