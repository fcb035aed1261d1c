"""Files are whole: the old text or the new one."""

import pytest

from lmcache_tutorial.machine.files import write_atomically


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    write_atomically(path, "new – näher")
    assert path.read_text(encoding="utf-8") == "new – näher"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half\ud800")  # fails after the partial file was opened
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_files_of_one_name_do_not_share_their_partial_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: seen.append(self))
    for name in ("peers.json", "peers.html"):
        write_atomically(tmp_path / name, name)
    assert len(set(seen)) == 2


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "README.md"
    target.write_text("old")
    link = tmp_path / "README.md"
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
