"""Settings: their layers, their origins, and a clear sentence for every mistake."""

import re
from pathlib import Path

import pytest
from click import Option

from peerwatch.cli.commands.run import run
from peerwatch.cli.options import OPTION_KEYS
from peerwatch.errors import UsageError
from peerwatch.settings.model import Layer, Settings, keys, resolve, value_of
from peerwatch.settings.yaml_file import read_config

DEFAULT_YAML = Path(__file__).parents[2] / "configs" / "default.yaml"


def test_stronger_layers_win_and_origins_are_known(tmp_path: Path) -> None:
    """The command line beats the config, the config the header, the header the default."""
    config = tmp_path / "a.yaml"
    config.write_text("T: 7\nshards: 3\ndetector:\n  k: 2.5\nlogs:\n")
    settings, origins = resolve(
        Layer({"shards": 5}, {"shards": "--shards"}),
        read_config(config),
        Layer({"D": 2, "T": 50}, {"D": "batch:1", "T": "batch:1"}),
    )
    assert (settings.D, settings.T, settings.shards, settings.detector.k) == (2, 7, 5, 2.5)
    assert {key: origins[key] for key in ("D", "T", "shards", "detector.k", "strict")} == {
        "D": "batch:1", "T": f"{config}:1", "shards": "--shards", "detector.k": f"{config}:4", "strict": "default",
    }  # fmt: skip


def test_k_is_the_decimal_number_written() -> None:
    """0.1 is a tenth, not the nearest binary fraction."""
    settings, _ = resolve(Layer({"detector.k": 0.1}, {"detector.k": "--k"}))
    assert str(settings.detector.exact_k()) == "1/10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shard: 3", '{path}:1: unknown key "shard"; did you mean "shards"?'),
        ("logs:\n  levels: info", '{path}:2: unknown key "logs.levels"; did you mean "logs.level"?'),
        (
            "T: 50\nzzzzzz: 3",
            '{path}:2: unknown key "zzzzzz"; the known keys are D, T, friendships, judge_batch, shards, walkers, ',
        ),
        ('D: "3"', "{path}:1: \"D\" is '3'; expected int"),
        ("D: 0", '{path}:1: "D" is 0; expected int >= 1'),
        ("\nT: 1", '{path}:2: "T" is 1; expected int >= 2'),
        ("T: 2.5", '{path}:1: "T" is 2.5; expected int'),
        ("D: true", '{path}:1: "D" is True; expected int'),
        ("shards: 0", '{path}:1: "shards" is 0; expected int >= 1'),
        ("shards: 1000", '{path}:1: "shards" is 1000; expected int <= 256'),
        ("strict: 1", '{path}:1: "strict" is 1; expected bool'),
        ("input: x.json", '{path}:1: "input" must be a mapping of keys to values'),
        ("input:\n  batch: 5", '{path}:2: "input.batch" is 5; expected str'),
        ("detector:\n  name: 5", '{path}:2: "detector.name" is 5; expected str'),
        ("detector:\n  k: -1", '{path}:2: "detector.k" is -1; expected float >= 0'),
        ("detector:\n  k: .nan", '{path}:2: "detector.k" is nan; expected float >= 0'),
        ("detector:\n  k: .inf", '{path}:2: "detector.k" is inf; expected float <= 1000000'),
        ("logs:\n  format: xml", "{path}:2: \"logs.format\" is 'xml'; expected one of console, json"),
        ("logs:\n  users: anna", "{path}:2: \"logs.users\" is 'anna'; expected array"),
        ("logs:\n  sample: 2", '{path}:2: "logs.sample" is 2; expected float <= 1'),
        ("D: 3\nD: 4", '{path}:2: the key "D" appears twice'),
        ("D: [", "{path}:1: not valid YAML: "),
        ("D: 3\n\tT: 4", "{path}:2: not valid YAML: "),
        ("- 1", "{path}:1: the config must be a mapping of keys to values"),
        ("just words", "{path}:1: the config must be a mapping of keys to values"),
        ("D: !!python/object/apply:os.getcwd []", '{path}:1: the value of "D" cannot be read: '),
        ("D: 2001-99-99", '{path}:1: the value of "D" cannot be read: '),
        ("\x00", "{path}: not valid YAML: "),
        ("D: 1\n---\nD: 2", "{path}:2: not valid YAML: "),
    ],
)
def test_every_mistake_names_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    """One sentence, with where it stands and what was expected."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve(read_config(path))
    assert str(caught.value).startswith(message.format(path=path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "D:\ninput:\n  batch:\n"])
def test_an_empty_config_sets_nothing(text: str, tmp_path: Path) -> None:
    """A key without a value counts as not given."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert resolve(read_config(path))[0] == Settings()


def test_an_unreadable_config_is_named(tmp_path: Path) -> None:
    """Missing, a directory, not text."""
    for path, reason in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"cannot read the config {re.escape(str(path))}: {reason}"):
            read_config(path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"b.yaml: the config is not UTF-8 text"):
        read_config(tmp_path / "b.yaml")


def test_the_default_config_explains_every_key_and_gives_its_default() -> None:
    """configs/default.yaml and the settings hold the same keys; each has a comment above it and its true default."""
    text = DEFAULT_YAML.read_text()
    path: list[str] = []
    commented, found = False, []
    sections = {key[:dot] for key, _ in keys() for dot, sign in enumerate(key) if sign == "."}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            commented = True
        elif match := re.fullmatch(r"( *)(\w+):.*", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if ".".join(path) not in sections:
                found.append(".".join(path))
                assert commented, f"{found[-1]} has no comment"
            commented = False
    assert found == [key for key, _ in keys()]
    settings, _ = resolve(read_config(DEFAULT_YAML))
    assert settings == Settings()
    values = read_config(DEFAULT_YAML).values
    assert all(key in values or value_of(Settings(), key) in {None, ()} for key, _ in keys())


def test_every_option_is_named_beside_its_key() -> None:
    """Each option of `run` sets a key, and the default config says so above it."""
    text = DEFAULT_YAML.read_text()
    options = {
        option.name: option
        for option in run.params
        if isinstance(option, Option) and not option.hidden and option.name not in {"config", "reset", "force"}
    }
    assert set(OPTION_KEYS) == set(options)
    for name, key in OPTION_KEYS.items():
        section, _, own = key.rpartition(".")
        begin = text.index(f"\n{section}:") if section else 0
        above = text[: re.compile(rf"^ *{own}:", re.MULTILINE).search(text, begin).end()].splitlines()[:-1]  # type: ignore[union-attr]
        assert options[name].opts[-1] in "".join(above[-2:]), name


def test_the_live_config_can_be_used() -> None:
    """configs/live.yaml follows a log and keeps its state."""
    settings, _ = resolve(read_config(DEFAULT_YAML.with_name("live.yaml")))
    assert settings.follow
    assert settings.state.directory
    assert settings.logs.file
