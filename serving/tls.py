"""The certificate of an endpoint: checked before it starts, and trusted by this machine's own programs."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from registry.errors import InputError
from registry.settings import Settings

_CERTIFICATE = re.compile(r"-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----.+?-----END \1-----", re.DOTALL)


def check_tls(settings: Settings) -> None:
    """Raises `InputError` when certificate and key cannot be read, are not PEM, do not belong together, or the key is
    encrypted. Without TLS there is nothing to check."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    cert, key = (_readable(path) for path in (settings.tls_cert, settings.tls_key))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_encrypted)
    except ssl.SSLError as error:
        why = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else f"not PEM ({error.reason})"
        raise InputError(f"EVERFIT_TLS_CERT={cert}, EVERFIT_TLS_KEY={key}: {why}") from error


def trusted(settings: Settings) -> ssl.SSLContext | bool:
    """What this machine's own programs verify the endpoint by: its very certificate, which need not name the address
    they use, nor be of an authority that the machine knows. Those that follow it in its file are not trusted: whatever
    else they have signed would be taken for the endpoint. True, which is httpx's default, without TLS. Raises
    `InputError` for a certificate that cannot be read."""
    if settings.tls_cert is None:
        return True
    found = _CERTIFICATE.search(_readable(settings.tls_cert).read_text(encoding="latin-1"))
    if found is None:
        raise InputError(f"EVERFIT_TLS_CERT={settings.tls_cert}: not PEM (there is no certificate)")
    try:
        context = ssl.create_default_context(cadata=found[0])
    except ssl.SSLError as error:
        raise InputError(f"EVERFIT_TLS_CERT={settings.tls_cert}: not PEM ({error.reason})") from error
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # one that is not its own issuer is trusted as well
    return context


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        name = "EVERFIT_TLS_CERT or EVERFIT_TLS_KEY"
        raise InputError(f"{name}: {path}: cannot be read ({error.strerror})") from error
    return path


def _encrypted() -> str:
    """Called for the password of a key that has one: nobody is at the terminal of a server."""
    raise InputError("EVERFIT_TLS_KEY: the key is encrypted; expected one without a password, readable by nobody else")
