"""The key of this machine's own programs, `everfit status`, `up` and `replay` and the status page, which ask the
endpoint too: who has it ask for keys need not give them one.

An endpoint makes it anew at each start, with every scope, for those who may read its user's files, who could as well
make themselves a key with `everfit key add`:

    served/workers/PORT/key    mode 0600; what an endpoint leaves behind opens nothing any more
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_FILE, _BYTES = "key", 32


def make_own_key(folder: Path) -> None:
    """Put a new key into the folder of an endpoint. Raises `OSError`."""
    file = folder / _FILE
    file.unlink(missing_ok=True)  # another's file would keep its mode
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
        opened.write(secrets.token_urlsafe(_BYTES))


def own_secret(folder: Path) -> str | None:
    """The key in the folder of an endpoint; None where there is none, or one may not read it."""
    try:
        return (folder / _FILE).read_text(encoding="ascii") or None
    except (OSError, ValueError):
        return None
