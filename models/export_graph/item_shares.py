"""What is prepared for items before any request: which features, and their values for every item.

Shape legend: I items.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from contract.inputs import PartInputs
from contract.prepared import without
from contract.schema import Schema
from models.export_graph.lookup import PartLookup, Tables
from models.export_graph.split import ItemRows
from models.input_layout import PartLayout


@dataclass(frozen=True)
class PreparedItems:
    """The features `names` of the candidate's part for I items; `inputs` has all columns of the part."""

    names: frozenset[str]
    inputs: PartInputs

    def __post_init__(self) -> None:
        """Copy what cannot be written, such as columns that are mapped from a file: torch has no tensors like that."""
        columns = {
            each.name: np.require(getattr(self.inputs, each.name), requirements="W") for each in fields(PartInputs)
        }
        object.__setattr__(self, "inputs", PartInputs(**columns))

    def lean(self, schema: Schema) -> Schema:
        """The schema of what a request still brings."""
        return without(schema, self.names)


@torch.no_grad()
def item_rows(items: PreparedItems, lookup: PartLookup, tables: Tables, layout: PartLayout) -> ItemRows:
    """The prepared features' columns of the input matrix."""
    item_columns = [columns for spec, columns in layout.features(lookup.dims, 0) if spec.name in items.names]
    columns_J = tuple(column for columns in item_columns for column in columns)
    arrays = {
        "candidate_ids": items.inputs.ids,
        "candidate_list_values": items.inputs.list_values,
        "candidate_list_lengths": items.inputs.list_lengths,
        "candidate_dense": items.inputs.dense,
    }
    whole_ID = lookup(tables, {name: torch.from_numpy(array) for name, array in arrays.items()})
    assert whole_ID is not None  # noqa: S101 a prepared feature has columns
    return ItemRows(columns_J, whole_ID[:, list(columns_J)])
