"""`make screenshots`: docs/images anew, from the real runs' reports in docs/reports, as Chromium draws them.

Needs Debian's `chromium` and the package `playwright`, which the Makefile's target brings; neither is needed for
anything else. `python -m tests.screenshots REPORT.json` shows instead how a report of your own looks, in the folder
where it lies.
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

from skill_trainer.report import RunReport, report_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
REPORTS, IMAGES = ROOT / "docs/reports", ROOT / "docs/images"
CHROMIUM = "/usr/bin/chromium"
PHONE, PAGE = 390, 1160
"""CSS pixels."""
COLOURS = 128
"""Of a picture's palette: text on plain grounds needs no more, and the files are a third as large."""


@dataclass(frozen=True)
class Shot:
    """A picture of a page from one section to another, named by the ids of their headings; '' is the page's end."""

    name: str
    report: str
    scheme: str = "light"
    width: int = PAGE
    first: str = ""
    last: str = ""


SHOTS = (
    Shot("top-light", "published", last="gates"),
    Shot("top-dark", "published", "dark", last="gates"),
    Shot("training-light", "published", first="training", last="training"),
    Shot("training-dark", "published", "dark", first="training", last="training"),
    Shot("answers-light", "published", first="answers", last="answers"),
    Shot("answers-dark", "published", "dark", first="answers", last="answers"),
    Shot("forgotten", "forgotten", last="gates"),
    Shot("no-gain", "no-gain", last="gates"),
    Shot("phone-light", "published", width=PHONE, last="gates"),
    Shot("phone-dark", "forgotten", "dark", width=PHONE, last="gates"),
)


def main(arguments: list[str]) -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as work:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for path in map(Path, arguments):
            for scheme in ("light", "dark"):
                for width in (PHONE, PAGE):
                    shot = Shot("", path.stem, scheme, width)
                    page = open_page(browser, shot, path.parent, Path(work))
                    save(page.screenshot(full_page=True), path.with_name(f"{path.stem}-{scheme}-{width}.png"))
        for shot in () if arguments else SHOTS:
            page = open_page(browser, shot, REPORTS, Path(work))
            save(page.screenshot(full_page=True, clip=part(page, shot)), IMAGES / f"report-{shot.name}.png")


def open_page(browser: Browser, shot: Shot, reports: Path, work: Path) -> Page:
    """Returns the open page; fails where it is wider than the screen or the browser has something to complain of."""
    file = work / f"{shot.report}.html"
    file.write_text(report_page(RunReport.parse_json((reports / f"{shot.report}.json").read_bytes())))
    page = browser.new_page(
        viewport={"width": shot.width, "height": 900}, color_scheme=shot.scheme, device_scale_factor=1.5
    )
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == shot.width, f"{shot}: the page is {width} wide"
    assert not complaints, complaints
    return page


def part(page: Page, shot: Shot) -> dict[str, float]:
    """Returns the rectangle of the sections, with a little room around."""
    top = page.locator(f"section:has(> #{shot.first})").bounding_box() if shot.first else None
    bottom = page.locator(f"section:has(> #{shot.last})").bounding_box()
    assert bottom is not None
    start = top["y"] - 12 if top else 0.0
    return {"x": 0, "y": start, "width": shot.width, "height": bottom["y"] + bottom["height"] + 16 - start}


def save(png: bytes, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
