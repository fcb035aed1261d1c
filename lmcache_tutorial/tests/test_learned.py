"""What a reader has done of the exercises."""

import pytest

from lmcache_tutorial.lessons.learned import LEARNED, Learned, note_learned, read_learned


def test_what_is_noted_of_one_exercise_leaves_the_others(tmp_path):
    note_learned(tmp_path, "4.1", hints=2)
    note_learned(tmp_path, "1.1", solved=True)
    note_learned(tmp_path, "4.1", solved=True)
    assert read_learned(tmp_path) == {"1.1": Learned(0, solved=True), "4.1": Learned(2, solved=True)}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"4.1": {"stars": 5}}', '{"4.1": 3}'])
def test_a_damaged_file_is_as_none(tmp_path, text):
    path = tmp_path / LEARNED
    path.parent.mkdir()
    path.write_text(text)
    assert read_learned(tmp_path) == {}
    note_learned(tmp_path, "4.1", hints=1)
    assert read_learned(tmp_path) == {"4.1": Learned(1)}
