"""The kept stack's state, with stand-in servers; and a model folder that is not whole."""

import json
import sys
from dataclasses import asdict, replace
from importlib import metadata

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.models.prepare import (
    MANIFEST,
    Model,
    ModelError,
    is_complete,
    prepare,
    small_model_folder,
)
from lmcache_tutorial.plugin.header import header
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.servers.process import Server, ServerError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.workload import fit
from lmcache_tutorial.stack import keep as kept
from lmcache_tutorial.stack.keep import StackError, kept_servers, open_stack, state_file, take_down
from lmcache_tutorial.stack.stack import Stack

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
        "schema": kept.STATE_SCHEMA,
        "identity": "another",
        "config": {"chunk_tokens": 128},
        "lmcache_http": "http://127.0.0.1:1",
        "engine_is_whole": True,
        "workload": asdict(fit(PROFILES["cpu"].classes, 500)),
        "servers": [server.state() for server in started],
    }
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
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)
    assert "was started with another" in str(error.value)
    assert "chunk_tokens" in str(error.value)
    assert "lmcache-tutorial down" in str(error.value)
    assert all(server.alive() for server in servers)
    take_down()  # and the lock was let go


def test_half_a_kept_stack_is_one_error(servers, ready_model, tmp_path):
    servers[1].stop()
    with pytest.raises(StackError, match="is not whole"):
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)


def test_a_kept_stack_in_use_is_left_alone(servers, ready_model, tmp_path):
    lease = kept._lock()
    with lease:
        with pytest.raises(StackError, match="in use by another run"):
            take_down()
        with pytest.raises(StackError, match="in use by another run"):
            open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path, keep=True)), print)
    assert all(server.alive() for server in servers)


def test_without_a_kept_stack_the_lock_is_not_called_its_use(ready_model, tmp_path):
    lease = kept._lock()
    with lease:
        with pytest.raises(StackError, match="another run is starting a stack that it will keep"):
            take_down()
        with pytest.raises(StackError, match="another run is starting a stack that it will keep"):
            open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path, keep=True)), print)


def test_a_run_that_keeps_nothing_holds_no_lock_while_it_starts(ready_model, tmp_path, monkeypatch):
    def start(run, model, progress):
        with kept._lock() as free:
            assert free
        raise StackError("started")

    monkeypatch.setattr(kept, "_start", start)
    with pytest.raises(StackError, match="started"):
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)


@pytest.fixture
def started(servers, ready_model, tmp_path, monkeypatch):
    """A stack of stand-ins that ``open_stack`` takes for the one that it started."""
    state_file().unlink()
    run = run_config(RunOptions(stack="cpu", report_dir=tmp_path, keep=True))
    lmcache, engine = servers
    stack = Stack(run.stack, Model(tmp_path, "m", "digest"), engine, lmcache, "http://127.0.0.1:1", print)
    monkeypatch.setattr(kept, "_start", lambda run, model, progress: stack)
    monkeypatch.setattr(kept, "identity", lambda config, model: "identity")
    return run


def test_a_stack_is_written_down_before_it_is_handed_over(started, servers, monkeypatch):
    written = []
    monkeypatch.setattr(Server, "keep", lambda server: written.append(state_file().exists()))
    open_stack(started).close()
    assert written == [True, True]


def test_a_stack_that_cannot_be_written_down_is_not_kept(started, servers, monkeypatch):
    def fail(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write_atomically", fail)
    with pytest.raises(StackError, match=r"(?s)No space left on device.*stack\.json"):
        open_stack(started)
    assert not any(server.alive() for server in servers)
    assert kept_servers() == {}
    take_down()  # and the lock was let go


def test_a_server_that_does_not_stop_keeps_neither_the_other_nor_the_lock(started, servers, monkeypatch):
    stack = open_stack(started)
    stack.kept = False

    def fail():
        raise ServerError("vllm was still there")

    with monkeypatch.context() as patched:
        patched.setattr(servers[1], "stop", fail)
        with pytest.raises(ServerError, match="still there"):
            stack.close()
    assert [server.alive() for server in servers] == [False, True]
    assert stack.client.is_closed
    assert stack.lease.closed


def test_down_stops_what_it_can_and_remembers_the_rest(servers, monkeypatch):
    stop = Server.stop

    def fail(server):
        if server.record.name == "lmcache":
            raise ServerError("lmcache was still there")
        stop(server)

    with monkeypatch.context() as patched:
        patched.setattr(Server, "stop", fail)
        with pytest.raises(ServerError, match="lmcache was still there"):
            take_down()
    assert set(kept_servers()) == {"lmcache"}


ANOTHER_VERSION = [
    "not json",
    "[]",
    '{"servers": 3}',
    '{"schema": 99}',
    '{"identity": "x", "config": {}, "servers": [{"name": "vllm", "pid": 1}]}',
    f'{{"schema": {kept.STATE_SCHEMA}, "servers": [{{"name": "vllm", "command": [], "started": 1.0}}]}}',
    f'{{"schema": {kept.STATE_SCHEMA}, "servers": []}}',
]


@pytest.mark.parametrize("text", ANOTHER_VERSION)
def test_a_state_file_of_another_version_is_one_message_that_names_it(ready_model, tmp_path, text):
    state_file().parent.mkdir(parents=True)
    state_file().write_text(text)
    run = run_config(RunOptions(stack="cpu", report_dir=tmp_path))
    for act in (kept_servers, take_down, lambda: open_stack(run, print)):
        with pytest.raises(StackError, match=f"(?s)another version of this suite.*{state_file()}") as error:
            act()
        assert "To fix" in str(error.value)
    assert str(state_file()) in header(run)[0]
    for command in ("status", "down"):
        done = CliRunner().invoke(app, [command])
        assert done.exit_code == 1
        assert str(state_file()) in done.stderr
        assert done.stdout == ""


def test_what_still_runs_of_another_version_is_named(servers):
    state = json.loads(state_file().read_text())
    state_file().write_text(json.dumps(state | {"schema": 1}))
    supervisors = " ".join(str(server.record.supervisor) for server in servers)
    with pytest.raises(StackError, match=f"stop it by hand: kill {supervisors}; rm "):
        kept_servers()


def test_a_stack_without_lmcache_says_so_instead_of_asking_nowhere(servers, tmp_path):
    config = replace(PROFILES["cpu"].stack, offload="none")
    stack = Stack(config, Model(tmp_path, "m", "digest"), servers[1], None, None, print)
    with pytest.raises(ServerError, match="no LMCache server"):
        _ = stack.chunk_tokens
    stack.client.close()


def test_too_little_memory_is_told_before_a_start(ready_model, tmp_path):
    with pytest.raises(StackError, match=r"memory is too small.*needed"):
        open_stack(run_config(RunOptions(stack="cpu", engine_memory_gib=1024, report_dir=tmp_path)), print)


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
    from lmcache_tutorial.models import prepare as model

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


def test_a_conversion_that_hangs_is_one_message(monkeypatch, tmp_path):
    from lmcache_tutorial.models import prepare as model

    monkeypatch.setattr(model, "_gguf", lambda: tmp_path / "small.gguf")
    monkeypatch.setattr(model, "CONVERSION_LIMIT_S", 0)
    with pytest.raises(ModelError, match=r"(?s)was not converted within 0 s.*small\.gguf.*To fix"):
        prepare("smollm2", lambda line: None)


def absent(name):
    def version(asked):
        if asked == name:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    return version


def test_a_shape_without_lmcache_is_one_message(monkeypatch):
    from lmcache_tutorial.models import prepare as model

    monkeypatch.setattr(model.metadata, "version", absent("lmcache"))
    with pytest.raises(ModelError, match="lmcache is not installed"):
        prepare("shape:llama-3.1-8b", lambda line: None)


def test_a_shape_without_lmcaches_source_is_one_message(monkeypatch):
    from lmcache_tutorial.prompts import documents as corpus

    monkeypatch.setattr(corpus.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"documents are LMCache's own source.*not installed"):
        prepare("shape:llama-3.1-8b", lambda line: None)
    done = CliRunner().invoke(app, ["prepare", "--model=shape:llama-3.1-8b"])
    assert done.exit_code == 1
    assert "error: the model shape:llama-3.1-8b cannot be prepared" in done.stderr


def test_a_cache_folder_that_cannot_be_made_is_one_message(cache, ready_model, tmp_path):
    cache.touch()  # a file in its place
    with pytest.raises(ModelError, match=r"(?s)cannot be prepared: .*LMCACHE_TUTORIAL_CACHE"):
        prepare("shape:llama-3.1-8b", lambda line: None)
    with pytest.raises(
        StackError, match=r"(?s)folder of kept stacks cannot be written.*LMCACHE_TUTORIAL_CACHE"
    ):
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)


@pytest.mark.parametrize("text", ["", "[]", None])
def test_a_model_without_a_readable_config_is_one_message(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="KV size is unknown"):
        Model(tmp_path, "m", "").kv_bytes_per_token()


def test_a_package_that_is_missing_is_one_message(monkeypatch, tmp_path):
    monkeypatch.setattr(kept.metadata, "version", absent("lmcache"))
    with pytest.raises(StackError, match=r"(?s)lmcache is not installed.*doctor --stack cpu"):
        kept.identity(PROFILES["cpu"].stack, Model(tmp_path, "m", "digest"))


def test_a_package_without_a_version_does_not_end_a_run(monkeypatch, cpu_run):
    from lmcache_tutorial.report import environment as session

    monkeypatch.setattr(session, "OPTIONAL", ("json",))  # there, but no package
    assert "json" not in session.environment(cpu_run)["packages"]


def test_a_conversion_that_fails_leaves_nothing_and_says_why(monkeypatch, tmp_path):
    from lmcache_tutorial.models import prepare as model

    monkeypatch.setattr(model, "_gguf", lambda: tmp_path / "missing.gguf")
    with pytest.raises(ModelError, match="could not be converted"):
        prepare("smollm2", lambda line: None)
    assert not small_model_folder().exists()
