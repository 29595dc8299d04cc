"""The docs can be trusted: their examples run, their links lead somewhere, and what there is to use is documented."""

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.cli.options import OPTION_KEYS
from peerwatch.detectors.registry import DETECTORS
from peerwatch.network.events import parse_event
from peerwatch.network.rejects import RejectedLine, encode_reject
from peerwatch.runtime.judges_from_settings import champion_of
from peerwatch.settings.model import keys, resolve
from peerwatch.settings.yaml_file import read_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NOT_RUN = re.compile(r"<!-- servers: (.+) -->")
"""What stands before a block whose commands need servers: their names."""
NOT_OURS = {"models/", "old/", "data/", "report/", "peerwatch-state/"}
"""Folders that the docs name and that lie in nobody's checkout but in a user's."""
PLACEHOLDER = re.compile(r"NAME|FILE|DIR")


class Fence(NamedTuple):
    """A fenced block: page, language, text, the servers that it needs, and the text of the block behind it."""

    page: Path
    language: str
    text: str
    not_run: str | None
    output: str | None


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    found = [*re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    blocks = []
    for place, match in enumerate(found):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        marker = NOT_RUN.fullmatch(before)
        behind = found[place + 1] if place + 1 < len(found) else None
        follows = behind is not None and behind[1] == "" and not text[match.end() : behind.start()].strip()
        output = behind[2] if behind is not None and follows else None
        blocks.append(Fence(page, match[1], match[2], marker[1] if marker else None, output))
    return blocks


def in_reading_order() -> list[Path]:
    """The pages as docs/index.md lists them."""
    return [(DOCS / link).resolve() for link in re.findall(r"^\d+\. \[.*?\]\((.*?)\)", INDEX.read_text(), re.MULTILINE)]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Each command with its full name, those of groups included."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", below) for each, below in command.commands.items())
        elif command is not None:
            yield name, command


def options(command: click.Command) -> set[str]:
    """The options that a command shows."""
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return {name for each in shown for name in each.opts}


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name; it is the current one.

    The logs are as long as those of docs/why.md, filled up by events that change nothing, so that the purchase of that
    page has its line and its number.
    """
    monkeypatch.chdir(tmp_path)
    typed("peerwatch generate . --users 2000 --batch-events 20000 --stream-events 2000")
    batch, stream = (Path(name).read_bytes() for name in ("batch_log.json", "stream_log.json"))
    line = fences(DOCS / "why.md")[0].text.encode()
    seq, place = (int(re.findall(rf"--{name} (\d+)", (DOCS / "why.md").read_text())[0]) for name in ("seq", "line"))
    header, _, events = batch.partition(b"\n")
    events = purchase(107, "5.00", "1997-01-01 00:00:00") + events
    nothing = befriend(1, 1171)
    batch = header + b"\n" + events + nothing * (seq - place - events.count(b"\n"))
    stream += nothing * (place - 1 - stream.count(b"\n")) + line + nothing * 60_000
    files = {"batch_log.json": batch, "stream_log.json": stream, "reviewed.jsonl": b'{"line": 9, "label": "normal"}\n'}
    live = (ROOT / "configs" / "live.yaml").read_bytes().replace(b"follow: true\n", b"follow: true\nidle_exit: 0\n")
    assert b"idle_exit" in live  # or it would follow for ever
    files["configs/live.yaml"] = live
    files["friends.csv"] = b"id1,id2\n1,2\n2,3\n"
    files["flagged.rejects.json"] = encode_reject(RejectedLine("stream", 3, 9, "corrected", befriend(1, 2).rstrip()))
    rng = np.random.default_rng(1)
    for name in ("may", "june", "purchases"):
        rows = [f"{amount:.2f},{place % 24}" for place, amount in enumerate(rng.lognormal(3, 1, 300))]
        files[f"{name}.csv"] = "\n".join(["amount,hour", *rows, ""]).encode()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    Path("folder").mkdir()
    np.savez("folder/table.npz", X=rng.normal(size=(120, 2)), y=np.arange(120) < 6)
    typed("peerwatch datasets make sensors . --rows 300")
    for day in ("monday", "tuesday"):
        typed(f"peerwatch run batch_log.json stream_log.json flagged.json --verdicts {day}.ledger --quiet --force")
    return tmp_path


def typed(line: str) -> Result:
    """What a line of a terminal gives that holds one command; it may be sent to a file."""
    _, *words = shlex.split(line, comments=True)
    words, to = (words[:-2], words[-1]) if ">" in words else (words, None)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    if to is not None:
        Path(to).write_text(result.stdout)
    return result


def test_every_page_is_in_the_index() -> None:
    """docs/index.md lists each page once, in the order in which the examples below run."""
    assert sorted(in_reading_order()) == sorted(page for page in PAGES if page != INDEX)


@pytest.mark.parametrize(
    ("pages", "least"), [([ROOT / "README.md"], 3), pytest.param(in_reading_order(), 30, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("logs")
def test_every_command_in_the_docs_runs(pages: list[Path], least: int) -> None:
    """Each `peerwatch` command of a block ends with exit code 0; sweep and tune print what their pages show.

    The commands run in the reading order of the docs, in one folder, as somebody who follows the docs would type them.
    """
    ran = 0
    for page in pages:
        for fence in fences(page):
            lines = [line for line in fence.text.splitlines() if line.startswith("peerwatch ")]
            for line in lines if fence.language == "sh" and fence.not_run is None else ():
                result = typed(line)
                ran += 1
                if line.startswith(("peerwatch sweep demo/", "peerwatch tune demo/")):  # logs that anybody can make
                    assert result.stdout == fence.output
    assert ran >= least
    assert Path("why.png").exists() == (DOCS / "why.md" in pages)


def test_what_is_not_run_is_counted() -> None:
    """A block that needs servers is run beside them (tests/connectors, tests/cluster); all others are run here."""
    marked = [fence for page in PAGES for fence in fences(page) if fence.not_run is not None]
    assert sum(page.read_text().count("<!-- servers: ") for page in PAGES) == len(marked)
    assert {fence.page.name for fence in marked if fence.page.parent == DOCS} == {"cluster.md", "connectors.md"}


def test_every_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page run one after the other in one namespace, as in a notebook."""
    monkeypatch.chdir(tmp_path)
    typed("peerwatch generate demo --users 2000 --batch-events 20000 --stream-events 2000")
    rng = np.random.default_rng(1)
    ran = 0
    for page in PAGES:
        table = rng.lognormal(size=(100, 2))
        names = {"history": table, "series": table, "rows": table, "new": table[:5]}
        for fence in fences(page):
            if fence.language == "python":
                exec(compile(fence.text, page.name, "exec"), names)  # noqa: S102 (our own docs)
                ran += 1
    assert ran >= 4


def test_every_yaml_example_is_a_config(tmp_path: Path) -> None:
    """Each YAML block is read as settings, and names a detector that can be made unless it is a user's own."""
    ran = 0
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "yaml":
                config = tmp_path / f"{page.stem}.yaml"
                config.write_text(fence.text)
                settings, origins = resolve(read_config(config))
                if ":" not in settings.detector.name:
                    champion_of(settings.detector, origins)
                ran += 1
    assert ran >= 5


def test_links_lead_somewhere() -> None:
    """Every relative link is a file, or a heading in one."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            name, _, heading = link.partition("#")
            if name.startswith("https:"):
                continue
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name} links to {link}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
            assert not heading or heading in slugs, f"{page.name} links to {link}"


def test_every_file_that_the_docs_name_exists() -> None:
    """A path stands from the root, or is the name of a file in a folder that its paragraph names."""
    known = {path.name for folder in ("actors", "runtime", "peerwatch", "tests", "benchmarks", "docs", "configs")
             for path in (ROOT / folder).rglob("*")}  # fmt: skip
    for page in [*PAGES, *CONFIGS]:
        quoted = re.findall(r"`([\w./-]+(?:\.(?:py|md|yaml|toml|txt)|/))`", page.read_text())
        for path in quoted + re.findall(r"\b(?:docs|configs)/[\w/-]+\.\w+", page.read_text()):
            if path in NOT_OURS or PLACEHOLDER.search(path):
                continue
            assert (ROOT / path).exists() or ("/" not in path and path in known), f"{page.name} names {path}"


def test_every_module_that_the_docs_name_exists() -> None:
    """`peerwatch.room.module` or a name in it can be imported."""
    for page in PAGES:
        for name in re.findall(r"`(peerwatch(?:\.\w+)+)`", page.read_text()):
            module, _, attribute = name.rpartition(".")
            try:
                import_module(name)
            except ModuleNotFoundError:
                assert hasattr(import_module(module), attribute), f"{page.name} names {name}"


def test_every_option_that_the_docs_name_exists() -> None:
    """A command in a block, or in a line of text, has the options that it is shown with; no other option is named."""
    known = dict(commands())
    every = {option for command in known.values() for option in options(command)} | {"--help", "--version"}
    for page in [*PAGES, *CONFIGS]:
        if page.name == "CHANGELOG.md":
            continue  # it names options that are gone
        text = re.sub(
            r"`make [^`]+`|^(curl|docker|prometheus|prometheus-alertmanager|psql|systemctl) .*$",
            "",
            page.read_text(),
            flags=re.MULTILINE,
        )
        for option in re.findall(r"(?<![\w<-])--[A-Za-z][\w-]*", text):
            assert option in every, f"{page.name} names {option}"
        for line in re.findall(r"(?:^|`)peerwatch ([^`\n|>#]+)", text, re.MULTILINE):
            words = line.split()
            name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), "")
            for option in re.findall(r"(?<!\S)--[A-Za-z][\w-]*", line) if name else ():
                assert option in options(known[name]) | {"--help"}, f"{page.name}: {name} has no {option}"


def test_everything_there_is_to_use_is_documented() -> None:
    """Each command, option, setting and detector is named in a page, or where the settings are explained."""
    text = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    explained = text + (ROOT / "configs" / "default.yaml").read_text()
    for name, command in commands():
        assert f"peerwatch {name}" in text, f"peerwatch {name} is documented nowhere"
        for option in options(command):
            if option.startswith("--"):
                assert re.search(rf"{option}(?![\w-])", explained), f"{option} of {name} is documented nowhere"
    default = read_config(ROOT / "configs" / "default.yaml")
    sections = (ROOT / "configs" / "default.yaml").read_text()
    for key, _ in keys():
        assert key in default.values or re.search(rf"^ *{key.rpartition('.')[2]}:", sections, re.MULTILINE), key
    for option, key in OPTION_KEYS.items():
        assert f"--{option.replace('_', '-')}" in explained, f"the option of {key} is documented nowhere"
    table = (DOCS / "detectors.md").read_text()
    for name in ("sigma", *DETECTORS):
        assert f"| `{name}` |" in table, f"the detector {name} is not in the table of docs/detectors.md"


def test_the_page_of_the_evaluation_has_the_words_it_is_made_with() -> None:
    """Where its words are edited, docs/evaluation.md follows without all detectors being evaluated again."""
    words = (ROOT / "peerwatch" / "studies" / "evaluation" / "page.md").read_text()
    page = (DOCS / "evaluation.md").read_text()
    for paragraph in words.split("\n\n"):
        assert "$" in paragraph or paragraph.strip() in page, paragraph


def test_the_glossary_is_in_order() -> None:
    """Each term once, in alphabetical order, with a link or a pointer to the term that has one."""
    entries = re.findall(r"^- \*\*(.+?)\*\*(.*(?:\n  .*)*)", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    terms = [term.lower() for term, _ in entries]
    assert terms == sorted(set(terms))
    for term, text in entries:
        assert "](" in text or "see *" in text.lower(), term


def test_the_example_lines_are_events() -> None:
    """What the README shows as events is read as events."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith('{"event_type"')]
    assert [parse_event(line.encode()).kind for line in lines] == [1, 2, 3, 1]


def test_the_documented_record_has_the_fields_of_a_real_one(tmp_path: Path) -> None:
    """docs/decisions.md names each field that a logged decision has, and no other."""
    text = (DOCS / "decisions.md").read_text()
    record = json.loads(text.partition("```json\n")[2].partition("```")[0])
    table = text.rpartition("| field | meaning |")[2]
    named = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.count("|") > 2))
    )
    (tmp_path / "stream").write_bytes(befriend(1, 2) + purchase(2, "1") * 3 + purchase(1, "5"))
    arguments = ["run", "--D", "1", "--T", "2", f"{tmp_path}/stream", f"{tmp_path}/out", "--log-level", "info"]
    CliRunner().invoke(cli, [*arguments, "--log-format", "json", "--log-file", f"{tmp_path}/log"])
    real = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    written = {*next(record for record in real if record["event"] == "decision")}
    assert named | {"event", "level"} == written
    assert set(record) == written
