"""The kept stack's state, with stand-in servers; and a model folder that is not whole."""

import json
import sys

import pytest

from lmcache_tutorial.config import run_config
from lmcache_tutorial.model import MANIFEST, Model, ModelError, is_complete, prepare, small_model_folder
from lmcache_tutorial.process import Server, free_port
from lmcache_tutorial.stack import StackError, kept, kept_servers, open_stack, state_file, take_down

WAIT = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def servers(tmp_path):
    """Two stand-ins that are written down as a kept stack of another configuration."""
    started = [
        Server.start(name, [sys.executable, "-c", WAIT], port=free_port(), log=tmp_path / f"{name}.log")
        for name in ("lmcache", "vllm")
    ]
    state_file().parent.mkdir(parents=True)
    state = {
        "identity": "another", "config": {"chunk_tokens": 128}, "lmcache_http": "http://127.0.0.1:1",
        "engine_is_whole": True, "servers": [server.state() for server in started],
    }  # fmt: skip
    state_file().write_text(json.dumps(state))
    yield started
    for server in started:
        server.stop()


@pytest.fixture
def ready_model(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "prepare", lambda model, progress: Model(tmp_path, "m", "digest"))


def test_a_kept_stack_is_found_and_taken_down(servers):
    assert set(kept_servers()) == {"lmcache", "vllm"}
    lines = []
    take_down(lines.append)
    assert lines == ["stack: lmcache stopped", "stack: vllm stopped"]
    assert not any(server.alive() for server in servers)
    assert kept_servers() == {}
    take_down(lines.append)
    assert len(lines) == 2


def test_a_kept_stack_that_does_not_match_is_one_error(servers, ready_model, tmp_path):
    with pytest.raises(StackError) as error:
        open_stack(run_config(stack="cpu", report_dir=tmp_path), print)
    assert "was started with another" in str(error.value)
    assert "chunk_tokens" in str(error.value)
    assert "lmcache-tutorial down" in str(error.value)
    assert all(server.alive() for server in servers)
    take_down()  # and the lock was let go


def test_half_a_kept_stack_is_one_error(servers, ready_model, tmp_path):
    servers[1].stop()
    with pytest.raises(StackError, match="is not whole"):
        open_stack(run_config(stack="cpu", report_dir=tmp_path), print)


def test_a_kept_stack_in_use_is_left_alone(servers, ready_model, tmp_path):
    lease = kept._lock()
    with lease:
        with pytest.raises(StackError, match="in use by a run"):
            take_down()
        with pytest.raises(StackError, match="in use by another run"):
            open_stack(run_config(stack="cpu", report_dir=tmp_path, keep_stack=True), print)
    assert all(server.alive() for server in servers)


def test_too_little_memory_is_told_before_a_start(ready_model, tmp_path):
    with pytest.raises(StackError, match=r"memory is too small.*needed"):
        open_stack(run_config(stack="cpu", engine_memory_gib=1024, report_dir=tmp_path), print)


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
    from lmcache_tutorial import model

    target = small_model_folder()
    target.mkdir(parents=True)
    (target / "half-written").write_text("x")
    leftover = target.parent / ".converting-abc"
    leftover.mkdir()
    monkeypatch.setattr(model, "_gguf", lambda: target)
    monkeypatch.setattr(
        model, "_convert_in_process", lambda gguf, out: (out / "config.json").write_text("{}")
    )
    ready = prepare("smollm2", lambda line: None)
    assert ready.folder == target
    assert is_complete(target)
    assert not (target / "half-written").exists()
    assert not leftover.exists()
    (target / "config.json").write_text("damaged")
    prepare("smollm2", lambda line: None)
    assert (target / "config.json").read_text() == "{}"


def test_a_conversion_that_fails_leaves_nothing_and_says_why(monkeypatch, tmp_path):
    from lmcache_tutorial import model

    monkeypatch.setattr(model, "_gguf", lambda: tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match="could not be converted"):
        prepare("smollm2", lambda line: None)
    assert not small_model_folder().exists()
