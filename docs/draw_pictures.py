"""Draw the pictures of docs/architecture.md: ``python docs/draw_pictures.py`` writes them beside this file."""

import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
STYLE = """
.card { fill: #f7f8fa; stroke: #c9ced6 }
.box { fill: #ffffff; stroke: #8a94a3 }
.file { fill: #eef3fb; stroke: #5b7fb5 }
.gate { fill: #fdf3e0; stroke: #b98a2f }
.who { fill: #e9f5ee; stroke: #4c9168 }
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1d2530; text-anchor: middle }
.name { font-weight: 600 }
.small { font-size: 11px; fill: #4b5563 }
path { fill: none; stroke: #4b5563; stroke-width: 1.4; marker-end: url(#head) }
"""
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<polygon points="0,0 8,4 0,8" fill="#4b5563"/></marker></defs>'
)
WIDTH, HEIGHT, STEP_X, STEP_Y = 150, 52, 188, 92
Box = tuple[float, float, str, str, str]
"""Column, row, class, name, what it says below."""
Arrow = tuple[str, str]

DATA_PATH: tuple[str, list[Box], list[Arrow]] = (
    "From Parquet to an answered request: features, training, export, evaluation, gate, store, server, request log",
    [
        (0, 0, "file", "raw Parquet", "events, users, items"),
        (1, 0, "box", "features.build", "point in time, encoded"),
        (2, 0, "file", "splits, schema", "and online tables"),
        (3, 0, "box", "training.train", "TorchRec, best epoch"),
        (4, 0, "file", "checkpoint", "loads on any ranks"),
        (4, 1, "box", "models.export", "compared with the model"),
        (3, 1, "file", "ONNX graph", "and golden requests"),
        (2, 1, "box", "evaluation", "intervals, baselines"),
        (1, 1, "gate", "quality gate", "rules of the project"),
        (0, 1, "file", "store", "MODEL/VERSION, current"),
        (0, 2, "box", "server", "gRPC, hot swap"),
        (1, 2, "who", "your backend", "rank these for this user"),
        (0, 3, "file", "request log", "events of a later build"),
    ],
    [
        ("raw Parquet", "features.build"),
        ("features.build", "splits, schema"),
        ("splits, schema", "training.train"),
        ("training.train", "checkpoint"),
        ("checkpoint", "models.export"),
        ("models.export", "ONNX graph"),
        ("ONNX graph", "evaluation"),
        ("evaluation", "quality gate"),
        ("quality gate", "store"),
        ("store", "server"),
        ("your backend", "server"),
        ("server", "request log"),
    ],
)
INCREMENTAL: tuple[str, list[Box], list[Arrow]] = (
    "An incremental build: days that did not change are kept, the rest is computed from the carry-over state",
    [
        (0, 0, "file", "day 1", "stamp unchanged"),
        (1, 0, "file", "day 2", "stamp unchanged"),
        (2, 0, "gate", "day 3", "a late row: differs"),
        (3, 0, "gate", "day 4", "after a change"),
        (4, 0, "gate", "day 5", "new"),
        (0, 1, "who", "kept rows 1", "raw and encoded"),
        (1, 1, "who", "kept rows 2", "and carry-over state"),
        (2, 1, "box", "compute rows 3", "from the state of day 2"),
        (3, 1, "box", "compute rows 4", ""),
        (4, 1, "box", "compute rows 5", ""),
        (2, 2, "file", "raw dataset", "all days in order"),
        (3, 2, "box", "fit, encode", "kept parts are linked"),
        (4, 2, "file", "splits", "as of a whole build"),
    ],
    [
        ("day 1", "kept rows 1"),
        ("day 2", "kept rows 2"),
        ("day 3", "compute rows 3"),
        ("day 4", "compute rows 4"),
        ("day 5", "compute rows 5"),
        ("kept rows 2", "compute rows 3"),
        ("compute rows 3", "compute rows 4"),
        ("compute rows 4", "compute rows 5"),
        ("kept rows 1", "raw dataset"),
        ("compute rows 5", "raw dataset"),
        ("raw dataset", "fit, encode"),
        ("fit, encode", "splits"),
    ],
)
REQUEST: tuple[str, list[Box], list[Arrow]] = (
    "A ranking request: front, pool, codec, registry, look-up and encoding, graph, score, answer",
    [
        (0, 0, "who", "client", "one deadline"),
        (1, 0, "box", "front", "grpcio or native"),
        (2, 0, "gate", "pool", "or refused at once"),
        (3, 0, "box", "codec", "bytes to values"),
        (4, 0, "box", "registry", "version, canary, shadow"),
        (4, 1, "box", "look-up", "user, items, pairs"),
        (4, 2, "file", "online tables", "memory-mapped"),
        (3, 2, "file", "pushed features", "users, items, pairs"),
        (3, 1, "box", "encoder", "that of training"),
        (2, 1, "box", "ONNX graph", "or a cheaper stage"),
        (1, 1, "box", "score", "formula, order"),
        (0, 1, "box", "answer", "and what was unknown"),
        (1, 2, "file", "metrics, traces", "Prometheus, OpenTelemetry"),
    ],
    [
        ("client", "front"),
        ("front", "pool"),
        ("pool", "codec"),
        ("codec", "registry"),
        ("registry", "look-up"),
        ("online tables", "look-up"),
        ("pushed features", "look-up"),
        ("look-up", "encoder"),
        ("encoder", "ONNX graph"),
        ("ONNX graph", "score"),
        ("score", "answer"),
        ("answer", "client"),
        ("score", "metrics, traces"),
    ],
)


def place(box: Box) -> tuple[float, float]:
    return 24 + box[0] * STEP_X, 24 + box[1] * STEP_Y


def rectangle(box: Box) -> str:
    x, y = place(box)
    middle = x + WIDTH / 2
    name_y = y + (22 if box[4] else 31)
    return (
        f'<rect class="{box[2]}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text class="name" x="{middle}" y="{name_y}">{escape(box[3])}</text>'
        f'<text class="small" x="{middle}" y="{y + 40}">{escape(box[4])}</text>'
    )


def line(start: Box, end: Box) -> str:
    """From the nearer sides of two boxes: side to side in a row, else bottom to top."""
    (x1, y1), (x2, y2) = place(start), place(end)
    if y1 == y2:
        right = x2 > x1
        return f'<path d="M{x1 + WIDTH * right} {y1 + HEIGHT / 2} L{x2 + WIDTH * (not right)} {y2 + HEIGHT / 2}"/>'
    down = y2 > y1
    return f'<path d="M{x1 + WIDTH / 2} {y1 + HEIGHT * down} L{x2 + WIDTH / 2} {y2 + HEIGHT * (not down)}"/>'


def picture(title: str, boxes: list[Box], arrows: list[Arrow]) -> str:
    named = {box[3]: box for box in boxes}
    width = 24 + STEP_X * 4 + WIDTH + 24
    height = 24 + STEP_Y * max(box[1] for box in boxes) + HEIGHT + 24
    lines = [line(named[start], named[end]) for start, end in arrows]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>{HEAD}",
            f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>',
            *lines,
            *map(rectangle, boxes),
            "</svg>\n",
        ]
    )


PICTURES = {"data_path": DATA_PATH, "incremental_build": INCREMENTAL, "request": REQUEST}


def main(folder: Path) -> None:
    for name, content in PICTURES.items():
        (folder / f"{name}.svg").write_text(picture(*content), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
