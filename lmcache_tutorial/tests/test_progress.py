"""A line that counts rounds aloud."""

from contextlib import nullcontext

import pytest

from lmcache_tutorial.lessons.progress import ERASE, Progress, on_terminal


def counted(count, **options):
    lines, now = [], iter(range(0, 1000, 10))
    progress = Progress(lines.append, clock=lambda: next(now))
    return list(progress.rounds(range(count), count, **options)), [line.removeprefix(ERASE) for line in lines]


def test_each_round_is_named_with_about_what_is_left_and_the_line_goes():
    items, lines = counted(3, what="round")
    assert items == [0, 1, 2]
    assert lines == ["round 1 of 3", "round 2 of 3, about 20 s left", "round 3 of 3, about 10 s left", ""]


def test_a_test_that_may_end_earlier_says_at_most():
    assert counted(1, at_most=True)[1][0] == "round 1 of at most 1"


def test_the_line_goes_also_when_a_round_fails_or_the_loop_ends_early():
    lines = []
    rounds = Progress(lines.append).rounds(range(9), 9)
    next(rounds)
    rounds.close()
    assert lines[-1] == ERASE
    left = Progress(lines.append).rounds(iter([1, 0]), 2)
    with pytest.raises(ZeroDivisionError):
        [1 // item for item in left]
    left.close()
    assert lines[-1] == ERASE


def test_without_a_terminal_nothing_is_written(capsys):
    assert list(Progress(None).rounds("ab", 2)) == ["a", "b"]
    assert capsys.readouterr().out == ""


def test_a_terminal_is_written_past_the_capturing(capsys):
    ended = []
    on_terminal(lambda: ended.append(1), nullcontext)("round 1")
    assert capsys.readouterr().out == "round 1"
    assert ended == [1]
