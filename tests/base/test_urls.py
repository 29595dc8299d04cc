"""URLs of sources and sinks: their parts, and that nobody sees their secrets."""

from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peerwatch.connectors.registry import SINKS, SOURCES, TARGETS
from peerwatch.errors import UsageError
from peerwatch.urls import ConnectorUrl, is_url, parsed, redacted

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SECRETS = st.text(min_size=8).filter(lambda text: text.isprintable() and "***" not in text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("redis://h/k", True),
        ("influx+http://h/db", True),
        ("sqlite:verdicts.db", True),
        ("sqlite:", True),
        ("REDIS://h/k", True),
        ("redis:flagged", True),
        ("redis:/h/k", True),
        ("redis//:pw@h/k", True),
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
    with pytest.raises(UsageError, match=r"kafka://h:x/t is not a URL: expected HOST or HOST:PORT, and"):
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
    with pytest.raises(UsageError, match="the environment variable SECRET is not set; set it to the secret"):
        named.secret()
    with pytest.raises(UsageError, match="cannot read the secret from /no: No such file or directory"):
        parsed("redis://u:${file:/no}@h/k").secret()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis:flagged", r"redis:flagged is not a URL: write redis://, or \./ before the name of a file"),
        ("influx+http:/host/db", r"influx\+http:/host/db is not a URL: write influx\+http://, or"),
        ("nats//bob:hunter22@host/p", r"nats//\*\*\*@host/p is not a URL: write nats://, or"),
        ("redis://:hunter/22@host/key", r"redis://:\*\*\*@host/key is not a URL: expected HOST or HOST:PORT, and in"),
        ("http://bob:hunter?22@host", r"http://bob:\*\*\*@host is not a URL: expected .* %2F for a /, %3F for a \?"),
        ("redis://:[hunter22@host/key", r"redis://:\*\*\*@host/key is not a URL: expected HOST"),
        ("redis://:hunter22@ho\u2100st/key", r"redis://:\*\*\*@ho\u2100st/key is not a URL: expected HOST"),
    ],
)
def test_a_mistake_is_told_without_the_password(text: str, says: str) -> None:
    """The sentence says how it is written; what Python says of it would quote a part of it."""
    with pytest.raises(UsageError, match=says) as told:
        parsed(text)
    assert "hunter" not in str(told.value)


def test_the_schemes_of_all_connectors_may_be_misspelt() -> None:
    """Each but SQLite's, which has no slashes."""
    for group in (SINKS, SOURCES, TARGETS):
        for entry in metadata.entry_points(group=group):
            assert is_url(f"{entry.name}:x")


def test_options_are_checked() -> None:
    """An unknown one is named with those that there are."""
    url = parsed("kafka://h/t?tls=maybe")
    with pytest.raises(UsageError, match=r"there is no option 'tls'; known are partition, sasl"):
        url.check_options("partition", "sasl")
    with pytest.raises(UsageError, match=r"tls is 'maybe'; expected one of on, off"):
        url.option("tls", ("on", "off"))
    assert url.option("partition") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("flagged.json", "flagged.json"),
        ("sqlite:verdicts.db", "sqlite:verdicts.db"),
        ("redis://127.0.0.1:6379/key", "redis://127.0.0.1:6379/key"),
        ("redis://ann:hunter22@host/key", "redis://ann:***@host/key"),
        ("redis://:hunter22@host/key?a=b@c", "redis://:***@host/key?a=b@c"),
        ("redis://ann:${PASSWORD}@host", "redis://ann:${PASSWORD}@host"),
        ("redis://ann:${file:/run/secret}@host/key", "redis://ann:${file:/run/secret}@host/key"),
        ("redis://ann:hunter/22@host/key", "redis://ann:***@host/key"),
        ("redis://ann:hunter#22@host/key", "redis://ann:***@host/key"),
        ("redis://ann:12#hunter@host/key", "redis://ann:***@host/key"),
        ("redis://ann:hunter?22@host/key?db=1", "redis://ann:***@host/key?db=1"),
        ("kafka://a:1,b:2/topic?sasl_password=hunter22&acks=all", "kafka://a:1,b:2/topic?sasl_password=***&acks=all"),
        ("influx+http://host?bucket=b&token=hunter22", "influx+http://host?bucket=b&token=***"),
        ("influx+http://host?TOKEN=hunter22#more", "influx+http://host?TOKEN=***"),
        ("influx+http://host?bucket=b&token=${TOKEN}", "influx+http://host?bucket=b&token=${TOKEN}"),
        ("influx+http://host?t%6fken=hunter22", "influx+http://host?t%6fken=***"),
        ("https://host/hook?batch=3&secret=whsec_hunter22", "https://host/hook?batch=3&secret=***"),
        ("https://host/hook?a=hunter22&b=${B}", "https://host/hook?a=***&b=${B}"),
        ("https://host/hook?hunter22", "https://host/hook?***"),
        ("https://host/hook?tls_ca=/etc/ca.pem&insecure=true", "https://host/hook?tls_ca=/etc/ca.pem&insecure=true"),
        ("http://[::1]:80/hook?x=a@b", "http://[::1]:80/hook?x=***"),
        ("REDIS://ann:hunter22@host/key", "REDIS://ann:***@host/key"),
        ("redis:/:hunter22@host:1/key", "redis:/***@host:1/key"),
        ("redis//ann:hunter@22@host/key", "redis//***@host/key"),
        ("postgresql:ann:hunter22@host/db?password=hunter22", "postgresql:***@host/db?password=***"),
        ("https:host/hook?hunter22", "https:host/hook?***"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    """Passwords, also malformed ones, secrets in queries, and all that a webhook's receiver is told."""
    assert redacted(text) == shown


@example("${HOME}${file:/etc/hostname}", "redis://ann:{}@host/key")
@example("${UNSET_NAME}", "influx+http://host?token={}")
@given(SECRETS, st.sampled_from(["redis://ann:{}@host/key", "influx+http://host?token={}", "https://host?anything={}"]))
def test_no_secret_is_shown_whatever_it_is(secret: str, url: str) -> None:
    """Written as URLs want it, it is read back as it was, and no part of it is in the URL that is shown."""
    text = url.format(quote(secret, safe=""))
    url_of = parsed(text)
    assert secret in {url_of.secret(), url_of.secret("token"), url_of.secret("anything")}
    assert str(url_of) == url.format("***")


def test_secrets_come_from_where_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or a file, as a password, a query parameter or a part of a path; never percent-decoded."""
    monkeypatch.setenv("KEPT", "a%41/?#@&=+")
    (tmp_path / "kept").write_text("of a file\n")
    url = parsed(f"https://ann:${{KEPT}}@host:8443/a/${{KEPT}}?secret=${{file:{tmp_path}/kept}}&b=1%202")
    assert (url.secret(), url.secret("secret"), url.secret("none")) == ("a%41/?#@&=+", "of a file", None)
    assert (url.host, url.port, url.user, url.path) == ("host", 8443, "ann", "a/${KEPT}")
    assert url.target == f"/a/${{KEPT}}?secret=${{file:{tmp_path}/kept}}&b=1%202"
    assert url.secrets_in(url.path) == {"${KEPT}": "a%41/?#@&=+"}
    assert url.query["b"] == "1 2"
    assert str(url) == f"https://ann:${{KEPT}}@host:8443/a/${{KEPT}}?secret=${{file:{tmp_path}/kept}}&b=***"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("redis://host", False),
        ("redis://ann:${PASSWORD}@host", False),
        ("redis://ann:hunter22@host", True),
        ("influx+http://host?token=hunter22", True),
        ("influx+http://host?token=${TOKEN}", False),
        ("https://host?secret=hunter22", True),
        ("https://host?a=b", False),
    ],
)
def test_secrets_that_stand_in_the_url_itself_are_known(text: str, literal: bool) -> None:
    """Those are warned about."""
    assert parsed(text).has_literal_password is literal


@pytest.mark.parametrize("kept", ["${NOWHERE_TO_BE_FOUND}", "${file:/nowhere/to/be/found}"])
def test_a_secret_that_is_missing_is_named(kept: str) -> None:
    """By the name of the variable, or the file."""
    with pytest.raises(UsageError, match=r"NOWHERE_TO_BE_FOUND is not set|cannot read the secret from /nowhere"):
        parsed(f"https://host?secret={kept}").secret("secret")


def test_a_fragment_is_refused() -> None:
    """Nothing of the URL is ignored in silence; a secret that was cut by its # is not shown."""
    with pytest.raises(UsageError, match=r"influx\+http://host\?token=\*\*\*: .*write %23 where a # is meant"):
        parsed("influx+http://host?token=hunter#22")
