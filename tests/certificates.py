"""Certificates for servers and clients of a test, signed by an authority that nobody else trusts."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from servers import installed

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Certificates(NamedTuple):
    """Files: the authority's certificate, and a certificate with its key for a server on loopback and for a client."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def certificates(directory: Path) -> Certificates:
    """New ones, in a directory."""
    authority, key = directory / "authority.pem", directory / "authority.key"
    usage = "-addext keyUsage=critical,keyCertSign"  # Python 3.13 wants it
    _openssl(f"req -x509 {NEW_KEY} {usage} -subj /CN=authority -out {authority} -keyout {key}")
    made = []
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        certificate, own = directory / f"{name}.pem", directory / f"{name}.key"
        request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
        extensions.write_text(f"{extension}\nauthorityKeyIdentifier=keyid\n")
        _openssl(f"req {NEW_KEY} -subj /CN={name} -out {request} -keyout {own}")
        signed = f"-CA {authority} -CAkey {key} -CAcreateserial -extfile {extensions} -days 2"
        _openssl(f"x509 -req -in {request} {signed} -out {certificate}")
        own.chmod(0o644)  # a server may run as somebody else
        made += [certificate, own]
    return Certificates(authority, *made)


def _openssl(arguments: str) -> None:
    subprocess.run([installed("openssl"), *arguments.split()], check=True, capture_output=True)
