"""Whole numbers of 64 bits."""

INT64 = (-(2**63), 2**63 - 1)
"""The least and the greatest."""


def signed(value: int) -> int:
    """A whole number of 64 unsigned bits as the signed one with the same bits, under which it is hashed and sent.

    Example:
        >>> signed(2**64 - 1), signed(7), signed(-7)
        (-1, 7, -7)
    """
    return value - 2**64 if 2**63 <= value < 2**64 else value
