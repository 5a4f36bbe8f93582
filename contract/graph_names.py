"""Names that the exporter writes and the server reads: a graph's inputs, outputs and properties, a bundle's files."""

from contract.inputs import PARTS

ARRAYS = ("ids", "list_values", "list_lengths", "dense")
INPUT_NAMES = tuple(f"{part}_{array}" for part in PARTS for array in ARRAYS)
"""What a graph may ask for; see `contract.inputs.Inputs.arrays`. It asks only for those that have any feature."""
REQUEST_OF = "candidate_request"
"""The input int64 [candidates] of a batched graph that names each candidate's request."""
ITEM_ROWS = "candidate_rows"
"""The input int64 [candidates] of a prepared graph: each candidate's row of the tables, the last for unknown items."""
SHARES = "candidate_shares"
"""The input float32 [candidates, units] of a graph whose prepared rows lie outside: each candidate's sum of them."""
GATE_OUTPUT = "expert_weights_"
"""Before a gate's number: outputs that the graph computes anyway, so that naming them costs a run nothing."""

# A graph's properties (`metadata_props` in ONNX).
SCHEMA_FINGERPRINT = "schema_fingerprint"
GATES = "gates"
FORM = "form"
FORM_REASON = "form_reason"
TABLES = "tables"
QUANTISED = "quantised"
BATCHED = "packed"
PREPARED = "prepared"
SHARED = "shared"
"""The online tables whose rows were prepared outside of the graph, and how they are stored."""
CUDA_PRECISIONS = "cuda_precisions"
CARD_TABLES = "card_tables"
"""Of a graph for a card whose tables are inputs: by input name, where in the bundle the table lies."""
GOLDEN_TOLERANCE = "golden_tolerance"
"""Of a graph that is not meant to equal the model: how far its answers to golden requests may be off."""

# A bundle's files.
MODEL_FILE = "model.onnx"
PACKED_FILE = "packed.onnx"
PREPARED_FILE = "prepared.onnx"
CHEAP_FILE, FEWER_FILE = "cheap.onnx", "fewer.onnx"
"""A head that scores many candidates for the experts to choose among, and the model with fewer experts per row."""
ITEM_PRIOR_FILE = "item_prior.parquet"
"""Each item's mean labels, by which requests are ranked that there is no time to compute."""
MOST_EXPERTS = "most_experts"
"""Of a graph with fewer experts: the input int64 [1] of how many a gate may choose for a row, and the property that
names the number whose cost the export measured."""
CASCADE = "cascade"
"""Property of a cheap head: how many of its best candidates the experts see."""
CUDA_MODEL_FILE = "model.cuda.onnx"
"""For a card, of one request per run."""
CUDA_PACKED_FILE = "packed.cuda.onnx"
"""For a card, of any number of requests per run."""
CUDA_VARIANTS = ("fp16", "int8", "int4")
"""Precisions of a card's experts that graphs of their own compute: halves, and halves times weights of 8 or 4 bits."""
TABLES_FILE = "tables.bin"
PREPARED_ROWS_FILE = "prepared.bin"
SHARES_FOLDER = "shares"
"""The rows of `SHARED` tables."""
PREPARED_GOLDEN_FILE = "golden_prepared.npz"
"""Raw golden requests as the graph over `SHARED` tables answers them."""
GOLDEN_FILE = "golden.npz"
RAW_GOLDEN_FILE = "golden_requests.json"
"""The golden requests that are raw, by the name of their case: they go through the request encoder first."""
ONLINE_FOLDER = "online"

RECIPE_FILE, PRIORS_FILE = "recipe.json", "priors.json"
"""A bundle's recipe with all defaults filled in, and the means over training rows that its rates are smoothed by."""


def variant_of(name: str, precision: str) -> str:
    """The name of a graph's variant in one of the `CUDA_VARIANTS`.

    >>> variant_of("model.cuda.onnx", "fp16")
    'model.cuda.fp16.onnx'
    """
    return f"{name.removesuffix('.onnx')}.{precision}.onnx"


def int8_of(name: str) -> str:
    """The name of a graph's variant with int8 experts, for processors.

    >>> int8_of("prepared.onnx")
    'prepared.int8.onnx'
    """
    return variant_of(name, "int8")
