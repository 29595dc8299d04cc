"""URLs of sources and sinks: their parts, and that nobody sees their secrets."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.errors import UsageError
from peerwatch.urls import ConnectorUrl, is_url, parsed, redacted

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("redis://h/k", True),
        ("influx+http://h/db", True),
        ("sqlite:verdicts.db", True),
        ("sqlite:", True),
        ("C:/logs", False),
        ("stream_log.json", False),
        ("-", False),
        ("./redis:x", False),
        ("", False),
    ],
)
def test_what_is_a_url(text: str, *, is_one: bool) -> None:
    """A path is none, whatever colons it has."""
    assert is_url(text) is is_one


def test_the_parts() -> None:
    """Percent-encoded, with a port and options, or without any of it."""
    url = parsed("postgresql://us%40er:pa%2Fss@host:5432/data%20base?sslmode=require&x=")
    assert url == ConnectorUrl(
        url.text, "postgresql", "host", 5432, "us@er", "pa/ss", "data base", {"sslmode": "require", "x": ""}
    )
    assert url.secret() == "pa/ss"
    assert parsed("redis://h") == ConnectorUrl("redis://h", "redis", "h")
    assert parsed("sqlite:/data/a b.db?x=1") == ConnectorUrl(
        "sqlite:/data/a b.db?x=1", "sqlite", path="/data/a b.db", query={"x": "1"}
    )
    with pytest.raises(UsageError, match=r"kafka://h:x/t is not a URL: Port could not be cast"):
        parsed("kafka://h:x/t")


@given(user=TEXT, password=TEXT, path=TEXT)
def test_a_password_is_never_shown(user: str, password: str, path: str) -> None:
    """Whatever it consists of; the rest is shown as it was given."""
    text = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@host:1/{quote(path)}"
    url = parsed(text)
    assert (url.user, url.password, url.path) == (user, password, path)
    assert str(url) == redacted(text) == f"redis://{quote(user, safe='')}:***@host:1/{quote(path)}"


def test_a_password_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment or in a file; the URL names where, and that is shown. What is missing is named."""
    (tmp_path / "secret").write_text("from a file\n")
    monkeypatch.setenv("SECRET", "from the environment")
    named, filed = parsed("redis://u:${SECRET}@h/k"), parsed(f"redis://u:${{file:{tmp_path}/secret}}@h/k")
    assert (named.secret(), filed.secret()) == ("from the environment", "from a file")
    assert (str(named), str(filed)) == (named.text, filed.text)
    assert not named.has_literal_password
    assert parsed("redis://u:p@h/k").has_literal_password
    assert parsed("redis://u@h/k").secret() is None
    monkeypatch.delenv("SECRET")
    with pytest.raises(UsageError, match="the environment variable SECRET is not set; set it to the password"):
        named.secret()
    with pytest.raises(UsageError, match="cannot read the password from /no: No such file or directory"):
        parsed("redis://u:${file:/no}@h/k").secret()


def test_options_are_checked() -> None:
    """An unknown one is named with those that there are."""
    url = parsed("kafka://h/t?tls=maybe")
    with pytest.raises(UsageError, match=r"there is no option 'tls'; known are partition, sasl"):
        url.check_options("partition", "sasl")
    with pytest.raises(UsageError, match=r"tls is 'maybe'; expected one of on, off"):
        url.option("tls", ("on", "off"))
    assert url.option("partition") is None
