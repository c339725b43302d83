"""What the end of a search needs and its trials play no part in: done by a thread while they run, so that less is left
to do after them."""

from __future__ import annotations

from concurrent.futures import Future
from importlib import import_module
from threading import Thread

from registry.watched import watched
from retrain.boosted import Boosted, fit_boosted
from retrain.search.material import Material

MODULES = ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg")
"""Libraries of the export and of the card's pictures, which take a second to import."""


class Ahead:
    """The boosted reference of a table, and the libraries. That of images reads what the finished graph says of them,
    and has to wait for it. A search that is interrupted does not wait for the thread: what it makes is made again."""

    def __init__(self, material: Material, seed: int) -> None:
        self._boosted: Future[Boosted] | None = None if material.schema.image is not None else Future()
        Thread(target=_work, args=(material, seed, self._boosted), name="ahead", daemon=True).start()

    def boosted(self) -> Boosted | None:
        """The reference, when it is there; None where it is not made ahead. Raises what its fit raised."""
        return None if self._boosted is None else self._boosted.result()


def _work(material: Material, seed: int, boosted: Future[Boosted] | None) -> None:
    try:
        _import()
        if boosted is not None:
            boosted.set_result(_fit(material, seed))
    except BaseException as error:
        if boosted is None:
            raise
        boosted.set_exception(error)  # to whoever waits for it


def _fit(material: Material, seed: int) -> Boosted:
    schema, target = watched(material.schema), material.task.target
    return fit_boosted(material.frame, schema, material.target, target, material.parts, seed=seed)


def _import() -> None:
    for name in MODULES:
        import_module(name)
