"""What the spaces of neural architecture search have in common (survey: Wistuba, Rawat & Pedapati 2019,
arXiv 1905.01392): an architecture is described apart from the kind of data that it is for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Protocol, TypeVar

from registry.errors import TaskError
from retrain.families.base import ACTIVATIONS, Candidate, Reads
from retrain.families.drawing import Drawing
from retrain.families.embeddings import INPUT_PARAMETERS, InputEncoder
from retrain.families.encodings import paths_of
from retrain.families.image_operations import IMAGE
from retrain.families.modality import Modality, Style
from retrain.families.parameters import Choice, Option, Parameter, Real, Whole
from retrain.families.picture import Features, PictureFamily
from retrain.families.sharing import Mixture
from retrain.families.stack import Body, BodyNet, Cell, Stack
from retrain.families.table_operations import TABLE
from retrain.families.wiring import SKIP, Wiring
from retrain.image_source import ImageInput

Parts = TypeVar("Parts", contravariant=True)
Made = TypeVar("Made", covariant=True)
MODALITIES: dict[Reads, Modality] = {"table": TABLE, "image": IMAGE}


class ArchitectureSpace(PictureFamily):
    """A space of architectures for any modality: as a family it is one for tables, and one for images."""

    reads: ClassVar[frozenset[Reads]] = frozenset({"table", "image"})

    @abstractmethod
    def dimensions(self, modality: Modality) -> tuple[Parameter, ...]:
        """The dimensions of its bodies."""

    @abstractmethod
    def body(self, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1) -> Body:
        """The body of a candidate: (n, d_in) or (n, d_in, side, side) -> (n, body.d_out). Rows of tables come in the
        candidate's own width, which is what `d_in` is by default."""

    def decisions(self, modality: Modality) -> tuple[Parameter, ...]:
        """The dimensions in which the paths of its supernet differ; none where it has no supernet."""
        return ()

    def shared_body(
        self, mixture: Mixture, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1
    ) -> Body:
        """The body that holds all architectures under a candidate's template, its modules called as theirs are.
        `mixture` says which are on. Raises `TaskError` where the space has none."""
        raise TaskError(f"family {self.name!r} has no supernet")

    def parameters(self) -> tuple[Parameter, ...]:
        """The dimensions of its bodies for tables, and the encoder's."""
        return (*self.dimensions(TABLE), *INPUT_PARAMETERS)

    def parameters_for(self, reads: Reads) -> tuple[Parameter, ...]:
        """For images the bodies' alone: the columns beside them have an encoder of their own."""
        return self.dimensions(IMAGE) if reads == "image" else self.parameters()

    def features(self, candidate: Candidate, image: ImageInput) -> Features:
        """The body of a candidate, for images."""
        body = self.body(candidate, IMAGE, d_in=image.channels, side=image.size)
        return Features(body, body.d_out, parts=True)

    def build(self, candidate: Candidate, d_numeric: int, cardinalities: Sequence[int], d_out: int) -> BodyNet:
        """The network of a candidate, for tables."""
        inputs = InputEncoder.of(candidate.choices, d_numeric, cardinalities)
        return BodyNet(inputs, self.body(candidate, TABLE), d_out)


class WiredSpace(ArchitectureSpace):
    """A space of graphs of operations."""

    longest: ClassVar[int]
    """How many operations are on a path at most."""

    @abstractmethod
    def graph_dimensions(self, modality: Modality) -> tuple[Option, ...]:
        """The dimensions of its graphs."""

    @abstractmethod
    def wirings(self, choices: Mapping[str, Choice]) -> dict[str, Wiring]:
        """The graphs that choices describe by their names, without what is on no path from input to output."""

    @abstractmethod
    def alphabet(self, modality: Modality) -> tuple[str, ...]:
        """The operations that paths are made of."""

    def dimensions(self, modality: Modality) -> tuple[Parameter, ...]:
        """The graphs', and the template's."""
        return (*self.graph_dimensions(modality), *template_dimensions(modality))

    def parts(self, choices: Mapping[str, Choice]) -> dict[str, str]:
        """The operations, by graph and edge."""
        wirings = self.wirings(choices).items()
        return {f"{name} {edge.name}": edge.operation for name, one in wirings for edge in one.edges if edge.operation}

    def drawing(self, choices: Mapping[str, Choice]) -> Drawing:
        """Its graphs side by side, the names of their nodes with their own before them where there are several."""
        wirings = self.wirings(choices)
        return drawn(
            {f"{name} " if len(wirings) > 1 else "": one for name, one in wirings.items()}, template_caption(choices)
        )

    def path_encoding(self, choices: Mapping[str, Choice], reads: Reads = "table") -> tuple[int, ...]:
        """Graph by graph, input by input: alike for isomorphic ones."""
        wirings = self.wirings(self.canonical(choices)).values()
        return tuple(bit for one in wirings for bit in paths_of(one, self.alphabet(MODALITIES[reads]), self.longest))


class CellSpace(WiredSpace):
    """A space of one graph, the cell, under the template of `Stack`: the number of cells and their width are dimensions
    apart from the cell's own, so that a cell found on one data set is used on another."""

    @abstractmethod
    def cell(self, choices: Mapping[str, Choice]) -> Wiring:
        """The cell that choices describe, without what is on no path from its input to its output."""

    def wirings(self, choices: Mapping[str, Choice]) -> dict[str, Wiring]:
        """The cell."""
        return {"cell": self.cell(choices)}

    def body(self, candidate: Candidate, modality: Modality, *, d_in: int | None = None, side: int = 1) -> Stack:
        """The cell of a candidate, stacked."""
        return stacked(Stack, partial(Cell, self.cell(candidate.choices)), candidate, modality, d_in=d_in, side=side)


def template_dimensions(modality: Modality, most_cells: int = 4) -> tuple[Parameter, ...]:
    """How many cells in a stage, how wide in the first, and the style of all operations."""
    return (
        Whole("cells", 1, most_cells),
        Whole("width", *modality.widths),
        Option("activation", tuple(ACTIVATIONS)),
        Option("normalisation", modality.normalisations),
        Real("dropout", 0.0, 0.5),
    )


class MakeStack(Protocol[Parts, Made]):
    """What makes a body of the template's dimensions; `parts` is what it stacks."""

    def __call__(
        self, parts: Parts, modality: Modality, style: Style, /, *, cells: int, width: int, d_in: int, side: int
    ) -> Made:
        """The untrained body."""


def stacked(
    stack: MakeStack[Parts, Made],
    parts: Parts,
    candidate: Candidate,
    modality: Modality,
    *,
    d_in: int | None = None,
    side: int = 1,
) -> Made:
    """Parts under the template that a candidate's choices describe. `d_in` is its width by default."""
    width = candidate.count("width")
    return stack(
        parts,
        modality,
        style_of(candidate),
        cells=candidate.count("cells"),
        width=width,
        d_in=width if d_in is None else d_in,
        side=side,
    )


def style_of(candidate: Candidate) -> Style:
    """The style that a candidate's choices describe."""
    return Style(candidate.text("activation"), candidate.text("normalisation"), candidate.number("dropout"))


def drawn(wirings: Mapping[str, Wiring], caption: str) -> Drawing:
    """Wirings as they are, each behind its prefix."""
    nodes = tuple(f"{prefix}{node}" for prefix, one in wirings.items() for node in one.nodes)
    edges = tuple(
        (f"{prefix}{edge.source}", f"{prefix}{edge.target}", edge.operation)
        for prefix, one in wirings.items()
        for edge in one.edges
    )
    return Drawing.named(nodes, edges, caption)


def template_caption(choices: Mapping[str, Choice]) -> str:
    """How cells are stacked."""
    return f"cells: {choices['cells']}, width: {choices['width']}"


def operations_of(modality: Modality, *, skip: bool) -> tuple[str, ...]:
    """The names of a modality's operations, with skip connections or without."""
    return tuple(name for name in modality.operations if skip or name != SKIP)
