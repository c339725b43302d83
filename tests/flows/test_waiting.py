"""What is said while nothing is printed."""

from __future__ import annotations

import time
from io import StringIO

import pytest

from flows.waiting import waiting
from tests.flows.test_terminal import Screen


def test_on_a_terminal_the_seconds_are_counted_and_nothing_is_left() -> None:
    screen = Screen()
    with waiting("loading the libraries", screen):
        time.sleep(1.8)
    first, *_, blank, rest = screen.getvalue().split("\r")[1:]
    assert first.startswith(("loading the libraries, 0 s", "loading the libraries, 1 s"))
    assert (blank.strip(), rest) == ("", "")
    assert len(blank) >= len(first)


def test_elsewhere_what_lasts_is_told_once() -> None:
    stream = StringIO()
    with waiting("reading x.csv", stream, long=0.1):
        time.sleep(0.5)
    assert stream.getvalue() == "reading x.csv ...\n"


@pytest.mark.parametrize("kind", [StringIO, Screen])
def test_of_what_is_quick_nothing_is_said(kind: type[StringIO]) -> None:
    stream = kind()
    with waiting("a moment", stream):
        pass
    assert stream.getvalue() == ""


def test_an_error_ends_it() -> None:
    stream = StringIO()
    with pytest.raises(KeyError), waiting("a fault", stream, long=0.1):
        raise KeyError
    assert stream.getvalue() == ""
