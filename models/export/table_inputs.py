"""Tables out of a graph for a card: they become inputs, which the server binds once for all of a bundle's graphs.

As constants each graph would hold a copy of its own on the card, and could not run at all where they do not fit. What
lies in a file beside the graph (`contract.graph_names.TABLES_FILE`) becomes an input; small tables stay constants.
"""

import json
from pathlib import Path

from onnxscript import ir

from contract.files import appearing
from contract.graph_names import CARD_TABLES


def tables_as_inputs(path: Path) -> tuple[str, ...]:
    """Rewrite a graph file; the names of the inputs that it asks for beside those of any graph."""
    model = ir.load(path)
    found: dict[str, dict[str, object]] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            shape = [int(size) for size in tensor.shape.numpy()]
            place = {"file": Path(tensor.location).name, "offset": tensor.offset or 0}
            found[name] = place | {"dtype": tensor.dtype.numpy().name, "shape": shape}
            del model.graph.initializers[name]
            value.const_value = None
            model.graph.inputs.append(value)
    if found:
        model.metadata_props[CARD_TABLES] = json.dumps(found)
        with appearing(path) as fresh:
            ir.save(model, fresh)
    return tuple(found)
