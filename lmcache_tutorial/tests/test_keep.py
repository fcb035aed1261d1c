"""The kept stack's state, with stand-in servers."""

import json
import sys
from dataclasses import asdict
from importlib import metadata
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.models.model import Model
from lmcache_tutorial.plugin.header import header
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.servers.process import Launch, Server, ServerError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.workload import fit
from lmcache_tutorial.stack import keep as kept
from lmcache_tutorial.stack import kept_state
from lmcache_tutorial.stack.keep import lend, open_stack, take_down
from lmcache_tutorial.stack.kept_state import StackError, kept_servers, read_state, state_file
from lmcache_tutorial.stack.start import resume

SCHEMA = kept_state.STATE_SCHEMA
WAIT = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def servers(tmp_path):
    """Two stand-ins that are written down as a kept stack of another configuration."""
    started = [
        Server.start(name, [sys.executable, "-c", WAIT], Launch(free_port(), tmp_path / f"{name}.log"))
        for name in ("lmcache", "vllm")
    ]
    state_file().parent.mkdir(parents=True)
    state = {
        "schema": SCHEMA,
        "identity": "another",
        "config": {"caches": [{"chunk_tokens": 128}]},
        "workload": asdict(fit(PROFILES["cpu"].classes, 500)),
        "programs": [
            {"name": server.record.name, "url": "http://127.0.0.1:1", "record": server.state(), "cache": None}
            for server in started
        ],
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
    assert "caches" in str(error.value)
    assert "lmcache-tutorial down" in str(error.value)
    assert all(server.alive() for server in servers)
    take_down()  # and the lock was let go


def test_half_a_kept_stack_is_one_error(servers, ready_model, tmp_path):
    servers[1].stop()
    with pytest.raises(StackError, match="is not whole"):
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)


def test_a_kept_stack_in_use_is_left_alone(servers, ready_model, tmp_path):
    lease = kept_state.lock()
    with lease:
        with pytest.raises(StackError, match="in use by another run"):
            take_down()
        with pytest.raises(StackError, match="in use by another run"):
            open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path, keep=True)), print)
    assert all(server.alive() for server in servers)


def test_without_a_kept_stack_the_lock_is_not_called_its_use(ready_model, tmp_path):
    lease = kept_state.lock()
    with lease:
        with pytest.raises(StackError, match="another run is starting a stack that it will keep"):
            take_down()
        with pytest.raises(StackError, match="another run is starting a stack that it will keep"):
            open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path, keep=True)), print)


def test_a_run_that_keeps_nothing_holds_no_lock_while_it_starts(ready_model, tmp_path, monkeypatch):
    def start(run, model, progress):
        with kept_state.lock() as free:
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
    kept_programs = [
        {"name": one.record.name, "url": "http://127.0.0.1:1", "cache": "lmcache", "shm_name": "s"}
        for one in servers
    ]
    processes = {server.record.name: server for server in servers}
    stack = resume(run.stack, Model(tmp_path, "m", "digest"), kept_programs, processes, print)
    stack.workload = fit(PROFILES["cpu"].classes, 500)
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
    '{"schema": 3, "identity": "x", "servers": [{"name": "vllm", "command": [], "started": 1.0}]}',
    f'{{"schema": {SCHEMA}, "programs": [{{"record": {{"name": "vllm", "started": 1.0}}}}]}}',
    f'{{"schema": {SCHEMA}, "programs": []}}',
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
    config = PROFILES["cpu"].stack.without_caches()
    kept_engine = [{"name": "vllm", "url": "http://127.0.0.1:1", "cache": None}]
    stack = resume(config, Model(tmp_path, "m", "digest"), kept_engine, {"vllm": servers[1]}, print)
    with pytest.raises(ServerError, match="no LMCache server"):
        _ = stack.chunk_tokens
    stack.client.close()


def test_too_little_memory_is_told_before_a_start(ready_model, tmp_path):
    with pytest.raises(StackError, match=r"memory is too small.*needed"):
        open_stack(run_config(RunOptions(stack="cpu", engine_memory_gib=1024, report_dir=tmp_path)), print)


def test_a_cache_folder_that_cannot_be_made_is_one_message(cache, ready_model, tmp_path):
    cache.touch()  # a file in its place
    with pytest.raises(
        StackError, match=r"(?s)folder of kept stacks cannot be written.*LMCACHE_TUTORIAL_CACHE"
    ):
        open_stack(run_config(RunOptions(stack="cpu", report_dir=tmp_path)), print)


def test_a_package_that_is_missing_is_one_message(monkeypatch, tmp_path):
    def absent(name):
        raise metadata.PackageNotFoundError("lmcache")

    monkeypatch.setattr(kept.metadata, "version", absent)
    with pytest.raises(StackError, match=r"(?s)lmcache is not installed.*doctor --stack cpu"):
        kept.identity(PROFILES["cpu"].stack, Model(tmp_path, "m", "digest"))


def test_a_package_without_a_version_does_not_end_a_run(monkeypatch, cpu_run):
    from lmcache_tutorial.report import environment as session

    monkeypatch.setattr(session, "OPTIONAL", ("json",))  # there, but no package
    assert "json" not in session.environment(cpu_run)["packages"]


def seen_by_another():
    """What another process sees: the kept servers, and whether the lock is free."""
    lease = kept_state.lock()
    if lease:
        lease.close()
    return set(kept_servers()), lease is not None


def test_a_stack_that_is_lent_is_a_kept_one_until_it_is_back(started, servers):
    stack = kept._start(started, None, print)
    with lend(stack):
        assert seen_by_another() == ({"lmcache", "vllm"}, True)
        assert read_state().identity == "identity"
    assert seen_by_another() == (set(), True)
    assert all(server.alive() for server in servers)
    stack.close()
    assert not any(server.alive() for server in servers), "it was never handed over"


def test_a_kept_stack_that_is_lent_stays_kept_and_is_locked_again(started, servers):
    stack = open_stack(started)
    assert seen_by_another() == ({"lmcache", "vllm"}, False)
    with lend(stack):
        assert seen_by_another() == ({"lmcache", "vllm"}, True)
    assert seen_by_another() == ({"lmcache", "vllm"}, False)
    stack.close()
    assert kept_servers()
    take_down()


def test_beside_a_kept_stack_another_one_is_not_lent(started, servers):
    stack = kept._start(started, None, print)
    with lend(stack), pytest.raises(StackError, match="another stack is kept"), lend(stack):
        pytest.fail("it was lent twice")


@pytest.mark.parametrize(("memory_gib", "advised"), [(2, []), (0.5, ["--kv-lmcache-memory-gib=2)"])])
def test_the_memory_that_is_advised_for_lesson_3_is_enough(memory_gib, advised):
    run = run_config(RunOptions(lmcache_memory_gib=memory_gib), has_gpu=False)
    documents = run.classes[-1].sizes.rounds * run.classes[-1].sizes.long
    tokens = documents + 2 * PROFILES["cpu"].warm_up_tokens  # the documents alone would fit into 1 GiB
    assert 1.01 * documents / tokens < 1
    said = []
    model = SimpleNamespace(kv_bytes_per_token=lambda dtype, gpus: 1.01 * 0.8 * 2**30 / tokens)
    kept._warn_of_eviction(run, model, said.append)
    assert [line.rpartition(" ")[2] for line in said] == advised
