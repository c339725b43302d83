"""Progress lines: in place on a terminal, seldom elsewhere."""

from __future__ import annotations

from io import StringIO

from flows.progress import listening, note, tell
from flows.terminal import ProgressLine
from retrain.search.progress import Progress


class Screen(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def progress(finished: int, stage: str = "search", message: str = "") -> Progress:
    return Progress(stage, finished, 40, 0.7123, "auc", 12.3, message)


def test_on_a_terminal_the_line_is_rewritten_and_ends_properly() -> None:
    screen = Screen()
    with ProgressLine(screen) as line:
        line(progress(1, message="a long message"))
        line(progress(2))
    assert screen.getvalue().count("\r") == 2
    assert screen.getvalue().count("\n") == 1
    last = screen.getvalue().split("\r")[-1]
    assert "2/40" in last
    assert "auc 0.7123" in last
    assert len(last.rstrip("\n")) >= len(screen.getvalue().split("\r")[1])  # nothing of the longer line is left


def test_what_lasts_keeps_its_line_on_a_terminal_and_elsewhere() -> None:
    for stream in (Screen(), StringIO()):
        with ProgressLine(stream) as shown, listening(shown):
            tell(progress(1))
            note("learning from others")
            tell(progress(2, stage="ensemble"))
        lines = stream.getvalue().replace("\r", "\n").splitlines()
        assert "learning from others" in [one.strip() for one in lines], "the words alone"
        assert "2/40" in lines[-1]


def test_elsewhere_only_the_ends_of_stages_and_every_few_seconds_are_shown() -> None:
    stream = StringIO()
    with ProgressLine(stream) as line:
        for finished in range(20):
            line(progress(finished))
        line(progress(20, stage="ensemble"))
    assert [one.split(",")[1] for one in stream.getvalue().splitlines()] == [" 0/40", " 19/40", " 20/40"]
