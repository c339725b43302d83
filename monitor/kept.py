"""What windows beside one reference have in common, kept from pass to pass of a process: to prepare the reference, to
learn what its labels take off an estimate, and to find how surely its own stretches are told from it, takes a pass as
long as its windows do.

It is a function of the manifest, which holds the hashes of the bundle's files, and of which columns are encrypted: they
are the key. Nothing of it is written down.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from monitor.views import Side, reference_side
from registry.bundle import Manifest, ModelBundle

MOST = 2
"""References that are kept: a champion's, and one whose columns are others."""

MOST_USES = 256
"""Passes after which one is prepared anew: of each size of a window a little is remembered."""


@dataclass
class Common:
    """A reference, and what is measured of it once (`View.memory`)."""

    reference: Side
    memory: dict[str, Any] = field(default_factory=dict)
    uses: int = 0


_KEPT: OrderedDict[bytes, Common] = OrderedDict()


def common_of(bundle: ModelBundle, manifest: Manifest, sealed: Collection[str]) -> Common:
    """What windows of these columns have in common: `manifest` is the bundle's, of fewer columns where not all are
    watched. Of a bundle whose files have no hashes nothing is kept."""
    if not manifest.files:
        return Common(reference_side(bundle, manifest))
    key = hashlib.sha256("\0".join([manifest.model_dump_json(), *sorted(sealed)]).encode()).digest()
    found = _KEPT.pop(key, None)
    if found is None or found.uses >= MOST_USES:
        found = Common(reference_side(bundle, manifest))
    found.uses += 1
    _KEPT[key] = found
    while len(_KEPT) > MOST:
        _KEPT.popitem(last=False)
    return found
