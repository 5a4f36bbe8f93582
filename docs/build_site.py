"""Write the documentation as a site into build/site: ``python docs/build_site.py``, what `make site` runs.

The pages keep their places, so that their links hold in the repository and on the site. Files that a page links to go
along, and a folder becomes a page that lists its files. Each link and each anchor of the finished site is followed.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
SOURCES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "*/README.md")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


class Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a tag leads and what it is called."""
        del tag
        values = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := values.get(name)) is not None]
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name)) is not None}


def gather() -> None:
    """Copy the pages, what they link to, and a list of each folder that they link to."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = sorted({page for pattern in SOURCES for page in ROOT.glob(pattern)})
    for page in pages:
        _copy(page)
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / unquote(link)).resolve()
            if target.is_dir() and not (target / "README.md").exists():
                _list(target)
            elif target.is_file() and target not in pages:
                _copy(target)
    (PAGES / "README.md").rename(PAGES / "index.md")
    for page in PAGES.rglob("*.md"):
        page.write_text(_with_pages(page), encoding="utf-8")


def _with_pages(page: Path) -> str:
    """The text of a page, its links to folders and to the README as the site has them."""
    return LINK.sub(lambda link: f"]({_as_page(page, link[1])}", page.read_text(encoding="utf-8"))


def _copy(file: Path) -> None:
    target = PAGES / file.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def _list(folder: Path) -> None:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name != "__init__.py"]
    for file in files:
        _copy(file)
    page = PAGES / folder.relative_to(ROOT) / "index.md"
    page.write_text("\n".join([f"# {folder.name}", "", *(f"- [{file.name}]({file.name})" for file in files)]), "utf-8")


def _as_page(page: Path, link: str) -> str:
    """A link to a folder as one to its page; a link to the README as one to the site's first page."""
    target = page.parent / unquote(link)
    if target.resolve() == PAGES / "README.md":
        return link.replace("README.md", "index.md")
    if target.is_dir():
        return f"{link.rstrip('/')}/{'README.md' if (target / 'README.md').exists() else 'index.md'}"
    return link


def broken() -> Iterator[str]:
    """The links of the site that lead nowhere, each with its page."""
    pages = {}
    for file in SITE.rglob("*.html"):
        pages[file] = Links()
        pages[file].feed(file.read_text(encoding="utf-8"))
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            missing = anchor and target in pages and anchor not in pages[target].anchors
            if not target.exists() or missing:
                yield f"{file.relative_to(SITE)}: {link}"


def main() -> int:
    """Write the site; 1 where it does not build or a link leads nowhere."""
    gather()
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=ROOT, check=False)
    if built.returncode:
        return built.returncode
    broken_links = sorted(set(broken()))
    sys.stdout.writelines(f"leads nowhere: {line}\n" for line in broken_links)
    return 1 if broken_links else 0


if __name__ == "__main__":
    sys.exit(main())
