"""A user's preferences held against a space: its dimensions, narrowed to what is left of them.

A strategy is given the narrowed dimensions and knows of no others. All that does not fit (a name, a value, a
contradiction, nothing left) is a `TaskError` before anything begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from registry.choices import Preference, Value, alike, among, number_of
from registry.errors import TaskError, did_you_mean, unknown
from retrain.families.parameters import Choice, Option, Parameter, Real, Whole

Dimensions = Mapping[str, tuple[tuple[str, Parameter], ...]]
"""(label, dimension) by family."""
Choices = Mapping[str, Preference]

KEY = "search.choices"


def narrow(dimensions: Dimensions, choices: Choices) -> dict[str, tuple[tuple[str, Parameter], ...]]:
    """The dimensions with every preference applied: by name in all families, by label in one, where it takes the place
    of the one by name. Raises `TaskError` that names key and value, what is known, and what is near."""
    for key, wish in choices.items():
        meant = [one for own in dimensions.values() for label, one in own if key in (label, one.name)]
        if not meant:
            raise TaskError(_unknown_dimension(key, dimensions))
        _require_known(key, wish, meant)
    narrowed = {
        family: tuple((label, _of(label, parameter, choices)) for label, parameter in own)
        for family, own in dimensions.items()
    }
    _require_reachable(narrowed, choices)
    return narrowed


def narrow_families(families: Option, wish: Preference) -> Option:
    """The families that a preference for `family` leaves, by weight."""
    _require_known(families.name, wish, [families])
    values = [one for one in families.values if not _ruled_out(wish, one)]
    if not values:
        raise TaskError(f"{KEY}.{families.name}: no family is left, they are {', '.join(map(str, families.values))}")
    return _option(families, values, wish)


def narrowed(key: str, label: str, parameter: Parameter, wish: Preference) -> Parameter:
    """One dimension under the preference that stands under a key. An option keeps its order; a whole number of which
    single values are picked or weighted, and a real one with `only`, become options."""
    if isinstance(parameter, Real):
        return _real(key, label, parameter, wish)
    values = [one for one in points(parameter) if not _ruled_out(wish, one)]
    if not values:
        raise TaskError(f"{KEY}.{key}: nothing is left of {label}, which is {described(parameter)}")
    picked = wish.fixed is not None or wish.only or wish.never or wish.weights
    if isinstance(parameter, Whole) and not picked:
        return replace(parameter, low=int(values[0]), high=int(values[-1]))
    return _option(parameter, values, wish)


def points(parameter: Option | Whole) -> tuple[Choice, ...]:
    """All values of a dimension that has so few."""
    return parameter.values if isinstance(parameter, Option) else parameter.grid()


def described(parameter: Parameter) -> str:
    """What a dimension may be, in words.

    >>> described(Whole("width", 64, 384, step=64)), described(Option("act", ("relu", "elu")))
    ('a whole number from 64 to 384 in steps of 64', 'one of relu, elu')
    """
    if isinstance(parameter, Option):
        return f"one of {', '.join(map(str, parameter.values))}"
    steps = f" in steps of {parameter.step}" if isinstance(parameter, Whole) and parameter.step > 1 else ""
    what = "a whole number" if isinstance(parameter, Whole) else "a number"
    return f"{what} from {parameter.low:g} to {parameter.high:g}{steps}"


def _of(label: str, parameter: Parameter, choices: Choices) -> Parameter:
    key = label if label in choices else parameter.name
    return narrowed(key, label, parameter, choices[key]) if key in choices else parameter


def _real(key: str, label: str, parameter: Real, wish: Preference) -> Parameter:
    if wish.never or (wish.weights and not wish.only):
        raise TaskError(f"{KEY}.{key}: {label} is {described(parameter)}: give it low and high, or a list as only")
    if picked := ([wish.fixed] if wish.fixed is not None else wish.only):
        numbers = [number_of(one) for one in picked if not wish.excludes(one)]
        inside = [one for one in numbers if one is not None and parameter.low <= one <= parameter.high]
        if not inside:
            raise TaskError(f"{KEY}.{key}: nothing is left of {label}, which is {described(parameter)}")
        return _option(parameter, sorted(set(inside)), wish)
    low = parameter.low if wish.low is None else max(wish.low, parameter.low)
    high = parameter.high if wish.high is None else min(wish.high, parameter.high)
    if low > high:
        raise TaskError(f"{KEY}.{key}: nothing is left of {label}, which is {described(parameter)}")
    return replace(parameter, low=low, high=high) if low < high else _option(parameter, [low], wish)


def _option(parameter: Parameter, values: Sequence[Choice], wish: Preference) -> Option:
    weights = tuple(wish.weight(one) for one in values) if wish.weights else ()
    return Option(parameter.name, tuple(values), parameter.when, weights)


def _ruled_out(wish: Preference, value: Choice) -> bool:
    return bool(wish.excludes(value)) or (wish.fixed is not None and not alike(wish.fixed, value))


def _require_known(key: str, wish: Preference, meant: Sequence[Parameter]) -> None:
    """Each value must be one of a dimension that is meant, each bound a number inside of one."""
    said: list[Value] = [*([] if wish.fixed is None else [wish.fixed]), *wish.only, *wish.never, *wish.weights]
    for value in said:
        if not any(_holds(one, value) for one in meant):
            raise TaskError(f"{KEY}.{key}: {_unknown_value(key, value, meant)}")
    bounds = {"low": wish.low, "high": wish.high}
    for name, bound in ((name, bound) for name, bound in bounds.items() if bound is not None):
        ranges = [span for one in meant if (span := _span(one)) is not None]
        if not ranges:
            raise TaskError(f"{KEY}.{key}: {name} is for numbers, and {key} is {described(meant[0])}")
        if not any(least <= bound <= most for least, most in ranges):
            raise TaskError(
                f"{KEY}.{key}: {name} {bound:g} is outside of {key}, which is {described(meant[0])}: "
                "choices narrow a space, they cannot widen it"
            )


def _holds(parameter: Parameter, value: Value) -> bool:
    if isinstance(parameter, Real):
        number = number_of(value)
        return number is not None and parameter.low <= number <= parameter.high
    return among(value, points(parameter))


def _span(parameter: Parameter) -> tuple[float, float] | None:
    if not isinstance(parameter, Option):
        return parameter.low, parameter.high
    numbers = [number_of(one) for one in parameter.values]
    known = [one for one in numbers if one is not None]
    return (min(known), max(known)) if len(known) == len(numbers) else None


def _unknown_value(key: str, value: Value, meant: Sequence[Parameter]) -> str:
    first, number = meant[0], number_of(value)
    if number is not None and _span(first) is not None:
        near = first.snap(number)
        return f"{key} is {described(first)}, got {value} (nearest: {near})"
    known = dict.fromkeys(str(one) for each in meant if not isinstance(each, Real) for one in points(each))
    return unknown(f"value of {key}", str(value), known) if known else f"{key} is {described(first)}, got {value!r}"


def _unknown_dimension(key: str, dimensions: Dimensions) -> str:
    """What is known are names; what is near may be a label too. One of a family that is not searched is told so."""
    from retrain.augmentation import on_demand
    from retrain.families.catalogue import FAMILIES

    labels = [label for own in dimensions.values() for label, _ in own]
    asked = [*on_demand("image"), *(one for each in FAMILIES if each.name in dimensions for one in each.on_demand())]
    names = sorted({one.name for own in dimensions.values() for _, one in own} | {one.name for one in asked})
    others = [
        family.name
        for family in FAMILIES
        if family.name not in dimensions
        and any(key in (one.name, f"{family.name}.{one.name}") for one in (*family.parameters(), *family.on_demand()))
    ]
    if others:
        return f"{KEY}.{key}: a dimension of {', '.join(others)}, not of what is searched ({', '.join(dimensions)})"
    shown = f"known are {', '.join(names)}, those of a family also as FAMILY.NAME"
    return f"{KEY}: unknown dimension {key!r}{did_you_mean(key, [*names, *labels])}; {shown}"


def _require_reachable(narrowed: Dimensions, choices: Choices) -> None:
    """A preference for a dimension that exists nowhere any more contradicts the one that has removed it."""
    for key in choices:
        lost = [_lost(own, key, choices) for own in narrowed.values()]
        found = [one for own in lost for one in own]
        if found and None not in found:
            raise TaskError(f"{KEY}.{key}: {found[0]}")


def _lost(own: Sequence[tuple[str, Parameter]], key: str, choices: Choices) -> Iterator[str | None]:
    """For each dimension of a family that a key means: why it exists no more, or None where it does."""
    gone: dict[str, str] = {}
    known: dict[str, Parameter] = {}
    for label, one in own:
        known[one.name] = one
        if one.when is not None and (reason := _removed(one, known[one.when.name], gone)):
            gone[one.name] = reason
        if key == label or (key == one.name and label not in choices):
            yield gone.get(one.name)


def _removed(child: Parameter, parent: Parameter, gone: Mapping[str, str]) -> str | None:
    assert child.when is not None
    if parent.name in gone:
        return gone[parent.name]
    left = () if isinstance(parent, Real) else points(parent)
    if any(one in child.when.values for one in left):
        return None
    wanted, shown = " or ".join(map(str, child.when.values)), ", ".join(map(str, left))
    return f"exists only where {parent.name} is {wanted}, and {KEY} leaves {parent.name} as {shown}"
