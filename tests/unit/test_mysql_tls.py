"""What is checked of a server of MySQL, and which files of TLS are taken."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from jivs.connectors import _mysql_tls as tls
from jivs.errors import UsageError


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``server.crt`` of ``here.example``, which the authority in ``ca.crt`` signed, and other files that are like it."""
    folder = tmp_path_factory.mktemp("keys")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, *new, "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(folder, *new, "-x509", "-subj", "/CN=authority", "-keyout", "other.key", "-out", "other.crt")
    openssl(folder, *new, "-subj", "/CN=here.example", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:here.example")
    signed = ("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(folder, *signed, "-extfile", "names", "-out", "server.crt")
    openssl(folder, "ec", "-in", "server.key", "-aes128", "-passout", "pass:s3cr3t", "-out", "locked.key")
    (folder / "text").write_text("no key")
    return folder


def shake(client: ssl.SSLContext, keys: Path, name: str) -> None:
    """Raises SSLError where the client does not trust the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys / "server.crt", keys / "server.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)
    for end in (ours, theirs, ours, theirs):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize(("mode", "trusted", "name", "wrong"), [
    ("preferred", "", "there.example", ""), ("required", "", "there.example", ""),
    ("verify_ca", "ca.crt", "there.example", ""), ("verify_identity", "ca.crt", "here.example", ""),
    ("verify_ca", "server.crt", "there.example", ""), ("verify_identity", "server.crt", "here.example", ""),
    ("verify_ca", "", "here.example", "unable to get"), ("verify_ca", "other.crt", "here.example", "verify failed"),
    ("verify_identity", "", "here.example", "unable to get"), ("verify_identity", "ca.crt", "there.example", "Hostname mismatch"),
    ("verify_identity", "server.crt", "there.example", "Hostname mismatch"), ("", "", "there.example", ""),
    ("", "ca.crt", "there.example", ""), ("", "other.crt", "here.example", "verify failed"),
])  # fmt: skip
def test_what_is_checked(keys: Path, mode: str, trusted: str, name: str, wrong: str) -> None:
    made = tls.context(tls.Options(ssl_mode=mode, ssl_ca=str(keys / trusted) if trusted else ""))
    if wrong:
        with pytest.raises(ssl.SSLCertVerificationError, match=wrong):
            shake(made, keys, name)
    else:
        shake(made, keys, name)


def test_a_certificate_of_the_client(keys: Path) -> None:
    tls.context(tls.Options(ssl_mode="required", ssl_cert=str(keys / "server.crt"), ssl_key=str(keys / "server.key")))
    both = keys / "both.pem"
    both.write_bytes((keys / "server.crt").read_bytes() + (keys / "server.key").read_bytes())
    tls.context(tls.Options(ssl_mode="required", ssl_cert=str(both)))


@pytest.mark.parametrize("mode", ["disabled", "preferred", "required"])
def test_authorities_that_nobody_would_be_checked_against_are_refused(mode: str) -> None:
    with pytest.raises(ValidationError, match="verify_ca or verify_identity"):
        tls.Options(ssl_mode=mode, ssl_ca="ca.crt")


@pytest.mark.parametrize(("authorities", "certificate", "key", "said"), [
    ("nothing", "", "", "ssl_ca, .*nothing, cannot be used: No such file"), ("text", "", "", "ssl_ca, .*text, .*: there is nothing"),
    ("", "nothing", "server.key", "ssl_cert, .*nothing, cannot"), ("", "server.crt", "nothing", "ssl_key, .*nothing, cannot"),
    ("", "server.crt", "locked.key", "locked.key has a pass phrase"), ("", "text", "server.key", "both in the form PEM"),
    ("", "server.crt", "other.key", "the key that belongs to it"), ("", "server.crt", "", "the key that belongs to it"),
    ("", "", "server.key", "with ssl_cert"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_is_named(keys: Path, authorities: str, certificate: str, key: str, said: str) -> None:
    ca, cert, own = (str(keys / name) if name else "" for name in (authorities, certificate, key))
    with pytest.raises(UsageError, match=said):
        tls.context(tls.Options(ssl_mode="verify_ca", ssl_ca=ca, ssl_cert=cert, ssl_key=own))
