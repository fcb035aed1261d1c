"""What breaks, on purpose: what the client sees, whether an answer is wrong, and when all is well again.

Some of them run with everything else; `make faults` runs the whole matrix. The table of all that
ran is `reports/faults.html`.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from lmcache_tutorial.asking.known import QUESTIONS, KnownAnswers
from lmcache_tutorial.asking.replies import InFlight, Question
from lmcache_tutorial.asking.trial import (
    REACH_S,
    RECOVERY_LIMIT_S,
    Trial,
    undergo,
    wait_back,
)
from lmcache_tutorial.graphs.beside import OpenBeside
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.prompts.documents import Document, Read
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.report.faults import FaultsRecord, OpenRow
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.servers.program import Program
from lmcache_tutorial.settings.topology import RouterConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.faults import Fault, killed, paused
from lmcache_tutorial.stack.restart import restart_caches, restart_engine, start_again
from lmcache_tutorial.stack.stack import Stack

pytestmark = pytest.mark.faults
whole_matrix = pytest.mark.kv_whole_matrix

MANUAL = Document("lmcache-source", size="short", seed=10)
VALKEY, FILES, FULL_VALKEY, WRONG_PASSWORD = range(4)  # the places of the tiers
ERROR_LIMIT_S = 10.0  # until a request that is lost to an engine or a router has its error
SILENT_S = 20.0  # without an answer: the connector gives up after 5 s, and may have to do so more than once
PAUSE_S = 4.0  # of what no request can do without
ASKED = 3  # questions; a full tier has not even room for the first
FULL = 0.7  # of the engine's blocks: no room for another prompt where there is room for two
IDLE, BUSY = "idle", "4 requests in flight"
SETTINGS = {
    "lmcache": "`mq_timeout` 5 s, `heartbeat_interval` 2 s, `kv_load_failure_policy` recompute, `--shm-name`",
    "valkey": "LMCache's memory serves without it",
    "vllm": "whoever asks must ask again: the router tries nothing twice here",
    "vllm_router": "whoever asks must ask again",
}


def crowded(config: StackConfig, room: Room) -> StackConfig:
    """A router, an engine with blocks for two prompts of four, LMCache, and tiers of several kinds."""
    blocks = room.engine_blocks(2)
    engine = replace(config.engine, blocks=blocks, context_tokens=(blocks - 1) * room.block_tokens)
    valkey = TierConfig("valkey", planned_gib=0.5)
    small = TierConfig("valkey", capacity_gib=0.005, arguments=("--maxmemory-policy", "noeviction"))
    wrong = replace(valkey, adapter=(("password", "not the password"),))
    tiers = (valkey, TierConfig("file_tier", planned_gib=0.5), small, wrong)
    cache = replace(config.cache, tiers=(VALKEY,), shared_memory=False)
    router = RouterConfig("vllm_router", "round_robin")
    return replace(config, engines=(engine,), caches=(cache,), tiers=tiers, router=router)


@pytest.fixture(scope="module")
def stack_under_test(
    stack: Stack, read: Read, room_for: Callable[[str, str], Room], open_beside: OpenBeside
) -> Stack:
    """A stack beside the session's that is broken again and again."""
    lab = open_beside(crowded(stack.config, room_for(read(MANUAL), QUESTIONS[0])))
    lab.stack.may_drop = True
    return lab.stack


@pytest.fixture(scope="module")
def known(known_answers: None, stack_under_test: Stack, read: Read) -> KnownAnswers:
    """Questions whose right answer is known."""
    prompts = [Reader.messages(read(MANUAL), question) for question in QUESTIONS]
    return KnownAnswers.of(stack_under_test, prompts, wanted=2)


Behind = Callable[..., Stack]


@pytest.fixture
def behind(stack_under_test: Stack) -> Behind:
    """``behind(place)`` puts a tier behind LMCache, which starts anew where that is another one."""
    plain = replace(stack_under_test.config.cache, shared_memory=False)

    def put(place: int, **limit: float) -> Stack:
        own = replace(plain, tiers=(place,))
        if own != stack_under_test.config.cache or not stack_under_test.cache.answers():
            restart_caches(stack_under_test, own, **limit)
        return stack_under_test

    return put


def program(stack: Stack, name: str) -> Program:
    (found,) = [one for one in stack.programs if one.name == name]
    return found


def tell(row: OpenRow, trial: Trial) -> None:
    """Write what clients saw of a trial into the table."""
    slowest = max(reply.took_s for reply in trial.replies)
    errors = f", {len(trial.errors)} errors" if trial.errors else ""
    row.saw(f"{trial.right} answers{errors}; the slowest after {slowest:.1f} s")
    row.answer = "wrong" if trial.wrong else "right"
    row.recovered_s = trial.recovered_s


def known_finding(name: str) -> NoReturn:
    """End a test by a fault of another project that no setting helps against; it is written up."""
    pytest.xfail(f"reports/findings/{name}.md")


def logged_by(stack: Stack) -> str:
    """What the engine has written so far; it goes on in the same file when it is started again."""
    return Path(stack.engine.process.record.log).read_text(errors="replace")


def ended_by_an_aborted_store(known: KnownAnswers, before: str) -> bool:
    """Start an engine again that has ended because it was told of a store of a request that was gone.

    ``before`` is what it had written before the fault.
    """
    stack = known.stack
    if stack.engine.process.alive() and stack.engine.answers():
        return False
    told = logged_by(stack).removeprefix(before)
    for one in (stack.engine, program(stack, "vllm_router")):  # which does not start without the engine
        one.process.stop()
        start_again(stack, one)
    wait_back(known)
    return "_update_from_kv_xfer_finished" in told


FAULTS: dict[str, Fault] = {"killed": killed, "paused": paused}
EVERY_DAY = [("vllm", "killed", BUSY), ("valkey", "killed", BUSY), ("vllm_router", "killed", IDLE)]
EVERY_DAY += [("lmcache", "paused", IDLE)]
MATRIX = [(name, fault, under) for name in SETTINGS for fault in FAULTS for under in (IDLE, BUSY)]


@pytest.mark.parametrize(
    ("name", "fault", "under"),
    [pytest.param(*one, marks=[] if one in EVERY_DAY else [whole_matrix]) for one in MATRIX],
)
def test_a_server_that_fails(
    name: str, fault: str, under: str, known: KnownAnswers, behind: Behind, faults: FaultsRecord
) -> None:
    behind(VALKEY)
    needed = name in ("vllm", "vllm_router")  # no request can do without
    requests = 4 if under == BUSY else 0
    hold_s = PAUSE_S if needed and fault == "paused" else None
    with faults.row(f"{name} {fault}", under=under, setting=SETTINGS[name]) as row:
        failing, before = program(known.stack, name), logged_by(known.stack)
        try:
            trial = undergo(known, FAULTS[fault], failing, requests=requests, hold_s=hold_s)
        except ServerError:
            if name != "vllm_router" or not ended_by_an_aborted_store(known, before):
                raise
            row.saw("errors, and the engine ended with it")
            row.answer = "an error"
            known_finding("vllm-an-aborted-request-ends-the-engine")
        tell(row, trial)
        assert trial.under_way == requests
        assert trial.wrong == 0
        assert trial.recovered_s < RECOVERY_LIMIT_S
        if needed and fault == "killed":
            assert all(reply.took_s < ERROR_LIMIT_S for reply in trial.replies if reply.error)
            assert not any(reply.error for reply in trial.after)
        else:
            assert trial.errors == []


def ask_all(known: KnownAnswers, row: OpenRow) -> None:
    """Ask new questions, and once more; none may be lost, and none answered wrongly."""
    asked = known.questions(ASKED)
    replies = [known.ask(question) for question in asked]
    known.stack.empty_engine_cache()
    known.stack.empty_lmcache()
    replies += [known.ask(question) for question in asked]
    wrong = sum(known.is_wrong(*pair) for pair in zip(asked * 2, replies, strict=True))
    lost = [reply.error for reply in replies if reply.error]
    again = sum(reply.answer.cached_tokens for reply in replies[len(asked) :] if reply.call)
    row.saw(
        f"{len(replies) - len(lost)} answers, {len(lost)} errors; {again:,} tokens reused when asked again"
    )
    row.answer = "wrong" if wrong else "right"
    assert lost == []
    assert wrong == 0
    everything = sum(reply.answer.prompt_tokens for reply in replies[len(asked) :])
    assert again < everything / 2, "the tier lacked nothing: the fault had no effect"


def test_a_full_disk(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    folder = Path(httpx.URL(behind(FILES).tiers[FILES].url).path)
    with faults.row(
        "disk full under the file tier", under=f"{ASKED} questions, twice", setting="`max_capacity_gb`"
    ) as row:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode:
            faults.not_run(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
        try:
            ask_all(known, row)
        finally:
            subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


def test_valkey_out_of_memory(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    behind(FULL_VALKEY)
    under = f"{ASKED} questions, twice"
    with faults.row("Valkey out of memory", under=under, setting="`maxmemory-policy`") as row:
        ask_all(known, row)


def test_valkey_with_a_wrong_password(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    with faults.row("Valkey's password wrong", under="a question", setting="`LMCACHE_RESP_PASSWORD`") as row:
        try:
            behind(WRONG_PASSWORD, answer_limit_s=SILENT_S)  # at its end the engine is asked for one token
        except httpx.ReadTimeout:
            assert known.stack.cache.answers(), "the cache server says that it is not well"
            row.saw(f"no answer within {SILENT_S:g} s, and the cache server calls itself healthy")
            known_finding("lmcache-a-wrong-password-holds-requests")
        ask_all(known, row)


def test_a_file_that_cannot_be_read(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    tier = behind(FILES).tiers[FILES]
    with faults.row("a file of the tier cannot be read", under="a question after it", setting="none") as row:
        (question,) = known.keep(1)
        known.stack.empty_lmcache()
        for path in Path(httpx.URL(tier.url).path).rglob(f"*{question.salt}*.data"):
            path.unlink()
            path.mkdir()
        reply = known.ask(question)
        row.saw(f"an answer after {reply.took_s:.1f} s; {reply.answer.cached_tokens} tokens reused")
        row.answer = "wrong" if known.is_wrong(question, reply) else "right"
        assert row.answer == "right"
        assert reply.answer.cached_tokens == 0


def gauges(stack: Stack, *names: str) -> list[float]:
    """What the engine says of itself now, in the order of the names."""
    lines = stack.engine.get("/metrics").text.splitlines()
    told = {
        line.partition("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:")
    }
    return [told[f"vllm:{name}"] for name in names]


def test_an_engine_out_of_blocks(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    behind(FILES)
    with faults.row(
        "the engine out of KV blocks", under="4 requests, blocks for 2", setting="`--kv-cache-memory-bytes`"
    ) as row:
        asked = [replace(one, answer_tokens=known.flight_tokens) for one in known.questions(4)]
        flight, seen = InFlight(known.stack, asked), []
        while flight.under_way:  # each of them has a limit of its own
            seen.append(gauges(known.stack, "num_requests_waiting", "kv_cache_usage_perc"))
            time.sleep(0.05)
        replies = flight.replies()
        waited = max((waiting for waiting, used in seen if used > FULL), default=0)
        wrong = sum(known.is_wrong(*pair) for pair in zip(asked, replies, strict=True))
        slowest = max(reply.took_s for reply in replies)
        row.saw(f"{len(replies)} answers; {waited:.0f} waited for blocks; the slowest after {slowest:.1f} s")
        row.answer = "wrong" if wrong else "right"
        assert waited > 0, "no request waited: there were blocks for all"
        assert [reply.error for reply in replies if reply.error] == []
        assert wrong == 0


def test_a_request_that_is_aborted(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    behind(FILES)
    (question,) = known.questions(1)
    body = question.body(known.stack.model.name) | {"max_tokens": 256}
    with faults.row("the client goes away", under="a question after it", setting="none") as row:
        with httpx.stream("POST", f"{known.stack.url}/v1/chat/completions", json=body, timeout=60) as answer:
            next(answer.iter_raw())
        deadline = time.monotonic() + ERROR_LIMIT_S
        while gauges(known.stack, "num_requests_running")[0]:
            assert time.monotonic() < deadline, "the engine goes on with a request that nobody waits for"
            time.sleep(0.1)
        reply = known.ask(question)
        row.saw(f"the engine stopped; the next answer after {reply.took_s:.1f} s")
        row.answer = "wrong" if known.is_wrong(question, reply) else "right"
        assert row.answer == "right"


def test_a_client_that_reads_slowly(known: KnownAnswers, behind: Behind, faults: FaultsRecord) -> None:
    behind(FILES)
    (slow, other) = known.questions(2)
    body = Question(slow.messages, slow.salt, answer_tokens=32).body(known.stack.model.name)
    with faults.row("a client reads slowly", under="another question meanwhile", setting="none") as row:
        with httpx.stream("POST", f"{known.stack.url}/v1/chat/completions", json=body, timeout=60) as answer:
            pieces = answer.iter_raw(chunk_size=64)
            next(pieces)
            reply = known.ask(other)
            time.sleep(PAUSE_S)
            rest = b"".join(pieces)
        row.saw(f"its whole answer; the other's after {reply.took_s:.1f} s")
        row.answer = "wrong" if known.is_wrong(other, reply) else "right"
        assert row.answer == "right"
        assert b"[DONE]" in rest


@whole_matrix
def test_a_cache_server_that_dies_during_a_store(
    known: KnownAnswers, behind: Behind, faults: FaultsRecord
) -> None:
    """This is so with LMCache 0.5.6: see reports/findings. Without shared memory nothing is lost."""
    stack = behind(FILES)
    own = stack.config.cache
    for shared_memory, setting in ((True, "shared memory"), (False, '`--shm-name ""`')):
        restart_caches(stack, replace(own, shared_memory=shared_memory))
        with faults.row(
            "LMCache killed during a store", under=f"1 request, {setting}", setting=setting
        ) as row:
            (question,) = known.questions(1)
            flight = InFlight(stack, [question])
            time.sleep(REACH_S)
            with killed(stack, stack.cache):
                (reply,) = flight.replies()
            alive = stack.engine.process.alive() and stack.engine.answers()
            row.saw(reply.error or f"an answer after {reply.took_s:.1f} s")
            row.answer = "right" if reply.call and not known.is_wrong(question, reply) else "an error"
            if not alive:
                restart_engine(stack)
            assert alive is not shared_memory


def test_two_runs_at_once(behind: Behind, faults: FaultsRecord, tmp_path: Path) -> None:
    stack = behind(FILES)
    command = [sys.executable, "-m", "pytest", "tutorial_tests", "-k", "lesson4 and order_of_tools"]
    with faults.row("another run of the suite", under="a stack that runs", setting="none") as row:
        done = subprocess.run(
            [*command, f"--kv-report-dir={tmp_path}"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        row.saw(f"exit code {done.returncode}: {done.stdout.strip().splitlines()[-1]}")
        assert done.returncode == 0, done.stdout[-2_000:]
        assert stack.engine.answers()


def library() -> Path:
    """Where the library is that gives a process another clock."""
    files = metadata.files("libfaketime") or []
    return next(Path(str(file.locate())) for file in files if file.name.startswith("libfaketime.so"))


def test_a_clock_that_is_set_forward(
    stack: Stack, read: Read, open_beside: OpenBeside, faults: FaultsRecord, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    variables = {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with faults.row(
        "the clock set forward by a day", under="questions before and after", setting="none"
    ) as row:
        config = replace(stack.config, environment=(*stack.config.environment, *variables.items()))
        lab = open_beside(config)
        prompts = [Reader.messages(read(MANUAL), question) for question in QUESTIONS]
        known = KnownAnswers.of(lab.stack, prompts, wanted=2)
        kept = known.keep(2)
        clock.write_text("+1d")
        asked = [*kept, *known.questions(2)]
        replies = [known.ask(question) for question in asked]
        reused = [reply.answer.cached_tokens for reply in replies]
        row.saw(f"{len(replies)} answers; {sum(reused):,} tokens reused")
        row.answer = "wrong" if any(map(known.is_wrong, asked, replies)) else "right"
        assert row.answer == "right"
        assert min(reused[:2]) > 0
