"""What a puzzle leaves to look at: written, read again, and shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.workbench.puzzle_evidence import FILE, Evidence, Seen, evidence_table

COUNTS = st.integers(0, 10**6)
SEEN = st.builds(Seen, st.integers(1, 8), st.integers(1, 3), *[COUNTS] * 5)
EVIDENCE = st.builds(
    Evidence,
    puzzle=st.integers(1, 8),
    seen=st.lists(SEEN, min_size=2).map(tuple),
    looked_up=COUNTS,
    stored_chunks=COUNTS,
    chunk_tokens=COUNTS,
    meant_chunk_tokens=COUNTS,
    salts=COUNTS,
    culprits=st.lists(st.tuples(st.text(), st.text())).map(tuple),
    same_answer=st.booleans(),
)


@given(EVIDENCE)
def test_what_is_written_is_read_again(tmp_path_factory, evidence):
    folder = tmp_path_factory.mktemp("puzzle")
    evidence.write(folder)
    assert Evidence.read(folder) == evidence


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"seen": [{"session": 1}], "culprits": []}'])
def test_without_a_whole_file_there_is_one_error_that_says_what_to_do(tmp_path, text):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"(no puzzle has been played|cannot be read)") as error:
        Evidence.read(tmp_path)
    assert "To fix: play one: lmcache-tutorial puzzle" in str(error.value)


def test_the_table_shows_the_first_request_and_the_mean_of_each_turn():
    seen = (
        Seen(1, 1, 800, 800, 0, 0, 0),
        Seen(2, 1, 800, 352, 0, 448, 0),
        Seen(1, 2, 1_100, 300, 0, 700, 100),
        Seen(2, 2, 1_100, 100, 0, 900, 100),
    )
    found = Evidence(1, seen, 3_000, 10, 64, 64, 1, (), same_answer=False)
    lines = list(evidence_table(found))
    assert [line.split() for line in lines[1:4]] == [
        ["the", "very", "first", "800", "800", "0", "0", "0"],
        ["turn", "1", "of", "1", "sessions,", "mean", "800", "352", "0", "448", "0"],
        ["turn", "2", "of", "2", "sessions,", "mean", "1,100", "200", "0", "800", "100"],
    ]
    assert lines[4] == "LMCache's counters: 3,000 tokens looked up, 640 tokens stored"
    assert lines[5].endswith("computed whole once more: another answer")
    assert max(map(len, lines)) <= 80
