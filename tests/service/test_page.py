"""The page, in a real browser, from a stand-in that a test drives."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import StandInServer, Visit, chromium, visit
from playwright.sync_api import Browser, Locator, Page, expect
from strategies import often
from support import ROOT

from peerwatch.network.statistics import decimal
from peerwatch.studies.generate import Recipe, write_logs

pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="window.hacked=1">\u202e'
"""What an id may be; the last character turns the text behind it around."""
SHOWN = HOSTILE[:-1] + "\\u202e"
VIEWS = ("", "#/flagged/{seq}", "#/user/{user}", "#/sweep", "#/flow", "#/judges")
MODULES = sorted((ROOT / "peerwatch" / "service" / "page").glob("*.js"))
ONTO_HTML = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|eval\(|Function\("
)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Playwright keeps an event loop in this thread, which these tests may block: nothing else runs on it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInServer]:
    """The stand-in over a generated log."""
    logs = tmp_path_factory.mktemp("logs")
    write_logs(logs, Recipe(users=2000, batch_events=20_000, stream_events=3000), force=True)
    with StandInServer(logs) as found:
        yield found


@pytest.fixture
def stand_in(server: StandInServer) -> StandInServer:
    """The stand-in as it begins."""
    server.start()
    server.control("reset", None)
    return server


@pytest.fixture
def tab(browser: Browser, stand_in: StandInServer) -> Iterator[Visit]:
    """A tab, not yet on the page."""
    with visit(browser, stand_in.url, viewport={"width": 1440, "height": 900}) as found:
        yield found


def flagged(server: StandInServer) -> list[dict[str, Any]]:
    """What is flagged, the newest first."""
    found: list[dict[str, Any]] = server.ask("decisions?flagged=true&order=desc&limit=1000")["decisions"]
    return found


def another(one: dict[str, Any], later: int, **others: Any) -> dict[str, Any]:
    """A decision like one that there is, so many events later than any other."""
    return one | {"seq": 1_000_000 + later} | others


def rows(page: Page) -> Locator:
    """The rows of the list that are in use."""
    return page.locator("#grid .row:not([hidden])")


def row(page: Page, seq: int) -> Locator:
    """The row of a decision."""
    return page.locator(f"#grid .row:not([hidden])[data-seq='{seq}']")


def listed(page: Page) -> int:
    """How many rows the list says that it has."""
    return int(page.locator("#grid").get_attribute("aria-rowcount") or "1") - 1


def opened(tab: Visit, seq: int) -> Locator:
    """The panel with a decision, explained."""
    tab.open(f"#/flagged/{seq}")
    panel = tab.page.locator("#decision")
    panel.locator(".rule-card").wait_for()
    return panel


# The list


def test_what_is_flagged_stands_there_newest_first(tab: Visit, stand_in: StandInServer) -> None:
    """All that was flagged before is listed, and each row has the decision's own text."""
    tab.open()
    expected = flagged(stand_in)
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(len(expected) + 1))
    first = expected[0]
    expect(row(tab.page, first["seq"])).to_have_attribute("aria-rowindex", "2")
    for text in (first["user"], f"{float(first['amount']):,.2f}", f"event {first['seq']:,}", first["severity"]):
        expect(row(tab.page, first["seq"])).to_contain_text(text)
    tops = {one["seq"]: row(tab.page, one["seq"]).bounding_box() for one in expected[:5]}
    places = [box["y"] for box in tops.values() if box is not None]
    assert len(places) == 5
    assert places == sorted(places)


def test_a_new_one_appears_at_once_and_is_announced(tab: Visit, stand_in: StandInServer) -> None:
    """Without a reload, on top, once; a screen reader is told of it politely."""
    tab.open()
    new = another(flagged(stand_in)[0], 1, user="a new one", amount="77.10")
    stand_in.flag(new)
    stand_in.flag(new)
    expect(row(tab.page, new["seq"])).to_have_attribute("aria-rowindex", "2")
    expect(tab.page.locator("#announcer")).to_contain_text("user a new one, 77.10")
    expect(tab.page.locator("#announcer")).to_have_attribute("aria-live", "polite")
    assert row(tab.page, new["seq"]).count() == 1


def test_what_is_read_stays_where_it_is(tab: Visit, stand_in: StandInServer) -> None:
    """New ones do not push away what a reader has scrolled to; a button tells of them and leads there."""
    tab.open()
    tab.page.locator("#grid").evaluate("grid => { grid.scrollTop = 900 }")
    before = rows(tab.page).nth(12)
    seq = int(before.get_attribute("data-seq") or "0")
    top = row(tab.page, seq).evaluate("row => row.getBoundingClientRect().top")
    stand_in.flag(another(flagged(stand_in)[0], 1), another(flagged(stand_in)[0], 2))
    newer = tab.page.locator("#newer")
    expect(newer).to_have_text("2 newer purchases above")
    assert abs(row(tab.page, seq).evaluate("row => row.getBoundingClientRect().top") - top) < 1
    newer.click()
    expect(row(tab.page, 1_000_002)).to_be_in_viewport()
    expect(newer).to_be_hidden()


def test_the_list_is_filtered_and_searched(tab: Visit, stand_in: StandInServer) -> None:
    """By user, least amount, severity and any text; clearing shows all again, and a new one obeys the filter."""
    tab.open()
    every = flagged(stand_in)
    grid = tab.page.locator("#grid")
    tab.page.get_by_label("Severity").select_option("emergency")
    expected = [one for one in every if one["severity"] == "emergency"]
    expect(grid).to_have_attribute("aria-rowcount", str(len(expected) + 1))
    tab.page.get_by_label("At least").fill("500.5")
    expected = [one for one in expected if float(one["amount"]) >= 500.5]
    expect(grid).to_have_attribute("aria-rowcount", str(len(expected) + 1))
    stand_in.flag(another(every[0], 1, severity="emergency", amount="500.49"))
    stand_in.flag(another(every[0], 2, severity="emergency", amount="500.50"))
    expect(row(tab.page, 1_000_002)).to_be_visible()
    assert row(tab.page, 1_000_001).count() == 0
    tab.page.get_by_role("button", name="Clear").click()
    expect(grid).to_have_attribute("aria-rowcount", str(len(every) + 3))
    tab.page.locator("#filters").get_by_label("User").fill(every[3]["user"])
    expected = [one for one in every if one["user"] == every[3]["user"]]
    expect(grid).to_have_attribute("aria-rowcount", str(len(expected) + 1))
    tab.page.get_by_role("button", name="Clear").click()
    tab.page.get_by_label("Search").fill(f"json:{every[7]['line']}")
    expect(row(tab.page, every[7]["seq"])).to_be_visible()
    tab.page.get_by_label("Search").fill("there is no such text")
    expect(tab.page.locator("#feed-empty")).to_have_text("Nothing that is loaded suits the filter.")


def test_older_ones_are_loaded_as_the_list_is_scrolled(tab: Visit, stand_in: StandInServer) -> None:
    """A page holds 500; the end of the list brings the next page, until there is none."""
    one = flagged(stand_in)[0]
    stand_in.flag(*(another(one, place) for place in range(1200)))
    tab.open()
    total = (
        1200
        + len(flagged(stand_in)[:0])
        + sum(1 for each in stand_in.ask("decisions?flagged=true&limit=9999")["decisions"] if each["seq"] < 1_000_000)
    )
    tab.page.locator("#grid").focus()
    while listed(tab.page) < total:
        before = listed(tab.page)
        tab.page.keyboard.press("End")
        tab.page.wait_for_function("before => Number(grid.getAttribute('aria-rowcount')) - 1 > before", arg=before)
    assert listed(tab.page) == total
    expect(tab.page.locator("#older")).to_be_hidden()


def test_ten_thousand_at_once(tab: Visit, stand_in: StandInServer) -> None:
    """The page holds no more rows than fit, and no frame changes more of them than that, however many arrive."""
    tab.open()
    before = len(flagged(stand_in))
    tab.page.evaluate(
        """() => {
            window.changes = [];
            let now = 0;
            new MutationObserver((records) => { now += records.length; })
                .observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
            const frame = () => { window.changes.push(now); now = 0; requestAnimationFrame(frame); };
            requestAnimationFrame(frame);
        }"""
    )
    one = flagged(stand_in)[0]
    stand_in.flag(*(another(one, place, user=f"user {place}") for place in range(10_000)))
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(before + 10_001))
    slots = tab.page.locator("#grid .row").count()
    assert slots < 60
    assert max(tab.page.evaluate("window.changes")) < 40 * slots
    tab.page.locator("#grid").focus()
    tab.page.keyboard.press("End")
    expect(rows(tab.page).last).to_be_visible()
    assert tab.page.locator("#grid .row").count() == slots
    tab.page.keyboard.press("Home")
    expect(row(tab.page, 1_009_999)).to_contain_text("user 9999")


# Keys


def test_everything_is_reached_by_keyboard(tab: Visit, stand_in: StandInServer) -> None:
    """The skip link comes first; arrows move in the list, Enter opens, A labels, J goes on, Escape leads back."""
    tab.open()
    every = flagged(stand_in)
    page = tab.page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.press("Enter")
    grid = page.locator("#grid")
    expect(grid).to_be_focused()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    current = page.locator("#grid .current")
    expect(current).to_have_attribute("data-seq", str(every[1]["seq"]))
    assert grid.get_attribute("aria-activedescendant") == current.get_attribute("id")
    page.keyboard.press("Enter")
    panel = page.locator("#decision")
    expect(panel).to_be_focused()
    expect(panel.locator("h2")).to_contain_text(every[1]["user"])
    panel.locator(".rule-card").wait_for()
    page.keyboard.press("a")
    expect(panel.get_by_role("button", name="Anomaly")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("j")
    expect(panel.locator(".facts")).to_contain_text(f"event {every[2]['seq']:,}")
    page.keyboard.press("Escape")
    expect(grid).to_be_focused()
    expect(panel).to_contain_text("Select a purchase")
    assert [each["seq"] for each in stand_in.ask("control/seen")["feedback"]] == [every[1]["seq"]]


def test_focus_can_be_seen(tab: Visit) -> None:
    """Whatever the Tab key reaches is marked."""
    tab.open()
    marked = """() => {
        const element = document.activeElement, style = getComputedStyle(element);
        if (element === document.body) return null;
        return [element.outerHTML.slice(0, 60), style.outlineStyle !== 'none' || style.boxShadow !== 'none'];
    }"""
    reached = []
    tab.page.keyboard.press("Tab")
    while (found := tab.page.evaluate(marked)) is not None and found[0] not in reached:
        assert found[1], found[0]
        reached.append(found[0])
        tab.page.keyboard.press("Tab")
    assert len(reached) > 10


# One decision


def test_a_decision_shows_what_explain_gives(tab: Visit, stand_in: StandInServer) -> None:
    """The integers of the inequality, what would flip it, the network by hops, and each purchase of the window."""
    seq = flagged(stand_in)[0]["seq"]
    why = stand_in.ask(f"explain/{seq}")
    panel = opened(tab, seq)
    digits = [text.replace("\u2009", "") for text in panel.locator(".digits").all_inner_texts()]
    assert digits == [
        str(round(float(why["amount"]) * 1e6)), str(why["n"]), why["S"], why["Q"], why["d"], why["left"], why["right"],
    ]  # fmt: skip
    expect(panel.locator(".check")).to_contain_text("with the same result")
    expect(panel.locator(".flips")).to_contain_text(why["flips_at"].replace(",", ""))
    others = len([one for one in why["network"] if one["hop"]])
    expect(panel.locator(".network .lead")).to_contain_text(f"{others} users within 2 hops")
    for canvas in panel.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label") or "") > 30
    panel.locator("summary").click()
    table = panel.locator(".purchases tbody tr")
    expect(table).to_have_count(len(why["window"]))
    expect(table.first).to_contain_text(why["window"][0]["amount"])


def test_a_wrong_integer_is_noticed(tab: Visit, stand_in: StandInServer) -> None:
    """The page computes the comparison itself, from n, S, Q, k and the amount."""
    seq = flagged(stand_in)[0]["seq"]
    why = stand_in.ask(f"explain/{seq}")
    stand_in.control("made_up", {str(seq): why | {"right": str(int(why["right"]) + 1)}})
    panel = opened(tab, seq)
    expect(panel.locator(".rule-card .problem")).to_contain_text("are not the same")


def test_small_networks_are_laid_out_by_forces_and_large_ones_in_rings(tab: Visit, stand_in: StandInServer) -> None:
    """At 300 members the layout changes; every member has a place, at about its hop's distance from the middle."""
    layout = """async (count) => {
        const {treeOf, rings, forces} = await import('./static/network_layout.js');
        const members = Array.from({length: count}, (_, place) => place < 10
            ? {user: `${place}`, hop: 1, path: ['buyer', `${place}`]}
            : {user: `${place}`, hop: 2, path: ['buyer', `${place % 10}`, `${place}`]});
        const nodes = treeOf('buyer', members);
        rings(nodes);
        const apart = () => nodes.map(({x, y, hop}) => Math.abs(Math.hypot(x, y) - hop));
        const inRings = Math.max(...apart());
        await forces(nodes, () => true);
        const away = apart();
        return [nodes.length, inRings, Math.max(...away), away.reduce((sum, one) => sum + one) / away.length];
    }"""
    tab.open()
    nodes, in_rings, furthest, mean = tab.page.evaluate(layout, 200)
    assert nodes == 201
    assert in_rings < 1e-9
    assert furthest < 1
    assert mean < 0.4
    seq = flagged(stand_in)[0]["seq"]
    panel = opened(tab, seq)
    expect(panel.locator(".picture.network")).to_have_attribute("data-layout", "forces")
    expect(panel.locator(".picture.network")).to_have_attribute("data-settled", "true")
    why = stand_in.ask(f"explain/{seq}")
    many = [{"user": f"far {place}", "hop": 1, "path": [why["user"], f"far {place}"]} for place in range(300)]
    stand_in.control("made_up", {str(seq): why | {"network": why["network"] + many}})
    tab.page.reload()
    expect(panel.locator(".picture.network")).to_have_attribute("data-layout", "rings")


def test_another_detector_shows_its_score(tab: Visit, stand_in: StandInServer) -> None:
    """Without an inequality there are the score, the model and what it saw."""
    seq = flagged(stand_in)[0]["seq"]
    none = dict.fromkeys(("k", "threshold", "d", "left", "right", "flips_at", "cents_away", "without"))
    scored = {
        "detector": "isolation_forest", "score": "0.648847", "score_threshold": "0.617059", "model": 4,
        "model_since": 136833, "severity": None, "parameters": {}, "features": {"deviations": 2.42, "spread": 0.4662},
    }  # fmt: skip
    stand_in.control("made_up", {str(seq): stand_in.ask(f"explain/{seq}") | none | scored})
    panel = opened(tab, seq)
    expect(panel.locator(".rule-card")).to_contain_text("Score 0.648847; above 0.617059 a purchase is flagged.")
    expect(panel.locator(".rule-card")).to_contain_text("Model 4, active from event 136833 on.")
    expect(panel.locator(".rule-card tr")).to_have_count(2)


def test_what_cannot_be_explained_is_said(tab: Visit, stand_in: StandInServer) -> None:
    """The service's own sentence, and a way to try again."""
    stand_in.control("refused", {"explain/7": "event 7 is in the batch log, which is not judged"})
    tab.open("#/flagged/7")
    panel = tab.page.locator("#decision")
    expect(panel.locator(".problem")).to_contain_text("event 7 is in the batch log, which is not judged")
    expect(panel.get_by_role("button", name="Try again")).to_be_visible()


# Labels


def test_a_label_reaches_the_service_and_the_list(tab: Visit, stand_in: StandInServer) -> None:
    """A click labels, another corrects it; the list shows the newest."""
    seq = flagged(stand_in)[0]["seq"]
    panel = opened(tab, seq)
    for name in ("Anomaly", "Normal"):
        panel.get_by_role("button", name=name).click()
        expect(panel.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        expect(panel.locator(".labels [role=status]")).to_have_text("Saved")
    expect(row(tab.page, seq).locator(".label")).to_have_text("normal")
    expect(panel.get_by_role("button", name="Anomaly")).to_have_attribute("aria-pressed", "false")
    assert stand_in.ask("control/seen")["feedback"] == [
        {"seq": seq, "label": "anomaly"},
        {"seq": seq, "label": "normal"},
    ]


def test_a_label_that_is_refused_is_taken_back(tab: Visit, stand_in: StandInServer) -> None:
    """Nothing looks labelled that is not; where a run takes no labels the buttons say so."""
    seq = flagged(stand_in)[0]["seq"]
    stand_in.control("refused", {"feedback": "the run keeps no state"})
    panel = opened(tab, seq)
    panel.get_by_role("button", name="Normal").click()
    expect(panel.locator(".labels [role=status]")).to_have_text("Not saved: the run keeps no state")
    expect(panel.get_by_role("button", name="Normal")).to_have_attribute("aria-pressed", "false")
    expect(row(tab.page, seq).locator(".label")).to_have_text("")
    stand_in.control("status", {"labels": False})
    expect(panel.get_by_role("button", name="Normal")).to_be_disabled()
    expect(panel.locator(".labels")).to_contain_text("This run takes no labels.")


# A user, what if, flow, judges


def test_the_slider_shows_a_user_at_any_moment(tab: Visit, stand_in: StandInServer) -> None:
    """As of an event it shows what `peerwatch state` gives; decisions are marked, and jumped to."""
    one = flagged(stand_in)[0]
    tab.open(f"#/user/{one['user']}")
    view = tab.page.locator("#user")
    expect(view.locator("h2")).to_have_text(f"User {one['user']}")
    now = stand_in.ask(f"users/{one['user']}")
    expect(view.locator("dl.facts")).to_contain_text(f"{now['seq']:,}")
    expect(view.locator(".marks .flagged").first).to_be_attached()
    view.get_by_role("button", name="Earlier decision").click()
    then = stand_in.ask(f"users/{one['user']}?at={one['seq'] - 1}")
    expect(view.locator("dl.facts")).to_contain_text(f"As of event{one['seq'] - 1:,}")
    expect(view.locator("dl.facts")).to_contain_text(f"Threshold{then['threshold']}")
    assert tab.page.url.endswith(f"#/user/{one['user']}/{one['seq'] - 1}")
    slider = view.get_by_role("slider")
    slider.focus()
    tab.page.keyboard.press("ArrowLeft")
    expect(view.locator("dl.facts")).to_contain_text(f"As of event{one['seq'] - 2:,}")
    view.get_by_label("Event number").fill("1")
    tab.page.keyboard.press("Enter")
    expect(view.locator(".problem")).to_contain_text("does not exist as of event 1")


def test_what_hangs_on_a_friendship_is_compared(tab: Visit, stand_in: StandInServer) -> None:
    """Below a user's network, for one friendship and for all: what `peerwatch radius` gives; the lost get a ring."""
    one = flagged(stand_in)[0]
    state = stand_in.ask(f"users/{one['user']}?at={one['seq']}")
    tab.open(f"#/user/{one['user']}/{one['seq']}")
    view = tab.page.locator("#user")
    compare = view.get_by_role("form", name="What hangs on it")
    for friend in (state["friends"][0], None):
        query = f"radius?user={one['user']}&at={one['seq']}" + (f"&friend={friend}" if friend else "")
        found = stand_in.ask(query)
        compare.get_by_label("What to leave out").select_option(friend or "")
        compare.get_by_role("button", name="Compare").click()
        answer = view.locator(".radius")
        expect(answer.locator(".lead")).to_contain_text(f"of {found['near']:,} within reach")
        expect(answer.locator("tbody tr")).to_have_count(min(50, len(found["users"])))
        own = [len(each["lost"]) for each in found["users"] if each["user"] == one["user"]]
        expect(view.locator("[data-cut]")).to_have_attribute("data-cut", str(own[0] if own else 0))


def test_the_friendships_that_matter_most_are_found(tab: Visit, stand_in: StandInServer) -> None:
    """Where no user is chosen yet: what `peerwatch radius` lists; a name leads to the user as of then."""
    found = stand_in.ask("bridges?most=20")
    tab.open("#/user")
    view = tab.page.locator("#user")
    view.get_by_role("button", name="Find").click()
    rows = view.locator(".bridges tbody tr")
    expect(rows).to_have_count(len(found["bridges"]))
    first = found["bridges"][0]
    expect(rows.first).to_contain_text(" \u2013 ".join(first["friendship"]))
    expect(rows.first.locator("td").last).to_have_text(f"{first['networks']:,}")
    view.locator(".bridges a").first.click()
    expect(view.locator("h2").first).to_have_text(f"User {first['friendship'][0]}")
    expect(view.locator("dl.facts")).to_contain_text(f"As of event{found['seq']:,}")


def test_a_sweep_is_a_heat_map(tab: Visit) -> None:
    """A table for each D with a cell for each T and k, darker for more; the run's own setting is framed."""
    tab.open("#/sweep")
    view = tab.page.locator("#sweep")
    view.get_by_role("button", name="Run").click()
    expect(view.locator("table")).to_have_count(2)
    expect(view.locator("tbody td")).to_have_count(24)
    expect(view.locator(".own")).to_have_count(1)
    expect(view.locator("table").nth(1).locator("tbody tr").nth(1).locator("td").nth(2)).to_have_class("own")
    cells = view.locator("tbody td").all()
    shares = [float((cell.locator("strong").inner_text()).rstrip(" %")) for cell in cells]
    steps = [int(cell.get_attribute("data-step") or "0") for cell in cells]
    assert steps[shares.index(max(shares))] == 8
    assert steps[shares.index(min(shares))] == 0
    view.get_by_label("k, standard").fill("3, three")
    view.get_by_role("button", name="Run").click()
    expect(view.locator(".problem")).to_contain_text("k: expected numbers of at least 0")


def test_a_sweep_can_be_cancelled(tab: Visit, stand_in: StandInServer) -> None:
    """The progress shows, and Cancel ends the job."""
    stand_in.control("steps", [0.25])  # and then no further
    tab.open("#/sweep")
    view = tab.page.locator("#sweep")
    view.get_by_role("button", name="Run").click()
    expect(view.locator("[role=status]")).to_have_text("Judging: 25 %")
    expect(view.locator("progress")).to_have_js_property("value", 0.25)
    view.get_by_role("button", name="Cancel").click()
    expect(view.locator("[role=status]")).to_have_text("Cancelled.")
    expect(view.get_by_role("button", name="Run")).to_be_visible()
    assert stand_in.ask("control/seen")["cancelled"] == ["1"]


def test_the_bottleneck_shows(tab: Visit, stand_in: StandInServer) -> None:
    """The busiest actor is named with what waits for it, in the view and at the top of every view."""
    tab.open("#/flow")
    view = tab.page.locator("#flow")
    expect(view.locator(".lead")).to_contain_text("Nothing holds the run up. The busiest is graph 0")
    expect(view.locator(".uplot")).to_have_count(2)
    status = stand_in.ask("status")
    busy = [one | ({"busy_ratio": 0.97} if one["name"] == "shard 0" else {}) for one in status["actors"]]
    full = [one | ({"depth": 4} if one["name"] == "shard 0" else {}) for one in status["mailboxes"]]
    stand_in.control("status", {"actors": busy, "mailboxes": full, "lag_seconds": 31.0})
    expect(view.locator(".lead")).to_have_text(
        "shard 0 is the bottleneck: busy 97 % of the time, and 4 messages wait for it."
    )
    first = view.locator("tbody tr").first
    expect(first).to_contain_text("shard 0")
    expect(first.locator("[data-level=full]")).to_contain_text("4 of 4, peak 4")
    expect(tab.page.locator("#figures")).to_contain_text("shard 0 97 %")
    away = {"name": "kafka", "away": "connection refused", "records": 7, "retries": 3, "waiting": 12}
    stand_in.control("status", {"servers": [away]})
    expect(view.locator(".lead")).to_have_text("The run waits for kafka, which does not answer.")
    expect(view.locator("table").last).to_contain_text("away: connection refused")


def test_disagreements_and_notices_are_listed(tab: Visit, stand_in: StandInServer) -> None:
    """Those that were there, and a notice that comes while one looks."""
    details = {
        "user": "7", "amount": "12.50", "champion": {"flagged": True},
        "challenger": {"flagged": False, "score": 0.2, "threshold": 0.6},
    }  # fmt: skip
    stand_in.control(
        "disagreements",
        [{"seq": 1, "event": 20_018, "who": "challenger", "notice": "disagreement", "details": details}],
    )
    totals = stand_in.ask("status")["totals"] | {"champion_alone": 1}
    stand_in.control("status", {"challenger": "isolation_forest", "totals": totals})
    tab.open("#/judges")
    view = tab.page.locator("#judges")
    expect(view.locator(".lead")).to_have_text("k=3 alone flagged 1, isolation_forest alone 0.")
    for text in ("20,018", "12.50", "flagged", "normal score 0.2000, flags above 0.6000"):
        expect(view.locator("tbody tr")).to_contain_text(text)
    change = {"judged": 6400, "series": "score", "by": "ADWIN", "before": 0.21234567, "after": 0.35}
    stand_in.control("notice", {"seq": 2, "event": 20_500, "who": "champion", "notice": "drift", "details": change})
    expect(view.locator(".notices li").first).to_contain_text(
        "The mean score changed from 0.2123 to 0.35, found by ADWIN"
    )


# The connection


def test_the_page_connects_again_after_the_server_was_killed(tab: Visit, stand_in: StandInServer) -> None:
    """It says that it is not connected, goes on behind the last event that it has, and shows nothing twice."""
    tab.open()
    before = flagged(stand_in)
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(len(before) + 1))
    stand_in.kill()
    expect(tab.page.locator("#connection")).to_have_attribute("data-state", "waiting")
    expect(tab.page.locator("#connection-state")).to_contain_text("Not connected")
    expect(tab.page.locator("#connection-countdown")).to_contain_text("next try in")
    expect(tab.page.locator("#connection-retry")).to_be_visible()
    stand_in.start()
    stand_in.flag(another(before[0], 1))
    tab.page.locator("#connection[data-state=live]").wait_for()
    expect(row(tab.page, 1_000_001)).to_be_visible()
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(len(before) + 2))
    assert stand_in.ask("control/seen")["resumed"][-1] == str(before[0]["seq"])


def test_a_page_that_is_opened_before_the_server_fills_when_it_comes(tab: Visit, stand_in: StandInServer) -> None:
    """What could not be loaded at first is loaded once the connection is there."""
    expected = len(flagged(stand_in))
    tab.page.route("**/decisions**", lambda route: route.abort())
    tab.page.goto(f"{stand_in.url}/")
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(expected + 1))


def test_what_a_slow_connection_missed_is_fetched(tab: Visit, stand_in: StandInServer) -> None:
    """After `dropped` the list is complete again."""
    tab.open()
    one = flagged(stand_in)[0]
    stand_in.flag(another(one, 1), another(one, 2), lost=True)
    stand_in.control("send", {"event": "dropped", "data": {"missed": 2}})
    expect(row(tab.page, 1_000_001)).to_be_visible()
    expect(row(tab.page, 1_000_002)).to_be_visible()


def test_another_run_begins_with_an_empty_list(tab: Visit, stand_in: StandInServer) -> None:
    """Numbers of another run mean other events, so nothing of the one before is kept."""
    tab.open()
    stand_in.flag(another(flagged(stand_in)[0], 1))
    expect(row(tab.page, 1_000_001)).to_be_visible()
    stand_in.control("decisions", stand_in.ask("decisions?limit=1000")["decisions"])
    left = len(flagged(stand_in))
    stand_in.control("status", {"run": "another"})
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(left + 1))
    assert row(tab.page, 1_000_001).count() == 0


def test_a_token_is_asked_for_once(tab: Visit, stand_in: StandInServer) -> None:
    """All requests that were refused share one dialog; a wrong token is refused there; the tab keeps the right one."""
    expected = len(flagged(stand_in))
    stand_in.control("token", "right")
    tab.page.goto(f"{stand_in.url}/#/flow")
    dialog = tab.page.locator("#token")
    expect(dialog).to_be_visible()
    expect(tab.page.locator("#token-problem")).to_be_hidden()
    expect(dialog.locator("input")).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    dialog.locator("input").fill("wrong")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#token-problem")).to_be_visible()
    dialog.locator("input").fill("right")
    dialog.get_by_role("button", name="Continue").click()
    tab.page.locator("#connection[data-state=live]").wait_for()
    expect(dialog).to_be_hidden()
    tab.open()
    expect(tab.page.locator("#grid")).to_have_attribute("aria-rowcount", str(expected + 1))
    assert tab.page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_stream_is_read_however_it_is_cut(tab: Visit, end: str) -> None:
    """Every cut into two pieces, and single characters, give the events of the whole text."""
    tab.open()
    text = (
        ': hello\nretry: 10\n\nid: 7\nevent: flagged\ndata: {"a":\ndata: 1}\n\ndata:x\n\nevent: none\n\nid:8\ndata\n\n'
    )
    parsed = """async (text) => {
        const {Parser} = await import('./static/stream.js');
        const read = (pieces) => {
            const parser = new Parser();
            return JSON.stringify(pieces.flatMap((piece) => [...parser.feed(piece)]));
        };
        const cuts = [...text].map((_, place) => read([text.slice(0, place), text.slice(place)]));
        return [...new Set([read([text]), read([...text]), ...cuts])];
    }"""
    (found,) = tab.page.evaluate(parsed, text.replace("\n", end) + "\n" * (end == "\r"))
    assert json.loads(found) == [
        {"type": "flagged", "id": "7", "data": '{"a":\n1}'},
        {"type": "message", "id": None, "data": "x"},
        {"type": "message", "id": "8", "data": ""},
    ]


def test_amounts_are_compared_exactly(tab: Visit) -> None:
    """At any length, as decimals: no float decides."""
    tab.open()
    numbers = [0, 1, 10, 999_999, 10**6, 10**6 + 1, 2 * 10**16, 2 * 10**16 + 1, 10**40, 10**40 + 1, 10**300]
    texts = [decimal(number) for number in numbers] + ["0.0", "007.50", "7.5", ".5"]
    compared = "async (texts) => { const {compareAmounts} = await import('./static/format.js');"
    found = tab.page.evaluate(
        compared + "return texts.map((a) => texts.map((b) => Math.sign(compareAmounts(a, b)))); }", texts
    )
    from decimal import Decimal, localcontext

    with localcontext(prec=400):
        values = [Decimal(text) for text in texts]
        assert found == [[(a > b) - (a < b) for b in values] for a in values]


# What a page must not do, and for whom it must work


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_nothing_becomes_html(path: Path) -> None:
    """No module makes HTML or code from text; the library for elements sets text."""
    assert not ONTO_HTML.search(path.read_text())


def test_hostile_ids_are_text(tab: Visit, stand_in: StandInServer) -> None:
    """In the list, a decision, its network and window, a user, the judges and a file's name."""
    one = flagged(stand_in)[0]
    seq = 1_000_001
    bad = {"user": HOSTILE, "file": HOSTILE}
    why = stand_in.ask(f"explain/{one['seq']}")
    why = json.loads(json.dumps(why).replace(f'"{one["user"]}"', json.dumps(HOSTILE))) | bad | {"seq": seq}
    why["without"] = [{"friendship": [HOSTILE, HOSTILE], "purchase": None, "window_size": 1, "mean": None, "sd": None,
                       "verdict": "normal"}]  # fmt: skip
    stand_in.control("made_up", {str(seq): why})
    notice = {"seq": 1, "event": 1, "who": HOSTILE, "notice": HOSTILE, "details": {"text": HOSTILE}}
    stand_in.control("notice", notice)
    verdicts = {"champion": {"flagged": HOSTILE}, "challenger": {"flagged": False, "score": HOSTILE}}
    stand_in.control("disagreements", [notice | {"details": {"user": HOSTILE, "amount": HOSTILE} | verdicts}])
    away = {"name": HOSTILE, "away": HOSTILE, "records": 0, "retries": 0, "waiting": 0}
    stand_in.control("status", {"challenger": HOSTILE, "servers": [away], "detector": HOSTILE})
    stand_in.flag(another(one, 1, **bad))
    panel = opened(tab, seq)
    expect(row(tab.page, seq).locator(".user")).to_have_text(SHOWN)
    expect(panel.locator("h2")).to_contain_text(SHOWN)
    expect(panel.locator(".flips")).to_contain_text(SHOWN)
    panel.locator("summary").click()
    expect(panel.locator(".purchases tbody tr").first).to_contain_text(SHOWN)
    panel.locator("h2 a").click()
    expect(tab.page.locator("#user h2")).to_contain_text(SHOWN)
    expect(tab.page.locator("#user .problem")).to_contain_text(SHOWN)
    for view in ("flow", "judges"):
        tab.page.goto(f"{stand_in.url}/#/{view}")
        expect(tab.page.locator(f"#{view}")).to_contain_text(SHOWN)
    expect(tab.page.locator("#judges .notices li")).to_contain_text(SHOWN)
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.locator("main img").count() == 0


@pytest.mark.parametrize(
    ("width", "scheme"), [(400, "dark"), (1440, "light"), *[(400, "light"), (1440, "dark")] * often(0, 1)]
)
def test_axe_finds_nothing(browser: Browser, stand_in: StandInServer, scheme: str, width: int) -> None:
    """No rule of axe-core is broken in any view, in both colour schemes, narrow and wide."""
    one = flagged(stand_in)[0]
    details = {"user": "7", "amount": "1", "champion": {"flagged": True}, "challenger": {"flagged": False}}
    notice = {"seq": 1, "event": 20_018, "who": "challenger", "notice": "drift", "details": details}
    stand_in.control("disagreements", [notice])
    stand_in.control("notices", [notice])
    stand_in.control("status", {"challenger": "mad"})
    axe = (ROOT / "tests" / "vendor" / "axe.min.js").read_text()
    size = {"width": width, "height": 900}
    with visit(browser, stand_in.url, viewport=size, color_scheme=scheme, bypass_csp=True) as tab:
        tab.page.add_init_script(axe)
        tab.open()
        for view in VIEWS:
            tab.page.goto(f"{stand_in.url}/{view.format(**one)}")
            settled(tab.page, view)
            found = tab.page.evaluate("async () => (await axe.run()).violations")
            assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == [], view


def settled(page: Page, view: str) -> None:
    """Wait until a view shows what it is about."""
    if view.startswith("#/flagged"):
        page.locator("#decision .rule-card").wait_for()
        page.locator("#decision summary").click()
    elif view.startswith("#/user"):
        page.locator("#user dl.facts").wait_for()
    elif view.startswith("#/sweep"):
        page.get_by_role("button", name="Run").click()
        page.locator("#sweep table").first.wait_for()
    elif view.startswith("#/flow"):
        page.locator("#flow .uplot").first.wait_for()
    elif view.startswith("#/judges"):
        page.locator("#judges tbody tr").wait_for()
    else:
        rows(page).first.wait_for()


@pytest.mark.parametrize(("width", "height"), [(400, 800), (3840, 2160)])
def test_every_view_fits(browser: Browser, stand_in: StandInServer, width: int, height: int) -> None:
    """At 400 pixels nothing has to be scrolled sideways; at 4k text is larger. No text is smaller than 11 pixels."""
    one = flagged(stand_in)[0]
    with visit(browser, stand_in.url, viewport={"width": width, "height": height}) as tab:
        tab.open()
        for view in VIEWS[:-1]:
            tab.page.goto(f"{stand_in.url}/{view.format(**one)}")
            settled(tab.page, view)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, view
            sizes = tab.page.evaluate(
                "() => [...document.querySelectorAll('main *')].filter((one) => one.checkVisibility()"
                " && one.textContent.trim()).map((one) => parseFloat(getComputedStyle(one).fontSize))"
            )
            assert min(sizes) >= (15 if width > 3000 else 11), view


def test_the_page_is_calm_where_that_is_wanted(browser: Browser, stand_in: StandInServer) -> None:
    """With reduced motion nothing is animated, and a network is drawn once it has settled."""
    with visit(browser, stand_in.url, reduced_motion="reduce") as tab:
        panel = opened(tab, flagged(stand_in)[0]["seq"])
        expect(panel.locator(".picture.network")).to_have_attribute("data-settled", "true")
        assert tab.page.evaluate("document.getAnimations().length") == 0
        transitions = (
            "[...document.querySelectorAll('*')].filter((one) => getComputedStyle(one).transitionDuration !== '0s')"
        )
        assert tab.page.evaluate(f"{transitions}.length") == 0


def test_the_parts_of_the_page_are_all_served_by_it() -> None:
    """No file of ours names another host, and each library has its licence beside it."""
    folder = ROOT / "peerwatch" / "service" / "page"
    for path in [*folder.glob("*.*")]:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()), path.name
    licences = {path.name for path in (folder / "vendor").glob("*.LICENSE")}
    assert licences == {"uPlot.LICENSE", "d3.LICENSE"}
