"""One number of each row's vector, out of a column of lists."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import DataError


def vector_element(column: pa.Array, element: int, width: int, name: str) -> pa.Array:
    """Number `element` of each row's list of `width` numbers; null where the row has none.

    Raises:
        DataError: the column holds no lists of numbers, or a list of another length.

    >>> vector_element(pa.array([[1.0, 2.0], None], pa.list_(pa.float32())), 1, 2, "text").to_pylist()
    [2.0, None]
    """
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        message = f"feature {name!r} is a vector, but the column is {kind}: it takes lists of numbers"
        raise DataError(message)
    lengths = pc.list_value_length(column)
    wrong = pc.fill_null(pc.not_equal(lengths, width), False)  # noqa: FBT003 Arrow takes it by place only
    if pc.any(wrong).as_py():
        seen = lengths.filter(wrong)[0].as_py()
        message = f"feature {name!r} has width {width}, but {pc.sum(wrong).as_py()} rows hold another, such as {seen}"
        raise DataError(message)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    flat = column.drop_null().flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    values = np.full(len(column), np.nan)
    values[present] = flat[element::width]
    return pa.array(values, from_pandas=True)
