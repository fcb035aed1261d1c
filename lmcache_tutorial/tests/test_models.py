"""Models: a folder that is not whole, a conversion that fails, a model that cannot be had."""

from importlib import metadata

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.models import prepare as choice
from lmcache_tutorial.models import small
from lmcache_tutorial.models.folder import MANIFEST, is_complete
from lmcache_tutorial.models.model import Model, ModelError
from lmcache_tutorial.models.prepare import prepare
from lmcache_tutorial.models.small import small_model_folder
from lmcache_tutorial.prompts import documents as corpus


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_folder_counts_only_when_every_hash_fits(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not is_complete(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    assert not is_complete(tmp_path)
    (tmp_path / MANIFEST).write_text('{"config.json": "0"}')
    assert not is_complete(tmp_path)
    (tmp_path / MANIFEST).write_text('{"missing.json": "0"}')
    assert not is_complete(tmp_path)


def test_a_cut_off_or_damaged_conversion_is_thrown_away_and_made_again(monkeypatch):
    target = small_model_folder()
    target.mkdir(parents=True)
    (target / "half-written").write_text("x")
    leftover = target.parent / ".converting-abc"
    leftover.mkdir()
    monkeypatch.setattr(small, "_gguf", lambda: target)
    monkeypatch.setattr(
        small, "_convert_in_process", lambda gguf, out: (out / "config.json").write_text("{}")
    )
    ready = prepare("smollm2", lambda line: None)
    assert ready.folder == target
    assert is_complete(target)
    assert not (target / "half-written").exists()
    assert not leftover.exists()
    (target / "config.json").write_text("damaged")
    prepare("smollm2", lambda line: None)
    assert (target / "config.json").read_text() == "{}"


def test_a_conversion_that_hangs_is_one_message(monkeypatch, tmp_path):
    monkeypatch.setattr(small, "_gguf", lambda: tmp_path / "small.gguf")
    monkeypatch.setattr(small, "CONVERSION_LIMIT_S", 0)
    with pytest.raises(ModelError, match=r"(?s)was not converted within 0 s.*small\.gguf.*To fix"):
        prepare("smollm2", lambda line: None)


def test_a_conversion_that_fails_leaves_nothing_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(small, "_gguf", lambda: tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match="could not be converted"):
        prepare("smollm2", lambda line: None)
    assert not small_model_folder().exists()


def test_a_shape_without_lmcache_is_one_message(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError("lmcache")

    monkeypatch.setattr(choice.metadata, "version", absent)
    with pytest.raises(ModelError, match="lmcache is not installed"):
        prepare("shape:llama-3.1-8b", lambda line: None)


def test_a_shape_without_lmcaches_source_is_one_message(monkeypatch):
    monkeypatch.setattr(corpus.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"documents are LMCache's own source.*not installed"):
        prepare("shape:llama-3.1-8b", lambda line: None)
    done = CliRunner().invoke(app, ["prepare", "--model=shape:llama-3.1-8b"])
    assert done.exit_code == 1
    assert "error: lmcache-tutorial prepare needs the extra" in done.stderr


def test_a_cache_folder_that_cannot_be_made_is_one_message(cache):
    cache.touch()  # a file in its place
    with pytest.raises(ModelError, match=r"(?s)cannot be prepared: .*LMCACHE_TUTORIAL_CACHE"):
        prepare("shape:llama-3.1-8b", lambda line: None)


@pytest.mark.parametrize("text", ["", "[]", None])
def test_a_model_without_a_readable_config_is_one_message(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="KV size is unknown"):
        Model(tmp_path, "m", "").kv_bytes_per_token()
