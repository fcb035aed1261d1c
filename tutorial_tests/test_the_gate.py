"""The gate on a running deployment: five states that it must tell apart, alone and beside others' traffic.

The gate runs as a reader's would: a pytest of its own, in a folder of its own, that knows an address and
nothing else. A gate that was never seen to fail is decoration.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from lmcache_tutorial.asking.direct import ask_engine
from lmcache_tutorial.asking.replies import Question
from lmcache_tutorial.graphs.beside import OpenBeside
from lmcache_tutorial.prompts.documents import Document, Read
from lmcache_tutorial.report.faults import FaultsRecord
from lmcache_tutorial.servers.lmcache import Cache
from lmcache_tutorial.settings.topology import RouterConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.tests.gateway import by_text, gateway, salts_dropped
from lmcache_tutorial.workbench.gate_run import RUN_LIMIT_S, run_gate

MANUAL, LONGER = (Document("lmcache-source", size=size, seed=13) for size in ("medium", "long"))
FIRST, SECOND = "Which class stores a chunk?", "Which class looks a chunk up?"
EXAMPLES = Path(__file__).parents[1] / "lmcache_tutorial" / "tests" / "examples"
ON_REQUEST = [pytest.mark.faults, pytest.mark.kv_whole_matrix]  # `make faults` runs it
STRANGERS, PAUSE_S, WORDS = 4, 1.0, 8  # clients of somebody else's, and what each asks


def two_models(config: StackConfig) -> StackConfig:
    """Two engines on one LMCache with a file tier; the second has other weights under the same name."""
    engine, second = config.side_by_side(2)
    other = replace(second, arguments=(*second.arguments, "--load-format", "dummy"))
    files = TierConfig("file_tier", planned_gib=0.5)
    router = RouterConfig("vllm_router", "round_robin")
    config = replace(config, engines=(engine, other), tiers=(files,), router=router)
    return config.with_caches(tiers=(0,))


@pytest.fixture(scope="module")
def lab(stack: Stack, open_beside: OpenBeside) -> Stack:
    """The deployment: somebody else's, as far as the gate is concerned."""
    return open_beside(two_models(stack.config)).stack


@dataclass(frozen=True)
class State:
    """A state of a deployment, and what the gate must say of it.

    ``clock`` puts the time in front of each prompt; ``gateway`` stands before the engines. ``times`` are
    judged where all is well: elsewhere they would decide nothing.
    """

    exit_code: int
    says: str
    clock: bool = False
    times: bool = False
    names_another_lmcache: bool = False
    gateway: Callable[[Stack], Callable[[dict[str, object]], str]] | None = None


STATES = {
    "healthy": State(0, "verdict: passed", times=True),
    "LMCache absent though named": State(
        1, "the engine does not ask the LMCache at", names_another_lmcache=True
    ),
    "misaligned": State(1, "timestamp. Move the time to the end of the prompt", clock=True),
    "salts ignored": State(
        0, "cold by a nonce in front", gateway=lambda lab: salts_dropped(lab.engines[0].url)
    ),
    "another model's KV": State(
        1,
        "failed: the answer is the same with reuse as without",
        gateway=lambda lab: by_text(FIRST, lab.engines[1].url, lab.engines[0].url),
    ),
}


def prompts_file(manual: str, *, clock: bool = False, **bars: bool | str) -> str:
    """A file of prompts of one group, with its bars; where it states none, TTFT is held against the usual."""
    lines: list[dict[str, object]] = [{"group": "manual", "kv": bars}]
    for second, question in enumerate((FIRST, SECOND)):
        now = f"It is 2026-11-27T10:00:{second:02d}Z. " if clock else ""
        messages = [{"role": "system", "content": now + manual}, {"role": "user", "content": question}]
        lines.append({"group": "manual", "messages": messages})
    return "\n".join(map(json.dumps, lines))


@contextmanager
def strangers(url: str, model: str) -> Iterator[None]:
    """Let others use an engine meanwhile: small questions, each of them new, from several clients at once."""
    done = threading.Event()

    def ask(number: int) -> None:
        for turn in range(10_000):
            if done.wait(PAUSE_S):
                return
            words = " ".join(f"{number}.{turn}.{word}" for word in range(WORDS))
            body = {"model": model, "prompt": words, "max_tokens": 4}
            httpx.post(f"{url}/v1/completions", json=body, timeout=RUN_LIMIT_S).raise_for_status()

    clients = [threading.Thread(target=ask, args=[number]) for number in range(STRANGERS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        done.set()
        for client in clients:
            client.join(RUN_LIMIT_S)


@pytest.mark.parametrize("traffic", ["alone", pytest.param("beside 4 others", marks=ON_REQUEST)])
@pytest.mark.parametrize("name", STATES)
def test_the_gate_tells_the_states_of_a_deployment_apart(
    name: str, traffic: str, lab: Stack, stack: Stack, read: Read, tmp_path: Path
) -> None:
    state, alone = STATES[name], traffic == "alone"
    manual = read(MANUAL if alone else LONGER)  # a warm TTFT has a stranger's share in it
    prompts = prompts_file(manual, clock=state.clock, times=state.times)
    (tmp_path / "agent.prompts.jsonl").write_text(prompts)
    named: Cache = (stack if state.names_another_lmcache else lab).cache
    with ExitStack() as meanwhile:
        url = lab.engines[0].url
        if not alone:
            meanwhile.enter_context(strangers(url, lab.model.name))
        if state.gateway:
            url = meanwhile.enter_context(gateway(state.gateway(lab)))
        done = run_gate(tmp_path, f"--kv-url={url}", f"--kv-lmcache-url={named.url}")
    assert done.exit_code == state.exit_code, done.output
    assert state.says in done.output
    assert "Traceback" not in done.output
    assert done.results["verdict"] == ("failed" if state.exit_code else "passed")
    assert done.group("manual")["outcome"] == done.results["verdict"]


def test_hits_of_lmcache_alone_are_judged_where_the_engine_may_be_emptied(
    lab: Stack, read: Read, tmp_path: Path
) -> None:
    prompts = prompts_file(read(MANUAL), served_by="lmcache", exact=True, times=False)
    (tmp_path / "agent.prompts.jsonl").write_text(prompts)
    named = (f"--kv-url={lab.engines[0].url}", f"--kv-lmcache-url={lab.cache.url}")
    done = run_gate(tmp_path, *named, "--kv-allow-reset")
    assert done.exit_code == 0, done.output
    assert "verdict: passed" in done.output


def test_the_agent_of_the_example_is_gated_as_the_readme_says(lab: Stack, read: Read, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "agent", tmp_path, dirs_exist_ok=True)
    (tmp_path / "manual.txt").write_text(read(MANUAL))
    done = run_gate(tmp_path, f"--kv-url={lab.engines[0].url}", f"--kv-lmcache-url={lab.cache.url}")
    assert done.exit_code == 0, done.output
    assert "2 passed" in done.output


@pytest.mark.faults
def test_what_another_model_left_under_the_same_name_is_loaded(
    lab: Stack, read: Read, faults: FaultsRecord
) -> None:
    """This is so: a file's name has the model's name, and nothing of its weights. A salt tells them apart."""
    messages = [{"role": "system", "content": read(MANUAL)}, {"role": "user", "content": FIRST}]
    engine, other = lab.engines
    cold, own = (ask_engine(lab, engine, question) for question in [Question(messages, answer_tokens=4)] * 2)
    with faults.row("another model's files", under="a question", setting="a folder or salt a model") as row:
        question = Question(messages, answer_tokens=4)
        ask_engine(lab, other, question)
        lab.empty_lmcache()
        call = ask_engine(lab, engine, question)
        assert call.tokens
        assert own.tokens
        row.saw(f"an answer; {call.tokens.reused:,} of {call.prompt_tokens:,} tokens reused")
        row.answer = "right" if call.same_answer(own) else "wrong"
        assert call.tokens.reused > 0
        assert row.answer == "wrong"
        assert ask_engine(lab, engine, Question(messages, answer_tokens=4)).same_answer(cold)
