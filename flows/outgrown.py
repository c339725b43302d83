"""Versions that nobody comes back to: what a champion that follows has outgrown, and what a kill has left behind."""

from __future__ import annotations

from collections.abc import Sequence

from flows.publishing import alias_of
from flows.stages import say
from flows.workplace import Workplace
from registry.errors import RegistryError
from registry.moves import CHALLENGER, CHAMPION, PREVIOUS

KEPT = 3
"""Versions of a chain that keep their files, the newest, beside its first and those that bear an alias."""
STEP_TAG = "everfit.step"
"""Tag of a version that a step has made with the version that it was a step of."""


def thin_out(place: Workplace, chain: Sequence[str]) -> None:
    """Let the files of the versions go that have grown too old for anybody to come back to: one a step, with the one
    before it, what a kill has left half done, and steps from the newest two that a kill came before the ledger knew of.
    What they were stays in the registry; the first, which was promoted, may come back as a former champion. A registry
    that lets nothing be deleted keeps them: the step is made."""
    name, named = place.task.name, {alias_of(place, name) for name in (CHAMPION, CHALLENGER, PREVIOUS)}
    unknown = [one for before in chain[-2:] for one in place.versions.tagged(name, STEP_TAG, before)]
    gone = (*place.versions.half_gone(name), *chain[1:-KEPT][-2:], *(one for one in unknown if one not in chain))
    for version in dict.fromkeys(gone):
        try:
            if version not in named:
                place.versions.thin(name, version)
        except RegistryError as error:
            say(f"the files of version {version}, which nobody needs, stay: {error}")
