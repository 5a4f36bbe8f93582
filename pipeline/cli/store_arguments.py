"""What verbs that change a store need to know: which store, which model, which version."""

from argparse import ArgumentParser

from pipeline.cli.verb import add_json


def store_arguments(parser: ArgumentParser) -> None:
    """A store, here or behind a URL, and one of its models."""
    parser.add_argument("store", help="the model store: a directory, or a URL such as s3://bucket/models")
    parser.add_argument("model", help="the model's name")


def version_arguments(parser: ArgumentParser) -> None:
    """As `store_arguments`, and one of the model's versions."""
    store_arguments(parser)
    parser.add_argument("version", type=int, help="the version's number")
    add_json(parser)


def add_delta(parser: ArgumentParser) -> None:
    """``--delta``, which reads True without a version, and ``--delta BASE``."""
    parser.add_argument(
        "--delta",
        type=int,
        nargs="?",
        const=True,
        metavar="BASE",
        help="ship only what changed since version BASE; without a number, since the current one there",
    )


def is_url(store: str) -> bool:
    """Whether a store lies behind a URL."""
    return "://" in store
