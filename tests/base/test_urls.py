"""URLs of sources and sinks: what they name, and that nobody sees their secrets."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.errors import UsageError
from peerwatch.urls import parsed, redacted

SECRETS = st.text(min_size=8).filter(lambda text: text.isprintable() and "***" not in text)


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
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    """Passwords, also malformed ones, secrets in queries, and all that a webhook's receiver is told."""
    assert redacted(text) == shown


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
