"""A bundle's graph for serving: the same answers as `model.onnx` for less than half of what a single row costs there.

    numbers   double (n, d)   columns of numbers, truth values and texts side by side, NaN where missing
    moments   int64 (n, m)    moments, as in `model.onnx`
    codes     int64 (n, c)    categories by number: 0 unknown, 1 missing, 2... the categories in their order
    answers   float (n, k + 2) probabilities, uncertainty, disagreement; of a regression (n, 3), the prediction first

What columns the matrices hold is in the model's metadata under `LAYOUT`. Bundles from before, and those that read
images, have no such graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from registry.bundle import MODEL, SERVING, ModelBundle
from registry.errors import BundleError
from registry.schema import Schema
from registry.scoring import GRAPH_ERRORS, Feed, Scorer, Scores, session_options

NUMBERS, MOMENTS, CODES, ANSWERS = "numbers", "moments", "codes", "answers"
LAYOUT = "everfit_layout"
UNKNOWN, ABSENT = 0, 1
PART_ROWS = 128
"""So many rows go through the graph at once: 1,024 of them take as long in parts, and an eighth of the memory."""

_Write: TypeAlias = Callable[..., None]
"""Takes a matrix's values from left to right, row by row."""


class Coded(NamedTuple):
    """A column of categories, and which of them have a number."""

    column: str
    categories: tuple[str, ...]


class Layout(NamedTuple):
    """What stands in the matrices, from left to right: numbers and how wide their columns are, moments, categories."""

    numbers: dict[str, int]
    moments: tuple[str, ...]
    codes: tuple[Coded, ...]

    def to_json(self) -> str:
        """As the model's metadata hold it."""
        return json.dumps(self._asdict())

    @classmethod
    def of_json(cls, text: str) -> Layout:
        """The inverse. Raises `ValueError`, `LookupError` or `TypeError` for another text."""
        told = json.loads(text)
        codes = tuple(Coded(name, tuple(categories)) for name, categories in told["codes"])
        return cls(dict(told["numbers"]), tuple(told["moments"]), codes)


class ServingGraph:
    """A loaded graph for serving."""

    def __init__(self, session: ort.InferenceSession, schema: Schema, where: Path) -> None:
        """Raises `BundleError` for a graph whose layout is not one of this schema, or that asks for other inputs or has
        other outputs; `where` is quoted."""
        try:
            layout = Layout.of_json(session.get_modelmeta().custom_metadata_map[LAYOUT])
        except (ValueError, LookupError, TypeError) as error:
            raise BundleError(f"{where}: no layout of a graph for serving") from error
        if strange := {*layout.numbers, *layout.moments, *(one.column for one in layout.codes)} - {*schema.names}:
            raise BundleError(f"{where}: reads columns that the schema lacks: {', '.join(sorted(strange))}")
        self._inputs = {one.name for one in session.get_inputs()}
        if self._inputs - {NUMBERS, MOMENTS, CODES} or [one.name for one in session.get_outputs()] != [ANSWERS]:
            raise BundleError(f"{where}: has other inputs or outputs than a graph for serving")
        self.session, self._layout = session, layout
        # ONNX Runtime's own `run` looks at each input in Python first, which takes a tenth of a single row's time
        self._call = getattr(session, "_sess", session).run
        self._codes = [_numbered(one.categories) for one in layout.codes]
        narrow = set(layout.numbers.values()) <= {1}
        self._rows = _Rows(layout, self._codes, schema, session) if narrow else None

    @classmethod
    def open(cls, path: Path, schema: Schema, *, threads: int = 1) -> ServingGraph:
        """Open a graph for `threads` threads a call. Raises `BundleError`."""
        try:
            session = ort.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
        except GRAPH_ERRORS as error:
            raise BundleError(f"{path}: does not load: {str(error)[:300]}") from error
        return cls(session, schema, path)

    @property
    def takes_rows(self) -> bool:
        """Whether `rows` may be called: every column is one value wide."""
        return self._rows is not None

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The `answers` to the rows in inputs by column, as `feed` gives them."""
        return self._run(self._packed(inputs))

    def rows(self, values: Sequence[Sequence[Any]]) -> list[list[float]]:
        """The `answers` to a few rows of values in the schema's order, each as `feed` has it; from one thread alone."""
        assert self._rows is not None
        found: list[list[float]] = self._rows.answers(values).tolist()
        return found

    def _run(self, feed: Feed) -> npt.NDArray[np.float32]:
        """Some rows at a time: what is reckoned on the way stays small."""
        starts = range(0, max(1, *map(len, feed.values())), PART_ROWS)
        parts = ({name: matrix[at : at + PART_ROWS] for name, matrix in feed.items()} for at in starts)
        found = [self._once(part) for part in parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _once(self, feed: Feed) -> npt.NDArray[np.float32]:
        (found,) = self._call([ANSWERS], feed, None)
        return np.asarray(found)

    def _packed(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Feed:
        layout, n = self._layout, len(next(iter(inputs.values())))
        numbers = [np.empty((n, 0)), *(inputs[name] for name in layout.numbers)]
        codes = np.empty((n, len(layout.codes)), dtype=np.int64)
        for place, (one, number) in enumerate(zip(layout.codes, self._codes, strict=True)):
            codes[:, place] = [number.get(value, UNKNOWN) for value in inputs[one.column][:, 0].tolist()]
        moments = [np.empty((n, 0), dtype=np.int64), *(inputs[name] for name in layout.moments)]
        made = {NUMBERS: np.concatenate(numbers, axis=1), MOMENTS: np.concatenate(moments, axis=1), CODES: codes}
        return {name: made[name] for name in self._inputs}


class ServingScorer(Scorer):
    """A bundle's graph for serving, as others know its own."""

    def __init__(self, bundle: ModelBundle, graph: ServingGraph) -> None:
        super().__init__(bundle, graph.session)
        self.graph = graph

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """As `Graph.run`."""
        return scores_of(self.graph.run(inputs), self.bundle.manifest.target.classes, self.conformal_radius)


class _Bound(NamedTuple):
    """What writes the matrices of so many rows, the graph's inputs and output bound to them, and the answers' one."""

    writes: tuple[_Write, ...]
    binding: Any
    answers: npt.NDArray[np.float32]


class _Rows:
    """Answers rows of values in the schema's order, for columns that are one number wide.

    The matrices made for as many rows are used again, with that of the answers: call `answers` from one thread, and use
    what it returns before the next call. Numbers written into their bytes cost a third of what arrays made of lists do,
    and matrices that are bound to the graph once save 4 us a call.
    """

    def __init__(
        self, layout: Layout, codes: Sequence[dict[str, int]], schema: Schema, session: ort.InferenceSession
    ) -> None:
        place = {name: number for number, name in enumerate(schema.names)}
        self._numbers = _getter([place[name] for name in layout.numbers])
        self._moments = _getter([place[name] for name in layout.moments])
        self._codes = [(place[one.column], number.get) for one, number in zip(layout.codes, codes, strict=True)]
        self._widths = {NUMBERS: len(layout.numbers), MOMENTS: len(layout.moments), CODES: len(layout.codes)}
        self._session, self._made = session, dict[int, _Bound]()

    def answers(self, rows: Sequence[Sequence[Any]]) -> npt.NDArray[np.float32]:
        """The answers to rows."""
        numbers, moments, codes = self._numbers, self._moments, self._codes
        (write_numbers, write_moments, write_codes), binding, found = self._made.get(len(rows)) or self._make(len(rows))
        write_numbers(*chain.from_iterable(map(numbers, rows)))
        write_moments(*chain.from_iterable(map(moments, rows)))
        write_codes(*[code(row[place], UNKNOWN) for row in rows for place, code in codes])
        self._session.run_with_iobinding(binding)
        return found

    def _make(self, n: int) -> _Bound:
        inputs = {one.name for one in self._session.get_inputs()}
        writes, feed = list[_Write](), Feed()
        for name, width in self._widths.items():
            form = Struct(f"={n * width}{'d' if name == NUMBERS else 'q'}")
            matrix = np.zeros((n, width), dtype=np.float64 if name == NUMBERS else np.int64)
            writes.append(partial(form.pack_into, matrix.data.cast("B") if width else bytearray(), 0))
            if name in inputs:
                feed[name] = matrix
        found = np.asarray(self._session.run([ANSWERS], feed)[0])  # of the shape of all that will be written into it
        binding = self._session.io_binding()
        for name, matrix in feed.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(matrix))  # its memory, not a copy
        binding.bind_ortvalue_output(ANSWERS, ort.OrtValue.ortvalue_from_numpy(found))
        self._made[n] = _Bound(tuple(writes), binding, found)
        return self._made[n]


def scores_of(matrix: npt.NDArray[np.float32], classes: Sequence[str], radius: float) -> Scores:
    """What rows of `answers` say, with sets or intervals of this conformal radius, as `Scores.at` makes them."""
    uncertainty, disagreement = np.ascontiguousarray(matrix[:, -2:].T)
    if not classes:
        return Scores(np.ascontiguousarray(matrix[:, 0]), uncertainty, disagreement).at(radius)
    p = np.ascontiguousarray(matrix[:, :-2])
    top = p.argmax(axis=1)
    highest = p[np.arange(len(p)), top]
    sets = p >= np.minimum(highest, np.float32(1 - radius))[:, None]
    return Scores(np.array(classes, dtype=object)[top], uncertainty, disagreement, p, sets)


def open_for_serving(bundle: ModelBundle, *, threads: int = 1, tell: Callable[[str], None]) -> Scorer:
    """The graph that serving runs, tried on the golden rows: that for serving where it gives their answers, else the
    bundle's own, which `tell` is told with the reason. Raises `BundleError` when neither gives them."""
    if SERVING in bundle.manifest.files:
        try:
            graph = ServingGraph.open(bundle.folder / SERVING, bundle.manifest.data_schema, threads=threads)
            quick = ServingScorer(bundle, graph)
            quick.self_test()
        except BundleError as error:
            tell(f"{SERVING} is not used, {MODEL} answers, which takes longer: {error}")
        else:
            return quick
    elif bundle.manifest.data_schema.image is None:
        tell(f"its bundle has no {SERVING}, {MODEL} answers, which takes longer")
    own = Scorer.load(bundle, threads=threads)
    own.self_test()
    return own


def _numbered(categories: Sequence[str]) -> dict[str, int]:
    return {"": ABSENT} | {name: number for number, name in enumerate(categories, ABSENT + 1)}


def _getter(places: Sequence[int]) -> Any:
    """What gives a row's values at these places, as a tuple or a list."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda row: [row[place] for place in places]
