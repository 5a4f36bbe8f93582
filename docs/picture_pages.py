"""Take the pictures of docs/evaluation.md: ``python docs/picture_pages.py`` after a run, with chromium installed.

The newest report below ``runs/`` and ``runs/index.html`` become report.png and runs.png beside this file.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = {"report": "1120,880", "runs": "1120,795"}


def main(workspace: Path) -> None:
    """Open both pages and keep what a window shows."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    reports = sorted(workspace.glob("*/training/*/evaluation/report.html"), key=lambda path: path.stat().st_mtime)
    if browser is None or not reports:
        sys.exit("this needs chromium, and a report below the workspace: run `moerank run` first")
    for name, page in {"report": reports[-1], "runs": workspace / "index.html"}.items():
        with tempfile.TemporaryDirectory() as profile:
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
            picture = [f"--window-size={SIZES[name]}", f"--screenshot={HERE / name}.png", page.resolve().as_uri()]
            subprocess.run([browser, *options, *picture], check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
