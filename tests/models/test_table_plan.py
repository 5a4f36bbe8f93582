"""Where tables lie, in words."""

from models.table_plan import TablePlace, in_words


def test_the_plan_says_which_table_lies_where_and_why() -> None:
    large = TablePlace("user", 2_000_000, 16, "row_wise", {0: 64_000_000, 1: 64_000_000})
    small = [TablePlace(f"t{n}", 11, 16, "table_wise", {n % 2: 704}, asked=n == 0) for n in range(10)]
    lines = in_words([*small, large], most=2)
    assert lines[0] == (
        "table user: 2,000,000 rows of 16, row-wise, rank 0 61.0 MiB, rank 1 61.0 MiB: its rows are shared out, which "
        "the planner found cheaper than one rank with all of them"
    )
    assert lines[1] == "table t0: 11 rows of 16, table-wise, rank 0 704 bytes: as train.tables says"
    assert lines[2] == "9 smaller tables: 6.2 KiB together"
    assert lines[3] == "tables in all: rank 0 61.0 MiB, rank 1 61.0 MiB, besides the optimiser's state"
