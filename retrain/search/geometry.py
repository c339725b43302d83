"""What strategies need of a space, all of it derived from its dimensions: drawing, mutation, neighbours, encodings.

A space has families, and each family dimensions under labels of their own (`mlp.depth`). Some dimensions exist only
under a condition on earlier ones, so that a candidate is a walk: dimension by dimension, each choice deciding which
others there are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import optuna

from retrain.families.base import Candidate
from retrain.families.parameters import Choice, Option, Parameter, Whole
from retrain.search.taught import Taught

FAMILY = "family"
Chooser = Callable[[str, Parameter], Choice | None]
Encoding = npt.NDArray[np.float64]


class Space(ABC):
    """All candidates of a question, free of how they are chosen."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The families."""

    @abstractmethod
    def parameters(self, family: str) -> tuple[tuple[str, Parameter], ...]:
        """(label, dimension) of a family's candidates, in the order of their conditions."""

    def canonical(self, candidate: Candidate) -> str:
        """A key that is equal for candidates which are the same network, trained alike."""
        return candidate.key

    def paths(self, candidate: Candidate) -> Encoding:
        """Which paths of operations a candidate's network has, as zeros and ones (p,), alike for isomorphic ones (White
        et al. 2019); none for spaces without graphs."""
        return np.empty(0)

    @property
    def screened(self) -> int:
        """How many candidates are worth a look without training before the first one is trained."""
        return 200

    @property
    def seconds_to_screen(self) -> float:
        """How long that look may take."""
        return math.inf

    def proxies(self, candidate: Candidate) -> Encoding:
        """What is known of a candidate without training it (p,), each the better the greater it is, by and large; none
        where nothing is."""
        return np.empty(0)

    @property
    def taught(self) -> Taught | None:
        """What former studies teach of this space; None where there are none."""
        return None

    def affordable(self, candidate: Candidate) -> Candidate:
        """The candidate in a size that there is time to train; itself where that is not known. The same at every call,
        and of what it gives."""
        return candidate

    def suggest(self, trial: optuna.Trial) -> Candidate:
        """The candidate that Optuna's sampler chooses."""
        return self._certain(lambda label, parameter: _suggest(trial, label, parameter))

    def sample(self, rng: np.random.Generator) -> Candidate:
        """A candidate at random."""
        return self._certain(lambda label, parameter: parameter.sample(rng))

    def fit(self, candidate: Candidate, defaults: Mapping[str, Choice]) -> Candidate | None:
        """The nearest candidate of this space: numbers clipped and rounded, dimensions it lacks taken from `defaults`.
        None when its family or one of its options no longer exists."""
        given: dict[str, Choice] = {**defaults, **candidate.choices, FAMILY: candidate.family}
        return self._walk(lambda label, parameter: given.get(parameter.name))

    def params(self, candidate: Candidate) -> dict[str, Choice]:
        """A candidate of this space as Optuna's parameters, by label."""
        named = [(label, one.name) for label, one in self.parameters(candidate.family)]
        chosen = {label: candidate.choices[name] for label, name in named if name in candidate.choices}
        return {FAMILY: candidate.family, **chosen}

    def read(self, params: Mapping[str, Choice]) -> Candidate | None:
        """The candidate of Optuna's parameters; None when one is missing."""
        return self._walk(lambda label, parameter: params.get(label))

    def dimensions(self, candidate: Candidate) -> list[tuple[str, Parameter]]:
        """(label, dimension) of the choices that a candidate makes, its family's first."""
        known = [(FAMILY, self._families), *self.parameters(candidate.family)]
        return [(label, one) for label, one in known if label == FAMILY or one.name in candidate.choices]

    def decide(self, choose: Callable[[str, tuple[Choice, ...]], Choice]) -> Candidate:
        """The candidate of a walk in which each dimension is a choice among a few values (`levels`)."""
        return self._certain(lambda label, parameter: choose(label, levels(parameter)))

    def draw(self, label: str, rng: np.random.Generator) -> Choice:
        """One of the levels of a dimension at random, by their weights."""
        parameter = self._places[label][1]
        return drawn(parameter, levels(parameter), rng)

    def odds(self, label: str) -> Encoding:
        """How likely the levels of a dimension are drawn at random, beside the likeliest of them (n,)."""
        parameter = self._places[label][1]
        weights = parameter.weights if isinstance(parameter, Option) else ()
        return np.asarray(weights or np.ones(len(levels(parameter)))) / max(weights, default=1.0)

    @cached_property
    def labelled(self) -> dict[str, Parameter]:
        """All dimensions, by label, those of families that share one once."""
        known: dict[str, Parameter] = {FAMILY: self._families}
        for name in self.names:
            known.update(self.parameters(name))
        return known

    @cached_property
    def weighted(self) -> dict[str, Option]:
        """The options that are not drawn alike, by label."""
        return {label: one for label, one in self.labelled.items() if isinstance(one, Option) and one.weights}

    def vary(self, candidate: Candidate, label: str, value: Choice, rng: np.random.Generator) -> Candidate:
        """The candidate with one choice changed; dimensions that come to exist by it are drawn at random."""
        return self.complete({**self.params(candidate), label: value}.get, rng)

    def complete(self, given: Callable[[str], Choice | None], rng: np.random.Generator) -> Candidate:
        """The candidate of what is given by label; where that is None, a dimension is drawn at random."""

        def choose(label: str, parameter: Parameter) -> Choice:
            value = given(label)
            return parameter.sample(rng) if value is None else value

        return self._certain(choose)

    def cross(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate:
        """A child of two candidates: each choice that both make is that of either (uniform crossover); what exists in
        one of them alone is taken from it, what exists in neither is drawn at random."""
        parents = self.params(one), self.params(other)

        def choose(label: str, parameter: Parameter) -> Choice:
            known = [own[label] for own in parents if label in own]
            return known[int(rng.integers(len(known)))] if known else parameter.sample(rng)

        return self._certain(choose)

    def mutate(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """The candidate with one choice, any of those that can differ, changed at random; itself where none can."""
        open_ones = [(label, one) for label, one in self.dimensions(candidate) if len(levels(one)) > 1]
        if not open_ones:
            return candidate
        label, parameter = open_ones[int(rng.integers(len(open_ones)))]
        own = self.params(candidate)[label]
        others = [value for value in levels(parameter) if value != own]
        return self.vary(candidate, label, drawn(parameter, others, rng), rng)

    def smaller(self, candidate: Candidate, share: float) -> Candidate:
        """The candidate with the whole numbers of its architecture brought to their least by so much of the way: widths
        and depths, whatever they are called."""
        own = self.params(candidate)

        def choose(label: str, parameter: Parameter) -> Choice | None:
            known = levels(parameter)
            if "." not in label or any(type(one) is not int for one in known):
                return own.get(label)
            least = float(min(known, key=float))
            return least + (1 - share) * (float(own.get(label, least)) - least)

        return self._walk(choose) or candidate

    def neighbours(self, candidate: Candidate, rng: np.random.Generator) -> Iterator[Candidate]:
        """All candidates that differ in one choice, numbers by one step, in random order."""
        own = self.params(candidate)
        known = self.dimensions(candidate)
        steps = [(label, value) for label, one in known for value in nearby(one, own[label])]
        for place in rng.permutation(len(steps)):
            label, value = steps[place]
            yield self.vary(candidate, label, value, rng)

    def encode(self, candidate: Candidate) -> Encoding:
        """The candidate as a vector (d,) in [0, 1]: options one-hot, numbers by their place in their range (middle
        where the dimension does not exist)."""
        out = self._blank.copy()
        for label, value in self.params(candidate).items():
            start, parameter = self._places[label]
            if isinstance(parameter, Option):
                out[start + parameter.values.index(value)] = 1.0
            else:
                out[start] = parameter.share(float(value))
        return out

    @cached_property
    def _families(self) -> Option:
        return Option(FAMILY, self.names)

    @cached_property
    def _places(self) -> dict[str, tuple[int, Parameter]]:
        out, start = {}, 0
        for label, parameter in self.labelled.items():
            out[label] = (start, parameter)
            start += _width(parameter)
        return out

    @cached_property
    def _blank(self) -> Encoding:
        width = sum(_width(one) for _, one in self._places.values())
        out = np.zeros(width)
        for start, parameter in self._places.values():
            if not isinstance(parameter, Option):
                out[start] = 0.5
        return out

    def _certain(self, choose: Chooser) -> Candidate:
        candidate = self._walk(choose)
        assert candidate is not None  # every choice lies inside its dimension
        return candidate

    def _walk(self, choose: Chooser) -> Candidate | None:
        name = _snapped(self._families, choose(FAMILY, self._families))
        if name is None:
            return None
        choices: dict[str, Choice] = {}
        for label, parameter in self.parameters(str(name)):
            if parameter.when is not None and not parameter.when.holds(choices):
                continue
            value = _snapped(parameter, choose(label, parameter))
            if value is None:
                return None
            choices[parameter.name] = value
        return Candidate(family=str(name), choices=choices)


def levels(parameter: Parameter) -> tuple[Choice, ...]:
    """The values of a dimension; of a real one, eight of them.

    >>> levels(Whole("depth", 1, 3)), levels(Option("act", ("relu", "elu")))
    ((1, 2, 3), ('relu', 'elu'))
    """
    if isinstance(parameter, Option):
        return parameter.values
    return parameter.grid()


def drawn(parameter: Parameter, among: Sequence[Choice], rng: np.random.Generator) -> Choice:
    """One of these values of a dimension at random, by their weights where it has some."""
    return parameter.draw(among, rng) if isinstance(parameter, Option) else among[int(rng.integers(len(among)))]


def nearby(parameter: Parameter, value: Choice) -> tuple[Choice, ...]:
    """The values one step from this one: all others of an option, the ones below and above of a number.

    >>> nearby(Whole("depth", 1, 5), 3), nearby(Option("act", ("relu", "elu")), "elu")
    ((2, 4), ('relu',))
    """
    known = levels(parameter)
    if isinstance(parameter, Option):
        return tuple(one for one in known if one != value)
    below = [one for one in known if float(one) < float(value)]
    above = [one for one in known if float(one) > float(value)]
    return (*below[-1:], *above[:1])


def nearest(values: tuple[Choice, ...], value: Choice) -> int:
    """The place of a value among the levels of its dimension, or of the level that is nearest to it.

    >>> nearest((1, 10, 100), 12), nearest(("relu", "elu"), "elu")
    (1, 1)
    """
    if value in values:
        return values.index(value)
    return min(range(len(values)), key=lambda place: abs(float(values[place]) - float(value)))


def _width(parameter: Parameter) -> int:
    return len(parameter.values) if isinstance(parameter, Option) else 1


def _snapped(parameter: Parameter, value: Choice | None) -> Choice | None:
    return None if value is None else parameter.snap(value)


def _suggest(trial: optuna.Trial, label: str, parameter: Parameter) -> Choice:
    if isinstance(parameter, Option):
        chosen = trial.suggest_categorical(label, list(parameter.values))
        assert chosen is not None
        return chosen
    if isinstance(parameter, Whole):
        return trial.suggest_int(label, parameter.low, parameter.high, step=parameter.step)
    return trial.suggest_float(label, parameter.low, parameter.high, log=parameter.log)
