"""What is wrong in a task's file, in the words of YAML: line, key, what was expected, what came, what is near."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from registry.errors import InputError, TaskError, did_you_mean

_KEY = re.compile(r"^\s*(?P<first>[a-z_]+(?:\.\w+)*)(?=[:\s])|`(?P<named>[a-z_]+(?:\.\w+)*)` in the task")
"""Where a sentence names a key: it begins with it, or says where to correct it."""

_WHOLE = "task"
_FEW = 8
"""Names that are listed where none is near."""


def explain(error: ValidationError, model: type[BaseModel], text: str | None = None) -> str:
    """A validation error of a model as one line a finding; with the line of the key where the YAML's text is given."""
    root = None if text is None else yaml.compose(text, Loader=yaml.SafeLoader)
    return "\n".join(f"  {_placed(one, _finding(one, model), root)}" for one in error.errors())


def _placed(one: Any, finding: str, root: yaml.Node | None) -> str:
    """A finding with its line. One of the whole task is of keys that do not go together: it begins with one of them."""
    if root is None:
        return finding
    if not one["loc"]:
        return _with_line(finding.removeprefix(f"{_WHOLE}: "), root)
    return f"line {line_of(root, one['loc'])}: {finding}"


def line_of(root: yaml.Node, loc: Iterable[int | str]) -> int:
    """The line, from 1, of the deepest key (or item, by place or by value) on the way to `loc` that is there.

    >>> line_of(yaml.compose("a: 1\\nb:\\n  c: 2", Loader=yaml.SafeLoader), ("b", "c"))
    3
    """
    line, node = root.start_mark.line, root
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is not None:
                line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode):
            item = part if isinstance(part, int) else _place_of(part, node)
            if item is not None and item < len(node.value):
                node = node.value[item]
                line = node.start_mark.line
    return int(line) + 1


def said_twice(text: str) -> str:
    """The keys that YAML's text holds twice in one place, a line each; YAML itself would drop all but the last.

    >>> said_twice("gate:\\n  bake: 4\\n  bake: 0\\nmode: auto")
    "  line 3: 'bake' stands twice, in line 2 too: one of them would be dropped"
    """
    found: list[tuple[int, str]] = []
    left, seen = [yaml.compose(text, Loader=yaml.SafeLoader)], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                left.append(value)
                line, name = key.start_mark.line + 1, str(key.value)
                if name in lines:
                    said = f"{name!r} stands twice, in line {lines[name]} too: one of them would be dropped"
                    found.append((line, f"  line {line}: {said}"))
                lines.setdefault(name, line)
    return "\n".join(said for _, said in sorted(found))


def _place_of(value: str, node: yaml.SequenceNode) -> int | None:
    return next((place for place, one in enumerate(node.value) if one.value == value), None)


@contextmanager
def pointing(path: Path | None) -> Iterator[None]:
    """Mistakes in a task that only the data or the means of a search show are told with its file and their lines in it;
    where there is no file, as they are."""
    try:
        yield
    except InputError as error:
        if path is None:
            raise
        said = pointed(str(error), path.read_text(encoding="utf-8"))
        named = said != str(error) or isinstance(error, TaskError)
        raise type(error)(f"{path}: {said}" if named else said) from error


@contextmanager
def under(key: str) -> Iterator[None]:
    """A `TaskError` raised inside is one of the value that stands under this key."""
    try:
        yield
    except TaskError as error:
        raise TaskError(f"{key}: {error}") from error


def pointed(message: str, text: str) -> str:
    """A message with the line of the key that each of its sentences names, where the YAML has that key; of a list or of
    keys and values below it, the line of the one that is quoted.

    >>> pointed("columns.exclude: no column 'b'", "columns:\\n  exclude:\\n    - a\\n    - b")
    "line 4: columns.exclude: no column 'b'"
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return "\n".join(_with_line(line, root) for line in message.split("\n"))


def _with_line(sentence: str, root: yaml.Node | None) -> str:
    known = {key.value for key, _ in root.value} if isinstance(root, yaml.MappingNode) else set()
    paths = ((found["first"] or found["named"]).split(".") for found in _KEY.finditer(sentence))
    path = next((one for one in paths if one[0] in known), None)
    if root is None or path is None:
        return sentence
    quoted = re.findall(r"'([^']*)'", sentence)
    line = max(line_of(root, [*path, *more]) for more in ([], *([one] for one in quoted)))
    indent = len(sentence) - len(sentence.lstrip())
    return f"{sentence[:indent]}line {line}: {sentence[indent:]}"


def _finding(one: Any, model: type[BaseModel]) -> str:
    tags = {_tag(each) for each in _all_models(model)} - {None}
    inner = (part for part in one["loc"][1:] if part not in tags)  # `time` is a key of its own, and a kind of windows
    where = ".".join(map(str, [*one["loc"][:1], *inner])) or _WHOLE
    if one["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(one['loc'][-1]), sorted(_keys_near(one['loc'], model)))}"
    if one["type"] == "missing":
        return f"{where}: required key is missing"
    said = expected(one, model)
    complete = isinstance(one["input"], Mapping) or ", got " in said  # our own validators say what came
    return f"{where}: {said}" if complete else f"{where}: {said}, got {_shown(one['input'])}"


def _nearest(got: str, known: list[str]) -> str:
    """The name that may be meant, or else the few there are."""
    return did_you_mean(got, known) or (f": expected one of {', '.join(known)}" if 0 < len(known) <= _FEW else "")


def expected(one: Any, model: type[BaseModel]) -> str:
    """What should stand there."""
    known = one.get("ctx", {})
    match one["type"]:
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected keys and values{_example(one['loc'], model)}"
        case "tuple_type" | "list_type":
            return "expected a list" + (f", such as [{one['input']}]" if isinstance(one["input"], str) else "")
        case "too_short":
            return "expected a list of one or more"
        case "union_tag_invalid":
            tags = [tag.strip("'") for tag in known["expected_tags"].split(", ")]
            return f"unknown kind: expected one of {known['expected_tags']}{did_you_mean(known['tag'], tags)}"
        case "union_tag_not_found":
            return "expected a kind, and what belongs to it"
        case "literal_error" if isinstance(one["input"], str):
            options = [word.strip("'") for word in known["expected"].replace(" or ", ", ").split(", ")]
            return f"expected {known['expected']}{did_you_mean(one['input'], options)}"
        case "int_parsing" | "int_type" | "int_from_float":
            return "expected a whole number"
        case "float_parsing" | "float_type":
            return "expected a number"
        case "string_type":
            return "expected text, which stands in quotes where it looks like something else"
        case "bool_parsing" | "bool_type":
            return "expected true or false"
        case "string_pattern_mismatch":  # the one pattern that a user can miss is that of a task's name
            return "expected lower case letters, digits and dashes, a letter first, 63 at most"
    message: str = one["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "expected", 1)


def _example(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Such as {key: its default, ...}, of what should stand at a place; empty where nothing has a default."""
    found = [one for parent in _models_at(loc[:-1], model) for one in _models_in(parent, str(loc[-1]))]
    shown = {
        name: info.default
        for one in found[:1]
        for name, info in one.model_fields.items()
        if isinstance(info.default, (int, float, str))
    }
    return f", such as {_flow(shown)}" if shown else ""


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else _flow(value)


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=1_000, sort_keys=False)
    except yaml.YAMLError:
        return repr(value)
    return text.removesuffix("...\n").strip()


def _keys_near(loc: tuple[int | str, ...], model: type[BaseModel]) -> set[str]:
    """The keys known where the unknown one stands."""
    return {name for one in _models_at(loc[:-1], model) for name in one.model_fields}


def _models_at(loc: Iterable[int | str], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a place: they are followed down the location, unions by their tag."""
    models = [model]
    for part in loc:
        tagged = [one for one in models if _tag(one) == part]
        models = tagged or [m for one in models for m in _models_in(one, str(part))] or models  # a mapping's key
    return models


def _models_in(model: type[BaseModel], field: str) -> list[type[BaseModel]]:
    info = model.model_fields.get(field)
    found = [info.annotation, *get_args(info.annotation)] if info else []
    return [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]


def _all_models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields:
        for one in _models_in(model, field):
            yield from _all_models(one)


def _tag(model: type[BaseModel]) -> object:
    kind = model.model_fields.get("kind")
    return kind.default if kind else None
