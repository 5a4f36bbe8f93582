"""The house: no file too long, no name twice, no tower of files, no package that imports upward.

The directions between packages, and between the rooms of each, are import-linter's contracts in pyproject.toml.
"""

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
GIT = shutil.which("git") or "git"
PACKAGES = ("contract", "features", "models", "serving", "pipeline", "moerank")
MOST_LINES, MOST_FLOORS, MOST_FUNCTION_LINES = 350, 8, 80
LEAST_PROPERTIES, MOST_OWN_WORDS = 60, 40
# Each package has one; the name says what they are.
EVERYWHERE = {"__init__.py", "__main__.py"}


def sources(*folders: str) -> list[Path]:
    listed = subprocess.run([GIT, "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split() if "/stubs/" not in name]
    return [file for file in files if not folders or file.relative_to(ROOT).parts[0] in folders]


def twice(places: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, file in places:
        found[name].append(file.relative_to(ROOT).as_posix())
    return {name: files for name, files in found.items() if len(files) > 1}


def test_no_file_is_too_long() -> None:
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_bytes().splitlines()) for file in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = {}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                found[f"{file.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: lines for name, lines in found.items() if lines > MOST_FUNCTION_LINES} == {}


def test_no_file_name_stands_twice() -> None:
    assert twice((file.name, file) for file in sources(*PACKAGES) if file.name not in EVERYWHERE) == {}


def test_no_class_name_stands_twice() -> None:
    places = [
        (node.name, file)
        for file in sources(*PACKAGES)
        for node in ast.parse(file.read_bytes()).body
        if isinstance(node, ast.ClassDef)
    ]
    assert twice(places) == {}


def test_one_module_computes_sha256() -> None:
    users = {
        file.relative_to(ROOT).as_posix() for file in sources(*PACKAGES) if "hashlib.sha256" in file.read_text("utf-8")
    }
    assert users == {"contract/sha256.py"}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def room_of(module: str, depth: int) -> str:
    """The part of a package that a module lies in: its sub-package, or the module itself."""
    return ".".join(module.split(".")[:depth])


def imports_between(package: str, depth: int) -> dict[str, set[str]]:
    """Who imports whom among the rooms below a package; imports of the package itself are left out."""
    modules = {module for module in graph().modules if module.startswith(f"{package}.") and ".stubs" not in module}
    rooms: dict[str, set[str]] = {room_of(module, depth): set() for module in modules}
    for module in modules:
        here = room_of(module, depth)
        imported = graph().find_modules_directly_imported_by(module) & modules
        rooms[here] |= {room_of(other, depth) for other in imported} - {here}
    return rooms


def floors(rooms: Mapping[str, set[str]]) -> int:
    """The longest chain of imports.

    Raises:
        ValueError: a circle.
    """
    heights: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            message = " -> ".join((*above, room))
            raise ValueError(message)
        if room not in heights:
            heights[room] = 1 + max((height(other, (*above, room)) for other in rooms[room]), default=0)
        return heights[room]

    return max((height(room, ()) for room in rooms), default=0)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_of_a_package_stand_on_few_floors_and_in_no_circle(package: str) -> None:
    assert floors(imports_between(package, 2)) <= MOST_FLOORS


@pytest.mark.parametrize("package", PACKAGES)
def test_the_files_of_a_room_stand_on_few_floors_and_in_no_circle(package: str) -> None:
    rooms = {room for room in imports_between(package, 2) if (ROOT / room.replace(".", "/")).is_dir()}
    assert {room: n for room in rooms if (n := floors(imports_between(room, 3))) > MOST_FLOORS} == {}


def test_a_circle_and_a_tower_are_seen() -> None:
    assert floors({"a": {"b"}, "b": {"c"}, "c": set()}) == 3
    with pytest.raises(ValueError, match="a -> b -> a"):
        floors({"a": {"b"}, "b": {"a"}})


def test_the_suite_has_its_properties() -> None:
    """As `pytest --collect-only -m hypothesis` lists them, cases of one counted once."""
    given = {
        f"{file.name}:{node.name}"
        for file in sources("tests")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "given"
    }
    assert len(given) >= LEAST_PROPERTIES


def test_the_glossary_has_at_most_40_words_of_our_own() -> None:
    rows = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    words = [row.split("|")[1].strip() for row in rows if row.startswith("| ") and not row.startswith("| word |")]
    assert len(words) == len(set(words)) <= MOST_OWN_WORDS


def test_every_file_that_a_page_names_is_there() -> None:
    """Also those of docs/naming.md, whose forty answers must be files."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md")]
    folders = "|".join((*PACKAGES, "tests", "benchmarks", "docs", "deploy", "requirements"))
    missing = {
        f"{page.relative_to(ROOT)}: {name}"
        for page in pages
        for name in re.findall(rf"`((?:{folders})/[\w/.-]+)`", page.read_text(encoding="utf-8"))
        if "NAME" not in name and not (ROOT / name).exists()
    }
    assert missing == set()


def test_every_file_that_a_packages_readme_names_is_there() -> None:
    missing = {
        f"{package}/{name}"
        for package in PACKAGES
        for name in re.findall(r"`([\w/]+(?:/|\.py))`", (ROOT / package / "README.md").read_text(encoding="utf-8"))
        if not (ROOT / package / name).exists() and not (ROOT / name).exists()
    }
    assert missing == set()


@pytest.mark.parametrize("contents", ["docs/index.md", "zensical.toml"])
def test_every_page_has_its_place_in_the_order(contents: str) -> None:
    text = (ROOT / contents).read_text(encoding="utf-8")
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages - {"index.md"} if page not in text} == set()


@pytest.mark.parametrize(("part", "claim"), [(1, "Now {} of 40 are"), (2, "{} of 40 are right")])
def test_the_page_of_names_asks_forty_questions_a_round_and_counts_its_misses(part: int, claim: str) -> None:
    rounds = (ROOT / "docs" / "naming.md").read_text(encoding="utf-8").split("\n## ")
    answers = re.findall(r"^\| \d+ \| .* \| `[\w/.]+` \| (yes|no)", rounds[part], re.MULTILINE)
    assert len(answers) == 40
    assert claim.format(answers.count("yes")) in " ".join(rounds[part].split())
    assert answers.count("yes") >= 36
