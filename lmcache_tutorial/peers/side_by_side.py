"""One set of peers, measured block by block, and what the suite itself costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..asking.ask import Asker
from ..asking.bare_client import first_token_s
from ..graphs.reader import Reader, build_reader
from ..models.model import Model
from ..models.prepare import prepare
from ..prompts.documents import Document, cut, fresh
from ..report.environment import environment
from ..settings.profiles import PROFILES, LessonSizes
from ..settings.run import RunConfig
from ..settings.workload import expected
from ..stack.keep import class_memory
from ..stack.stack import Stack
from ..traces.record import Traces
from .catalogue import SETS, TUNED, Peer, blocks, settings_digest
from .copy_rate import copy_rates
from .page import PeersRecord, overhead_row, write_page
from .rounds import measure, save
from .seats import Seats

OVERHEAD_ROUNDS = 61
QUESTION = "Which class stores a chunk?"


class SideBySide:
    """Runs the blocks of one set of peers, and writes what was found so far after each of them."""

    def __init__(self, run: RunConfig, progress: Callable[[str], None]) -> None:
        self.run, self.progress = run, progress
        name = run.peers or "peers"
        self.wanted, self.path = SETS[name], run.report_dir / f"{name}.json"
        self.model: Model = prepare(run.stack.model, progress)
        on_gpu = run.stack.profile == "gpu"
        self.peers = [peer for peer in self.wanted.peers if on_gpu or not peer.gpu_only]
        missing = [peer for peer in self.wanted.peers if peer not in self.peers]
        notes = [f"{peer.name} was left out: it runs on a GPU only." for peer in missing]
        kv_bytes = self.model.kv_bytes_per_token(run.stack.dtype)
        last = class_memory(run.stack, self.model).last()
        self.sizes = expected(run.classes, last, run.stack.dtype)
        lengths = self.wanted.lengths(self.sizes)
        settings = settings_digest(self.peers, run.stack, self.sizes)
        self.record = PeersRecord(name, environment(run), self.peers, notes, kv_bytes, lengths, settings)

    def measure(self) -> dict[str, Any]:
        """Run every block; return the document."""
        if self.record.go_on_from(self.path):
            self.progress(f"peers: {self.path.name} is unfinished: what it holds is not measured again")
        places = Seats(self.run, self.sizes, self.model, self.progress, self.give_up)
        fit = PROFILES[self.run.stack.profile].side_by_side
        for block in blocks(self.peers, fit, self.record.measured):
            number = self.record.next_block
            with places.taken(block) as seats:
                self.record.commands |= {peer.name: stack.describe() for peer, stack in seats}
                for sample in measure(number, seats, self.wanted, self.sizes, self.give_up):
                    self.record.samples.append(sample)
                self.write()  # before anything else can fail
                if self.run.stack.profile == "gpu":
                    self.record.copies.append({"block": number, **copy_rates()})
                for peer, stack in seats:
                    if peer is TUNED and peer.name in self.record.measured:
                        self.record.overhead = list(overhead(stack, self.sizes, self.run.report_dir))
            self.write()
            done = ", ".join(peer.name for peer in block if peer.name in self.record.measured)
            self.progress(f"peers: {done or 'nothing'} measured; {self.path} is written")
        return self.record.document()

    def give_up(self, peer: Peer, error: Exception) -> None:
        """Go on without a peer that failed; not without the first, for the others are compared with it."""
        if peer is self.peers[0]:
            raise error
        why = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        self.record.give_up(peer, why.replace(f"{self.run.report_dir}/", ""))
        self.progress(f"peers: {peer.name} failed and is left out: {error}")

    def write(self) -> None:
        """Write the document and its page."""
        document = self.record.document()
        save(document, self.path)
        write_page(document, self.path.with_suffix(".html"))


def overhead(stack: Stack, sizes: LessonSizes, report_dir: Path) -> Iterator[dict[str, Any]]:
    """Ask one warm request through the suite and by a bare client, in turns; compare their TTFT."""
    with closing(Traces(report_dir / "traces", "overhead")) as traces, closing(Asker(stack, traces)) as asker:
        yield from _overhead(asker, traces, sizes)


def _overhead(asker: Asker, traces: Traces, sizes: LessonSizes) -> Iterator[dict[str, Any]]:
    stack = asker.stack
    reader = build_reader(asker, sizes.answer_tokens)
    for size in ("short", "long"):
        manual = fresh(cut(Document("overhead", size, seed=11), sizes.tokens(size), stack.count_tokens))
        state = {"manual": manual, "question": QUESTION}
        tokens = len(stack.tokenize(Reader.messages(manual, QUESTION)))
        turns, bare = [asker(reader.graph, state, start="cold")], []
        for number in range(OVERHEAD_ROUNDS):
            if number % 2:
                turns.append(asker(reader.graph, state, start="engine"))
            before = stack.snapshot()
            bare.append(first_token_s(stack, "/v1/chat/completions", turns[0].call.request))
            stack.settle(before, [tokens])
            if not number % 2:
                turns.append(asker(reader.graph, state, start="engine"))
        framework = []
        for turn in turns[1:]:
            (span,) = [span for span in traces.of(turn) if span.kind == "generation"]
            framework.append(span.start_s + (span.ttft_s or 0) - turn.call.ttft_s)
        suite = [turn.call.ttft_s for turn in turns[1:]]
        yield overhead_row(tokens, suite=suite, bare=bare, framework=framework)
