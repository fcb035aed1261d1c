"""Is it the same answer? From the places that can serve a prompt, and after some damages.

The judge is the engine's own cache: whoever serves the same tokens must give the same text with the same
log-probabilities, bit for bit. Where nothing is reused, the judge is the prompt that was prefilled whole.
Every question has the same words and a namespace of its own (`cache_salt`), so it is new to every cache, and
its answer is known.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lmcache_tutorial.asking.direct import ask_engine
from lmcache_tutorial.asking.known import COARSE_TOLERANCE, TOLERANCE
from lmcache_tutorial.asking.replies import Question
from lmcache_tutorial.graphs.beside import OpenBeside
from lmcache_tutorial.graphs.cutting import cut_to_chunks
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.records import Call
from lmcache_tutorial.report.faults import FaultsRecord, OpenRow
from lmcache_tutorial.servers.file_tier import FileTier
from lmcache_tutorial.settings.topology import RouterConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.restart import reconnect, restart_caches
from lmcache_tutorial.stack.stack import Stack

pytestmark = pytest.mark.faults

MANUAL = Document("lmcache-source", size="short", seed=9)
QUESTION = "Which class stores a chunk?"
KINDS = ("files", "encrypted files", "Valkey", "in the middle", "at the end")
FILES, SEALED, VALKEY, GAP_IN_THE_MIDDLE, GAP_AT_THE_END = range(len(KINDS))  # the places of the tiers


def tiers(key: Path) -> tuple[TierConfig, ...]:
    """Files; files whose every chunk is encrypted and authenticated; Valkey; files of which loads fail."""
    files = TierConfig("file_tier", planned_gib=0.5)
    serde = {"type": "aesgcm", "key_provider": "hkdf", "aes_bits": 128, "master_key_path": str(key)}
    gaps = [(("type", "fault_inject"), ("gap_tail_ratios", [ratio])) for ratio in (0.5, 0.0)]
    return (
        files,
        replace(files, adapter=(("serde", serde),)),
        TierConfig("valkey", planned_gib=0.5),
        *(replace(files, around=gap) for gap in gaps),
    )


def two_engines(config: StackConfig, key: Path) -> StackConfig:
    """Two engines on one LMCache."""
    router = RouterConfig("vllm_router", "round_robin")
    return replace(config, engines=config.side_by_side(2), tiers=tiers(key), router=router)


def reused(call: Call) -> int:
    """How many tokens of a prompt were not computed."""
    assert call.tokens
    return call.tokens.reused


@dataclass(frozen=True)
class Bench:
    """Two engines, and a prompt of which both kinds of answers are known.

    ``cold`` is the answer when the prompt was prefilled whole, ``own`` the one from the engine's own cache.
    The prompt is cut so that the engine and LMCache reuse the same tokens of it.
    """

    stack: Stack
    messages: Sequence[dict[str, str]]
    cold: Call
    own: Call

    @classmethod
    def of(cls, stack: Stack, messages: Sequence[dict[str, str]]) -> "Bench":
        question = Question(messages, answer_tokens=4)
        cold, own = (ask_engine(stack, stack.engines[0], question) for _ in range(2))
        assert own.tokens
        assert own.tokens.engine == reused(own) > 0 == reused(cold)
        return cls(stack, messages, cold, own)

    def ask(self, question: Question, engine: int = 0) -> Call:
        return ask_engine(self.stack, self.stack.engines[engine], question)

    def stored(self, *, in_memory: bool = True) -> Question:
        """Ask a new question, which is stored; the engines forget it then, and perhaps LMCache's memory."""
        question = Question(self.messages, answer_tokens=4)
        assert reused(self.ask(question)) == 0
        self.stack.empty_engine_cache()
        if not in_memory:
            self.stack.empty_lmcache()
        return question

    def behind(self, place: int) -> None:
        """Put a tier behind LMCache, which starts anew for it."""
        if self.stack.config.caches[0].tiers != (place,):
            restart_caches(self.stack, replace(self.stack.config.caches[0], tiers=(place,)))

    def files(self, question: Question) -> list[Path]:
        """The files of a question's namespace, in the tier that stands behind LMCache."""
        (place,) = self.stack.config.caches[0].tiers
        tier = self.stack.tiers[place]
        assert isinstance(tier, FileTier)
        return [path for path in tier.paths if question.salt in path.name]


@pytest.fixture(scope="module")
def bench(
    stack: Stack, open_beside: OpenBeside, read: Read, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    """The stack, with a secret of which LMCache makes a key for each namespace."""
    key = tmp_path_factory.mktemp("key") / "master"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(32))
    lab = open_beside(two_engines(stack.config, key)).stack  # on a GPU the session's is stopped now
    manual = read(MANUAL)
    chunks = lab.count_tokens(manual) // lab.chunk_tokens - 1
    manual = fresh(cut_to_chunks(lab, manual, QUESTION, chunks))
    return Bench.of(lab, Reader.messages(manual, QUESTION))


@pytest.fixture(scope="module", params=[FILES, SEALED], ids=KINDS[:2])
def kind(bench: Bench, request: pytest.FixtureRequest) -> str:
    """The files behind LMCache; pytest runs together what needs the same."""
    place: int = request.param
    bench.behind(place)
    return KINDS[place]


def served(bench: Bench, call: Call, source: str) -> None:
    """Check that one source served what the engine's own cache would have, with the same answer."""
    assert getattr(call.tokens, source) == reused(call) == reused(bench.own) > 0
    assert call.same_answer(bench.own)


def test_from_lmcaches_memory(bench: Bench) -> None:
    served(bench, bench.ask(bench.stored()), "lmcache_l1")


def test_from_what_the_other_engine_computed(bench: Bench) -> None:
    served(bench, bench.ask(bench.stored(), engine=1), "lmcache_l1")


def test_after_a_restart_of_the_engine(bench: Bench) -> None:
    question = bench.stored()
    reconnect(bench.stack, engine=0, cache=0)
    served(bench, bench.ask(question), "lmcache_l1")


def test_from_valkey(bench: Bench) -> None:
    bench.behind(VALKEY)
    served(bench, bench.ask(bench.stored(in_memory=False)), "lmcache_l2")


def test_from_files(bench: Bench, kind: str) -> None:
    served(bench, bench.ask(bench.stored(in_memory=False)), "lmcache_l2")


def tell(row: OpenRow, call: Call, right: Call) -> None:
    """Write into the table how a question was answered, and whether that is the right answer."""
    row.saw(f"an answer; {reused(call):,} of {call.prompt_tokens:,} tokens reused")
    row.answer = "right" if call.same_answer(right) else "wrong"


def test_a_truncated_file_is_a_miss(bench: Bench, kind: str, faults: FaultsRecord) -> None:
    with faults.row("files truncated", under=f"a question after it, {kind}", setting="–") as row:
        question = bench.stored(in_memory=False)
        for path in bench.files(question):
            os.truncate(path, path.stat().st_size - 1)
        call = bench.ask(question)
        tell(row, call, bench.cold)
        assert reused(call) == 0
        assert row.answer == "right"


def flip_a_bit(path: Path) -> None:
    """Change the sign of one number in a file; the file is as long as before."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 | 3)  # the last byte of a number, of two bytes or of four
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x80]))


def test_a_flipped_bit_is_a_miss_with_encryption_alone(bench: Bench, kind: str, faults: FaultsRecord) -> None:
    """Plain files are loaded and give another answer; no setting of theirs helps: see reports/findings."""
    sealed = kind == KINDS[SEALED]
    with faults.row("a bit flipped", under=f"a question after it, {kind}", setting="serde `aesgcm`") as row:
        question = bench.stored(in_memory=False)
        for path in bench.files(question):
            flip_a_bit(path)
        call = bench.ask(question)
        tell(row, call, bench.cold if sealed else bench.own)
        assert reused(call) == (0 if sealed else reused(bench.own))
        assert row.answer == ("right" if sealed else "wrong")


@pytest.mark.parametrize(
    "place",
    [GAP_IN_THE_MIDDLE, pytest.param(GAP_AT_THE_END, marks=pytest.mark.kv_whole_matrix)],
    ids=KINDS[3:],
)
def test_after_a_tier_that_did_not_bring_a_chunk(bench: Bench, place: int, faults: FaultsRecord) -> None:
    """LMCache's server gives the engine what stands in front of the gap, and the engine computes the rest."""
    bench.behind(place)
    last = reused(bench.own) // bench.stack.chunk_tokens - 1
    gap = round(last / 2) if place == GAP_IN_THE_MIDDLE else last
    setting = "none is needed: what stands in front of the gap is used"
    with faults.row(f"a chunk does not come, {KINDS[place]}", under="a question", setting=setting) as row:
        call = bench.ask(bench.stored(in_memory=False))
        row.saw(f"an answer; {reused(call):,} of {call.prompt_tokens:,} tokens reused")
        assert reused(call) == gap * bench.stack.chunk_tokens > 0
        distance = abs(call.logprobs[0] - bench.cold.logprobs[0])
        assert distance <= TOLERANCE.get(bench.stack.config.dtype, COARSE_TOLERANCE)
        assert call.text == bench.cold.text
        row.answer = "right"
