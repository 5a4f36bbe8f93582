"""What verbs that evaluate share: how metrics are judged."""


def method_from(replicates: int | None) -> dict[str, object]:
    """The evaluation settings that a command line changes."""
    return {} if replicates is None else {"replicates": replicates}
