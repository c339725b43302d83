"""What this machine's own programs take for the endpoint: its very certificate, and no other of its authority."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from registry.errors import InputError
from registry.settings import Settings
from serving.tls import trusted
from tests.certificates import make_certificate

PEM = serialization.Encoding.PEM


def signed(folder: Path, name: str, issuer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate of the authority; its own where the keys are the same."""
    now, of = datetime.now(UTC), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    by = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    built = x509.CertificateBuilder(by, of, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.BasicConstraints(ca=key is issuer, path_length=None), critical=True)
    plain = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(plain)
    return built.sign(issuer, hashes.SHA256()).public_bytes(PEM)


def meets(client: ssl.SSLContext, chain: Path, key: Path) -> bool:
    """Whether a client trusts a server with this certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True


def test_another_certificate_of_the_same_authority_is_not_the_endpoint(tmp_path: Path) -> None:
    """The file of a certificate often has its authority's behind it, which signs for anybody."""
    authority, mine, others = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = signed(tmp_path, "authority", authority, authority)
    for name, key in (("mine", mine), ("others", others)):
        (tmp_path / f"{name}.pem").write_bytes(signed(tmp_path, name, authority, key) + root)
    settings = Settings(home=tmp_path, tls_cert=tmp_path / "mine.pem", tls_key=tmp_path / "mine.key")
    client = trusted(settings)
    assert isinstance(client, ssl.SSLContext)
    assert meets(client, tmp_path / "mine.pem", tmp_path / "mine.key")
    assert not meets(client, tmp_path / "others.pem", tmp_path / "others.key")


def test_one_of_its_own_is_trusted_and_no_certificate_is_told(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path / "own")
    client = trusted(Settings(home=tmp_path, tls_cert=cert, tls_key=key))
    assert isinstance(client, ssl.SSLContext)
    assert meets(client, cert, key)
    assert trusted(Settings(home=tmp_path)) is True
    cert.write_text("no certificate")
    with pytest.raises(InputError, match="not PEM"):
        trusted(Settings(home=tmp_path, tls_cert=cert, tls_key=key))
