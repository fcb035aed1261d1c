"""What a distribution holds is written down as Python infers it, once, and goes away with it."""

from importlib import metadata

import pytest

from lmcache_tutorial.machine.top_level import write_top_levels

FILES = {
    "two": ["one_of_two/__init__.py", "one_of_two/more/deep.py", "other.py", "two.libs/libtwo.so"],
    "data": ["data/table.csv"],
    "said": ["inferred/__init__.py"],
}


@pytest.fixture
def site(tmp_path):
    """A folder with three installed distributions, one of which says what it holds."""
    for name, files in FILES.items():
        info = f"{name}-1.0.dist-info"
        for file in [*files, f"{info}/METADATA", f"{info}/RECORD"]:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        (tmp_path / info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        listed = [*files, f"{info}/METADATA", f"{info}/RECORD"]
        (tmp_path / info / "RECORD").write_text("".join(f"{file},,\n" for file in listed))
    (tmp_path / "said-1.0.dist-info" / "top_level.txt").write_text("stated\n")
    return tmp_path


def found(site, monkeypatch):
    monkeypatch.setattr(metadata, "distributions", lambda: metadata.Distribution.discover(path=[str(site)]))
    return metadata.packages_distributions()


def test_the_packages_are_those_that_python_infers_and_no_file_is_looked_at_again(site, monkeypatch):
    with monkeypatch.context() as patched:
        before = found(site, patched)
    assert write_top_levels(site) == 1
    monkeypatch.setattr(metadata.Distribution, "files", None)
    assert found(site, monkeypatch) == before | {"one_of_two": ["two"], "other": ["two"], "stated": ["said"]}


def test_it_is_written_once_and_pip_knows_of_it(site):
    write_top_levels(site)
    record = (site / "two-1.0.dist-info" / "RECORD").read_text()
    assert write_top_levels(site) == 0
    assert (site / "two-1.0.dist-info" / "RECORD").read_text() == record
    assert record.endswith("two-1.0.dist-info/top_level.txt,,\n")
    assert not (site / "data-1.0.dist-info" / "top_level.txt").exists()
