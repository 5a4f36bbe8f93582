"""Make a store and the answers of its server with whatever version of moerank the current directory holds.

    cd OLD_CHECKOUT && .venv/bin/python HERE/make_store.py OUT

OUT gets ``store.tar.xz`` (the model `shop` in two versions: top-k gate with a batched graph, softmax gate) and
``answers.json`` (what the server of that version answered). All data are drawn by make_shop.py from a fixed seed.
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VARIANTS = (["--set", "export.packed=true"], ["--set", "model.gate={name: softmax}"])
REQUESTS: list[list[str]] = [
    ["--user", "s1", "--items", "3,14,15,9,999", "--context", "surface=home"],
    ["--user", "s59", "--items", ",".join(map(str, range(40))), "--context", "surface=search"],
    ["--user", "nobody", "--items", "0,1,2", "--context", "surface=nowhere"],
    ["--items", "5,6"],
]


def moerank(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {"PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def served(store: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "serving", str(store), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        port = next(found[1] for line in child.stderr if (found := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
        yield f"127.0.0.1:{port}"
        child.terminate()


def answers(store: Path, work: Path) -> list[dict[str, Any]]:
    with served(store) as target:
        asked = [(request, moerank("rank", *request, "--target", target, "--json", cwd=work)) for request in REQUESTS]
    return [{"request": request, "answer": json.loads(text)} for request, text in asked]


def main(out: Path) -> None:
    recorded = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "shop.yaml").write_bytes((HERE / "shop.yaml").read_bytes())
        subprocess.run([sys.executable, HERE / "make_shop.py"], cwd=work, check=True)
        for variant in VARIANTS:
            moerank("run", "shop.yaml", *variant, cwd=work)
            recorded += answers(work / "runs/shop/store", work)
        with tarfile.open(out / "store.tar.xz", "w:xz") as archive:
            archive.add(work / "runs/shop/store", "store")
    (out / "answers.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
