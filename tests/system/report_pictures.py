"""Pictures of a report, all four by default; `report` is the README's.

PYTHONPATH=tests .venv/bin/python tests/system/report_pictures.py REPORT.html DIRECTORY [NAME …]
"""

import sys
from pathlib import Path

from browser import browser_page

# Name: width, height, colours; None takes the whole page.
PICTURES = {
    "report": (1000, 1250, "light"),
    "report-dark": (1000, 1250, "dark"),
    "report-phone": (390, None, "light"),
    "report-phone-dark": (390, None, "dark"),
    "report-whole": (1000, None, "light"),
    "report-whole-dark": (1000, None, "dark"),
}


def take(report: Path, directory: Path, names: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    html = report.read_text(encoding="utf-8")
    for name in names:
        width, height, colours = PICTURES[name]
        with browser_page(width, height or 1000) as page:
            page.emulate_media(color_scheme=colours)
            page.set_content(html)
            page.screenshot(path=directory / f"{name}.png", full_page=height is None)
            print(directory / f"{name}.png")


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(PICTURES))
