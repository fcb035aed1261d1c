"""A reader's own numbers: what may be typed, and the file that keeps them."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.lessons.predictions import (
    LARGEST,
    AnswerError,
    PredictionsError,
    number,
    read,
    write,
)
from lmcache_tutorial.lessons.questions import QUESTIONS, Question

TOKENS = Question("Reused", "How many?", "Count.")
BYTES = Question("Kept", "How many?", "Count.", unit="bytes")
REUSED = "Reused tokens of the second ask"
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        lesson: st.dictionaries(st.sampled_from([one.name for one in asked]), st.integers(0, LARGEST))
        for lesson, asked in QUESTIONS.items()
    },
)


@given(st.integers(0, LARGEST), st.sampled_from([",", "_", "'", " ", "\u00a0", ""]), st.booleans())
def test_a_whole_number_is_read_however_its_thousands_are_kept_apart(value, apart, with_unit):
    text = f"{value:,}".replace(",", apart)
    assert number(f" {text} tokens" if with_unit else text, TOKENS) == value


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("448 MB", 448_000_000), ("0.5 GiB", 2**29), ("1.5kib", 1536), ("12 bytes", 12), ("12 byte", 12)],
)
def test_bytes_may_have_larger_units(text, bytes_):
    assert number(text, BYTES) == bytes_


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("many", "is no number"),
        ("", "is no number"),
        ("1,21", "is no number"),
        ("12 34", "is no number"),
        ("1e3", "is no number"),
        ("nan", "is no number"),
        ("-3", "is negative"),
        ("\u2212 3", "is negative"),
        ("3.5", "is no whole number of tokens"),
        ("12 ms", "is in ms, and it is asked for in tokens"),
        ("12 MB", "is in MB, and it is asked for in tokens"),
        ("1" + "0" * 40, "is too large"),
    ],
)
def test_what_is_no_number_of_the_unit_is_refused_with_the_reason(text, reason):
    with pytest.raises(AnswerError, match=reason):
        number(text, TOKENS)


@given(st.text())
def test_whatever_is_typed_is_a_number_or_an_answer_that_is_refused(text):
    try:
        value = number(text, TOKENS)
    except AnswerError:
        return
    assert 0 <= value <= LARGEST


@given(ANSWERS)
def test_what_is_written_is_read_again(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("own") / "predictions.toml"
    write(path, answers)
    assert {lesson: own for lesson, own in read(path).items() if own} == {
        lesson: own for lesson, own in answers.items() if own
    }


def test_a_file_without_answers_shows_every_question_and_how_to_answer_it(tmp_path):
    path = tmp_path / "predictions.toml"
    write(path, {"lesson2": {REUSED: 96}})
    text = path.read_text()
    assert max(map(len, text.splitlines())) <= 120
    for questions in QUESTIONS.values():
        for question in questions:
            assert f'"{question.name}" =' in text
    lines = text.splitlines()
    place = lines.index('# "Of them from LMCache" =  # tokens')
    lines[place] = lines[place].replace("# ", "", 1).replace("=", "= 0", 1)  # as the file's head says
    path.write_text("\n".join(lines))
    assert read(path)["lesson2"] == {REUSED: 96, "Of them from LMCache": 0}


def test_without_a_file_nothing_was_answered(tmp_path):
    assert read(tmp_path / "predictions.toml") == {}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[lesson2]\n\n"{0}" = -3', 3, "'-3' is negative"),
        ('# mine\n[lesson2]\n"{0}" = "12 ms"', 3, "in ms, and it is asked for in tokens"),
        ('[lesson2]\n"{0}" = true', 2, "'true' is no number"),
        ('[lesson2]\n"{0}" = nan', 2, "'nan' is no number"),
        ('[lesson2]\n"{0}" = 3.5', 2, "no whole number"),
        ('[lesson2]\n"{0}" = """\nmany\n"""', 1, "is no number"),
        ('lesson2."{0}" = -1', 1, "is negative"),
        ('\nlesson2 = {{ "{0}" = -1 }}', 2, "is negative"),
        ("[lesson3]\n[lesson2]\nReused = 3", 3, "lesson2 has no question 'Reused'"),
        ("[lesson2]\n[lesson0]\na = 1", 2, "'lesson0' is no table of a lesson"),
        ("lesson2 = 3", 1, "'lesson2' is no table of a lesson"),
    ],
    ids=range(11),  # without the name of a lesson: -k lesson2 means the lesson
)
def test_a_bad_answer_in_the_file_is_one_error_with_its_line(tmp_path, text, line, reason):
    path = tmp_path / "predictions.toml"
    path.write_text(text.format(REUSED))
    with pytest.raises(PredictionsError) as error:
        read(path)
    assert f"{path}, line {line}: " in str(error.value)
    assert reason in str(error.value)
    assert "\nTo fix: " in str(error.value)


@pytest.mark.parametrize(
    "content", [b'[lesson2]\n"a" =', b"[lesson2]\n[lesson2]", b"\xff"], ids=["empty", "twice", "binary"]
)
def test_what_is_no_toml_is_one_error(tmp_path, content):
    path = tmp_path / "predictions.toml"
    path.write_bytes(content)
    with pytest.raises(PredictionsError, match=r"(is no TOML: .*line 2|cannot be read)"):
        read(path)
    assert path.read_bytes() == content


def test_numbers_of_toml_are_read_as_numbers_that_are_typed(tmp_path):
    path = tmp_path / "predictions.toml"
    path.write_text(f'[lesson2]\n"{REUSED}" = 3_584.0\n[lesson6]\n"All, in files" = "448.3 MB"')
    assert read(path) == {"lesson2": {REUSED: 3584}, "lesson6": {"All, in files": 448_300_000}}
    assert tomllib.loads(path.read_text())
