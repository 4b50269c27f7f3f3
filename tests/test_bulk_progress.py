"""The bar of `embedsvc embed`, and the lines where there is no terminal."""

import io

import pytest

from embedsvc.bulk.progress import Progress
from tests.support.clock import Clock


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


def drawn(stream: io.StringIO) -> str:
    """What is on the last line."""
    return stream.getvalue().rpartition("\x1b[K")[2]


def test_a_terminal_has_a_bar_with_the_rate_and_the_time_left(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, clock=clock)
    progress.update(0, 0, 0.0, 0.001)
    clock.now = 10.0
    progress.update(5000, 3, 0.25, 10.0)
    assert (
        drawn(stream)
        == "[######..................]  25%  5,000 rows  500/s  0:30 left  3 set aside"
    )
    progress.say("in.jsonl:7: oops")
    assert drawn(stream).startswith("[######")
    assert "\x1b[Kin.jsonl:7: oops\n" in stream.getvalue()
    progress.close()
    assert drawn(stream) == ""


def test_the_time_left_counts_only_what_this_run_did(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, clock=clock)
    progress.update(10, 0, 0.9, 1.0)  # nine tenths were done before
    clock.now = 2.0
    progress.update(20, 0, 0.95, 2.0)
    assert "  95%  20 rows  10/s  0:01 left" in drawn(stream)


def test_rows_that_were_done_before_are_counted_and_took_no_time(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, clock=clock)
    clock.now = 10.0
    progress.update(1000, 0, None, 10.0, 900)
    assert drawn(stream) == "1,000 rows  10/s"


def test_of_a_pipe_it_tells_no_share(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress(stream, clock=clock)
    clock.now = 1.0
    progress.update(100, 0, None, 1.0)
    assert drawn(stream) == "100 rows  100/s"


def test_without_a_terminal_there_is_a_line_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, clock=clock)
    for second in range(1, 61):
        clock.now = float(second)
        progress.update(second * 100, 0, second / 120, float(second))
    assert stream.getvalue() == (
        " 25%  3,000 rows  100/s  1:30 left\n 50%  6,000 rows  100/s  1:00 left\n"
    )
