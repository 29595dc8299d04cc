"""The page on a real run that follows a log."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PeerwatchServer, Visit, chromium, visit
from playwright.sync_api import Browser, expect
from support import purchase

from peerwatch.studies.generate import Recipe, write_logs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Playwright keeps an event loop in this thread, which these tests may block: nothing else runs on it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[PeerwatchServer]:
    """A run on generated logs, with its service."""
    write_logs(tmp_path, Recipe(users=300, batch_events=4000, stream_events=2000), force=True)
    with PeerwatchServer(tmp_path) as found:
        yield found


@pytest.fixture
def tab(browser: Browser, run: PeerwatchServer) -> Iterator[Visit]:
    """A tab, not yet on the page."""
    with visit(browser, run.url, viewport={"width": 1440, "height": 900}) as found:
        yield found


def written(run: PeerwatchServer) -> int:
    """How many lines the output has."""
    return (run.logs / "flagged.json").read_bytes().count(b"\n")


def append(run: PeerwatchServer, user: str, amount: str) -> None:
    """A purchase that is far above everything there is, and after it."""
    with (run.logs / "stream_log.json").open("ab") as log:
        log.write(purchase(user, amount, "2030-01-01 00:00:00"))


def test_the_page_follows_a_run_through_its_death(run: PeerwatchServer, tab: Visit) -> None:
    """It lists what the run writes, each once: what was there, what is appended, what came while the run was dead."""
    tab.open()
    grid = tab.page.locator("#grid")
    before = written(run)
    expect(grid).to_have_attribute("aria-rowcount", str(before + 1))
    append(run, "1", "99999")
    expect(grid.locator(".row", has_text="99,999")).to_be_visible()
    run.kill()
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "waiting")
    append(run, "1", "88888888")
    run.start()
    expect(grid.locator(".row", has_text="88,888,888")).to_be_visible()
    expect(grid).to_have_attribute("aria-rowcount", str(before + 3))
    assert written(run) == before + 2
    expect(tab.page.locator("#figures")).to_contain_text("running")


def test_a_label_reaches_the_run(run: PeerwatchServer, tab: Visit) -> None:
    """It stands in the feedback file from which the run reads labels, and is there when the page is opened again."""
    tab.open()
    first = tab.page.locator("#grid .row").first
    seq = int(first.get_attribute("data-seq") or "0")
    first.click()
    panel = tab.page.locator("#decision")
    panel.get_by_role("button", name="Anomaly").click()
    expect(panel.locator(".labels [role=status]")).to_have_text("Saved")
    lines = (run.state / "feedback.jsonl").read_text().splitlines()
    (entry,) = map(json.loads, lines)
    assert (entry["seq"], entry["label"]) == (seq, "anomaly")
    tab.page.goto("about:blank")
    tab.open()
    expect(tab.page.locator(f"#grid .row[data-seq='{seq}'] .label").last).to_have_text("anomaly")


def test_levels_and_the_challenger_of_a_run_are_shown(run: PeerwatchServer, tab: Visit) -> None:
    """Each flagged purchase has its level, and what only one of the two judges has flagged is listed."""
    tab.open()
    first = tab.page.locator("#grid .row").first
    expect(first.locator(".severity")).to_have_text(re.compile("warning|critical|emergency"))
    tab.open("#/judges")
    view = tab.page.locator("#judges")
    totals = run.ask("status")["totals"]
    both = totals["champion_alone"] + totals["challenger_alone"]
    assert both > 10
    expect(view.locator(".lead")).to_contain_text(f"k=3 alone flagged {totals['champion_alone']:,}")
    expect(view.locator("tbody tr")).to_have_count(min(200, both))
    expect(view.locator("tbody tr").first).to_contain_text("flags above")


def test_decisions_of_a_run_are_explained(run: PeerwatchServer, tab: Visit) -> None:
    """A flagged one as it was kept, another one by replay, and a user as of the moment before."""
    tab.open()
    tab.page.locator("#grid .row").first.click()
    panel = tab.page.locator("#decision")
    expect(panel.locator(".check")).to_contain_text("with the same result")
    expect(panel.locator(".picture.network")).to_have_attribute("data-settled", "true")
    (normal,) = run.ask("decisions?flagged=false&order=desc&limit=1")["decisions"]
    tab.open(f"#/flagged/{normal['seq']}")
    expect(panel.locator(".severity")).to_have_text("not flagged")
    expect(panel.locator(".outcome")).to_contain_text("not flagged")
    expect(panel.locator(".check")).to_contain_text("with the same result")
    tab.open(f"#/user/{normal['user']}/{normal['seq'] - 1}")
    view = tab.page.locator("#user")
    expect(view.locator("dl.facts")).to_contain_text(f"As of event{normal['seq'] - 1:,}")
    expect(view.locator("dl.facts")).to_contain_text(f"Mean{normal['mean']}")


def test_other_settings_are_tried_on_a_run(tab: Visit) -> None:
    """A sweep in a worker process; with the run's own setting it flags what the run has flagged."""
    tab.open("#/sweep")
    view = tab.page.locator("#sweep")
    view.get_by_role("button", name="Run").click()
    expect(view.locator("tbody td")).to_have_count(24)
    rows = tab.page.locator("#grid").get_attribute("aria-rowcount")
    expect(view.locator(".own")).to_contain_text(f"{int(rows or 0) - 1:,} flagged")


def test_the_flow_of_a_run_is_shown(tab: Visit) -> None:
    """Its totals, its actors and mailboxes, and its charts."""
    tab.open("#/flow")
    view = tab.page.locator("#flow")
    expect(view.locator(".totals")).to_contain_text("6,000")
    expect(view.locator("tr", has_text="shard 0").locator(".bar")).to_have_count(2)
    expect(view.locator(".lead")).to_contain_text("The busiest is")
    expect(view.locator(".uplot")).to_have_count(2)
