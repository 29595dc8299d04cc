"""Takes the pictures of docs/page.md: of the stand-in, and the one of the flow of a run that has much to do."""

import io
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from browser import PeerwatchServer, StandInServer, Visit, chromium, visit
from PIL import Image
from playwright.sync_api import Browser
from support import ROOT

from peerwatch.studies.generate import Recipe, write_logs

RECIPE = Recipe(users=2000, batch_events=20_000, stream_events=5000)
COLOURS = 256
Scheme = Literal["light", "dark"]


def main() -> None:
    """Write a picture a view."""
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        logs = Path(name)
        write_logs(logs, RECIPE, force=True)
        with StandInServer(logs) as server:
            url = server.url
            seq, user = telling(browser, url)
            settled = "[data-settled=true]"
            take(browser, url, "flagged", f"#/flagged/{seq}", settled)
            take(browser, url, "dark", f"#/flagged/{seq}", settled, scheme="dark", width=400)
            take(browser, url, "user", f"#/user/{user}/{seq - 1}", settled)
            take(browser, url, "sweep", "#/sweep", "#sweep .heat table", press="Run", height=640)
        with PeerwatchServer(logs) as run, growing(logs / "stream_log.json"):
            take(browser, run.url, "flow", "#/flow", "#flow .uplot", scheme="dark")


@contextmanager
def growing(log: Path) -> Iterator[None]:
    """A log that grows meanwhile, by its own lines again and again."""
    lines, over = log.read_bytes() * 10, threading.Event()

    def grow() -> None:
        with log.open("ab") as file:
            while not over.wait(0.5):
                file.write(lines)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def telling(browser: Browser, url: str) -> tuple[int, str]:
    """The newest flagged purchase whose verdict hangs on single friendships or purchases, of those that are listed."""
    search = """async () => {
        const {decisions} = await (await fetch('decisions?flagged=true&order=desc&limit=60')).json();
        for (const {seq, user} of decisions) {
            const why = await (await fetch(`explain/${seq}`)).json();
            if (why.without?.length > 1 && why.without.some((one) => one.friendship)) return [seq, user];
        }
        return [decisions[0].seq, decisions[0].user];
    }"""
    with visit(browser, url) as tab:
        tab.open()
        seq, user = tab.page.evaluate(search)
        return seq, user


def take(
    browser: Browser, url: str, name: str, view: str, ready: str, *, scheme: Scheme = "light", width: int = 1440,
    height: int = 900, press: str | None = None,
) -> None:  # fmt: skip
    """Write one picture, with few colours, so that it stays small."""
    size = {"width": width, "height": height}
    with visit(browser, url, viewport=size, color_scheme=scheme, device_scale_factor=1) as tab:
        tab.open(view)
        if press is not None:
            tab.page.get_by_role("button", name=press).click()
        tab.page.locator(ready).first.wait_for()
        look(tab)
        image = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
        path = ROOT / "docs" / f"service-{name}.png"
        image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size // 1024} KiB")


def look(tab: Visit) -> None:
    """Give the charts over time some seconds to show."""
    tab.page.wait_for_function("() => performance.now() > 8000")


if __name__ == "__main__":
    main()
