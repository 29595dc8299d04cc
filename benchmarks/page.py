"""What 10,000 flagged purchases at once cost the page: tasks of 50 ms or more, during which it answers to nothing.

Run it by itself: `python benchmarks/page.py`.
"""

import sys
import tempfile
import time
from pathlib import Path

from peerwatch.studies.generate import Recipe, write_logs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import StandInServer, Visit, chromium, visit

COUNT = 10_000
OBSERVE = """
    window.tasks = [];
    const note = (entries) => window.tasks.push(...entries.map((one) => one.duration));
    const observer = new PerformanceObserver((list) => note(list.getEntries()));
    observer.observe({entryTypes: ['longtask']});
    window.takeTasks = async () => {
        await new Promise((go) => requestAnimationFrame(() => setTimeout(go)));  // the task that is running ends
        note(observer.takeRecords());
        return window.tasks.splice(0);
    };
"""
COMPLETE = "count => Number(grid.getAttribute('aria-rowcount')) > count"
SEARCHED = "() => document.getElementById('feed-count').textContent.includes(' of ')"
SCROLL = """async (grid) => {
    for (let step = 0; step < 200; step += 1) {
        grid.scrollTop += 2000;
        await new Promise(requestAnimationFrame);
    }
}"""


def main() -> None:
    """Print a line a case."""
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        logs = Path(name)
        write_logs(logs, Recipe(users=2000, batch_events=20_000, stream_events=3000), force=True)
        with StandInServer(logs) as server:
            one = server.ask("decisions?flagged=true&limit=1")["decisions"][0]
            many = [one | {"seq": 1_000_000 + place, "user": f"user {place}"} for place in range(COUNT)]
            with visit(browser, server.url, viewport={"width": 1440, "height": 900}) as tab:
                tab.page.add_init_script(OBSERVE)
                tab.open()
                report("the page opens", tab)
                began = time.perf_counter()
                server.flag(*many)
                tab.page.wait_for_function(COMPLETE, arg=COUNT)
                seconds = time.perf_counter() - began
                report(f"{COUNT:,} come by the stream, in {seconds:.1f} s", tab)
                tab.page.get_by_label("Search").fill("user 99")
                tab.page.wait_for_function(SEARCHED)
                report("they are searched", tab)
                tab.page.get_by_role("button", name="Clear").click()
                tab.page.wait_for_function(COMPLETE, arg=COUNT)
                tab.page.locator("#grid").evaluate(SCROLL)
                report("they are scrolled through", tab)
                tab.page.goto(f"{server.url}/#/flagged/{one['seq']}")
                tab.page.locator("#decision .network [data-settled=true]").wait_for()
                report("one is explained", tab)


def report(what: str, tab: Visit) -> None:
    """Print the tasks since the last report that took 50 ms or more, which is what a browser calls long."""
    tasks = tab.page.evaluate("takeTasks()")
    longest = f", the longest {max(tasks):.0f} ms" if tasks else ""
    print(f"{what}: {len(tasks)} long tasks{longest}")


if __name__ == "__main__":
    main()
