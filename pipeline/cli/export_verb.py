"""The verb `export`: turn a run's checkpoint into one ONNX graph, checked against the model itself."""

from argparse import ArgumentParser, Namespace

from contract.files import exclusive
from pipeline.cli.paths import a_run
from pipeline.cli.verb import Verb, respond, run_arguments


def _export_arguments(parser: ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--form", choices=("auto", "sparse", "dense"), help="which experts are computed for a row")
    parser.add_argument("--require-sparse", action="store_true", default=None, help="refuse gates that are not sparse")
    parser.add_argument(
        "--quantize", choices=("auto", "none", "experts"), help="int8 experts and towers, if they lose nothing"
    )
    parser.add_argument("--tables", choices=("fp32", "fp16", "int8"), help="smaller tables, if they lose nothing")
    parser.add_argument(
        "--calibration", choices=("auto", "none", "platt", "isotonic"), help="fit probabilities on the validation rows"
    )
    parser.add_argument(
        "--prepare",
        choices=("auto", "items", "pairs", "users", "all", "none"),
        help="compute at export what hangs on the item alone, or on pairs and users as well",
    )
    parser.add_argument("--item-rows", choices=("fp32", "fp16", "int8"), help="smaller rows of these, likewise")
    parser.add_argument(
        "--cuda",
        choices=("auto", "none", "fp32", "fp16", "int8", "int4"),
        help="graphs for a card, in this precision as well",
    )
    parser.add_argument("--cuda-form", choices=("auto", "wide", "moe"), help="how these compute the experts")
    parser.add_argument(
        "--packed", action="store_true", default=None, help="a second graph for several requests per run"
    )


def _export(args: Namespace) -> None:
    from pipeline.flow import steps  # noqa: PLC0415 - keeps `moerank --help` fast

    names = ["form", "require_sparse", "quantize", "tables", "calibration", "packed", "prepare", "item_rows"]
    names += ["cuda", "cuda_form"]
    run = steps.Run.open(a_run(args.run_dir)).exported_as(**{name: getattr(args, name) for name in names})
    with exclusive(run.config.root):
        record = steps.export_model(run)
    lines = [f"exported: {run.export_dir}", f"next: moerank publish {run.directory}"]
    respond(args, {"directory": str(run.export_dir), **record.result}, lines)


VERB = Verb(
    "export",
    "turn a run's checkpoint into one ONNX graph, checked against the model itself",
    "moerank export runs/movielens/training/RUN",
    _export_arguments,
    _export,
)
