"""The verb `rank`: ask a server to rank candidates for a user, and print the answer as a table."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING

from contract.errors import ConfigError
from pipeline.cli.server_address import add_connection, credentials_from, metadata_from
from pipeline.cli.verb import Verb, add_json, respond

if TYPE_CHECKING:
    from serving.client.client_response import RankResult
    from serving.graph.answer import ExpertUse
from pipeline.cli.request_arguments import context_from


def _rank_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--target", default="127.0.0.1:50051", help="the server's HOST:PORT [%(default)s]")
    parser.add_argument("--user", help="the user's id; leave it out for an unknown visitor")
    parser.add_argument("--items", required=True, help="the candidates' ids with commas between them")
    parser.add_argument("--text-ids", action="store_true", help="ids are strings, also those that look like numbers")
    parser.add_argument("--context", action="append", default=[], metavar="NAME=VALUE", help="a feature of the moment")
    parser.add_argument("--model", default="", help="which model, where the server has several")
    parser.add_argument("--top-k", type=int, default=0, help="order only the best K")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to wait for an answer [%(default)s]")
    parser.add_argument("--score", default="", metavar="NAME", help="order by this formula, where there are several")
    parser.add_argument("--greedy", action="store_true", help="do not explore, where the server does")
    parser.add_argument("--debug", action="store_true", help="also tell which experts and values the answer took")
    add_connection(parser)
    add_json(parser)


def _rank(args: Namespace) -> None:
    from serving.client.blocking_client import RankingClient  # noqa: PLC0415 - keeps `moerank --help` fast

    names = [name for name in args.items.split(",") if name]
    if not names:
        message = f"--items {args.items!r} names no candidate; write ids with commas between them, such as 50,100,181"
        raise ConfigError(message)
    numeric = not args.text_ids and all(name.lstrip("-").isdecimal() for name in names)
    items: list[int] | list[str] = [int(name) for name in names] if numeric else names
    user = int(args.user) if args.user and not args.text_ids and args.user.lstrip("-").isdecimal() else args.user
    context, way = context_from(args.context), credentials_from(args)
    with RankingClient(args.target, seconds=args.seconds, credentials=way, metadata=metadata_from(args)) as client:
        how = {"top_k": args.top_k, "model": args.model, "debug": args.debug, "score": args.score}
        result = client.rank(user, items, context, greedy=args.greedy, **how)
    respond(args, as_json(result), table(result))


def as_json(result: "RankResult") -> dict[str, object]:
    """A ranking answer with plain values; scores and predictions are in the order of `items`."""
    experts = {} if result.experts is None else {"experts": _experts(result.experts)}
    sources = {"sources": dict(result.answer.sources)} if result.answer.sources else {}
    drawn = {} if result.propensities is None else {"propensities": result.propensities.tolist()}
    return {
        "model": result.model,
        "version": result.version,
        "arm": result.arm,
        "request_id": result.request_id,
        "stage": result.stage,
        "score_name": result.answer.score_name,
        "score_version": result.answer.score_version,
        "exploration": result.answer.exploration,
        **drawn,
        "items": list(result.items),
        "ranked": result.ranked,
        "scores": result.scores.tolist(),
        "predictions": {task: values.tolist() for task, values in result.predictions.items()},
        "unknown_user": result.unknown_user,
        "unknown_items": result.unknown_items,
        **experts,
        **sources,
    }


def _experts(use: "ExpertUse") -> dict[str, object]:
    gates = [{"level": g.level, "tasks": list(g.tasks), "weights": g.weights.tolist()} for g in use.gates]
    return {"union_over_n": use.union_over_n, "gates": gates}


def table(result: "RankResult", titles: dict[int | str, str] | None = None, rows: int = 0) -> list[str]:
    """A ranking answer as lines: rank, id, score and each task, best first; `rows` 0 shows all."""
    tasks = list(result.predictions)
    header = f"{'rank':>4}  {'item':>8}  {'score':>8}  " + "  ".join(f"{task:>10}" for task in tasks)
    lines = [f"{result.model} version {result.version}", header]
    for rank, position in enumerate(result.answer.order[: rows or None].tolist(), start=1):
        item = result.items[position]
        values = "  ".join(f"{float(result.predictions[task][position]):>10.4f}" for task in tasks)
        title = f"  {titles.get(item, '')}" if titles else ""
        lines.append(f"{rank:>4}  {item:>8}  {float(result.scores[position]):>8.4f}  {values}{title}")
    if result.unknown_user:
        lines.append("the server does not know this user")
    if result.unknown_items:
        lines.append(f"the server does not know: {', '.join(map(str, result.unknown_items))}")
    if result.stage:
        lines.append(f"less than the whole model answered: {result.stage}")
    if result.answer.exploration:
        lines.append(f"the ranking was drawn by {result.answer.exploration}; --greedy ranks by the score alone")
    experts = [] if result.experts is None else _expert_lines(result.experts)
    return lines + experts + _source_lines(result.answer.sources)


def _source_lines(sources: Mapping[str, str]) -> list[str]:
    by_source: dict[str, list[str]] = {}
    for feature, source in sources.items():
        by_source.setdefault(source, []).append(feature)
    return [f"{source}: {', '.join(features)}" for source, features in sorted(by_source.items())]


def _expert_lines(use: "ExpertUse") -> list[str]:
    if not use.gates:
        return ["experts: the model has no gates, or was exported before graphs reported them; export it again"]
    lines = [f"experts: {use.union_over_n:.0%} of all were used, the mean over the candidates"]
    for gate in use.gates:
        used = (f"{e} {weight:.2f}" for e, weight in enumerate(gate.weights.mean(axis=0).tolist()) if weight)
        lines.append(f"  level {gate.level}, {', '.join(gate.tasks)}: mean weights {', '.join(used) or 'none'}")
    return lines


VERB = Verb(
    "rank",
    "ask a server to rank candidates for a user, and print the answer as a table",
    "moerank rank --user 42 --items 50,100,181 --target 127.0.0.1:50051",
    _rank_arguments,
    _rank,
)
