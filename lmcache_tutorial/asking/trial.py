"""A fault under load: what clients saw while a program was gone, and when everything was as before."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from ..servers.process import ServerError
from ..servers.program import Program
from ..stack.faults import Fault
from ..stack.restart import wait_connected
from .known import KnownAnswers
from .replies import InFlight, Question, Reply

RECOVERY_LIMIT_S = 15.0  # what users may be asked to bear
BACK_LIMIT_S = 60.0
REACH_S = 0.3  # until requests that were sent have reached the engine


@dataclass(frozen=True)
class Trial:
    """What clients saw of one fault.

    Attributes:
        in_flight: the replies to requests that were sent before the program failed.
        under_way: how many of those had no answer when it failed.
        meanwhile: the replies to requests that were sent, one after the other, while it was gone.
        after: the replies to requests that were sent when it was back.
        recovered_s: from its return, and the last answer that was in flight, until prompts were stored and
            looked up as before [s].
        wrong: the answers that were not the right ones.
    """

    in_flight: tuple[Reply, ...]
    meanwhile: tuple[Reply, ...]
    after: tuple[Reply, ...]
    recovered_s: float
    wrong: int
    under_way: int = 0

    @property
    def replies(self) -> tuple[Reply, ...]:
        """All replies, in order."""
        return (*self.in_flight, *self.meanwhile, *self.after)

    @property
    def took_s(self) -> dict[str, list[float]]:
        """How long each request took, by when it was sent, and how long it took to recover [s]."""
        groups = {"in flight": self.in_flight, "meanwhile": self.meanwhile, "afterwards": self.after}
        took = {name: [reply.took_s for reply in replies] for name, replies in groups.items() if replies}
        return took | {"to recover": [self.recovered_s]}

    @property
    def right(self) -> int:
        """How many answers came, and were the right ones."""
        return len(self.replies) - len(self.errors) - self.wrong

    @property
    def errors(self) -> list[str]:
        """What came instead of an answer."""
        return [reply.error for reply in self.replies if reply.error]


def undergo(
    known: KnownAnswers, fault: Fault, program: Program, *, requests: int = 4, hold_s: float | None = None
) -> Trial:
    """Let a program of a stack fail while requests are under way, and see what becomes of them.

    Args:
        known: the questions that are asked, and the stack.
        fault: what happens to the program.
        program: one of the stack's.
        requests: how many are in flight, half of them with prompts that LMCache holds; 0 is an idle stack.
        hold_s: end the fault after so many seconds; ``None``: when all that was in flight has ended, and two
            more questions were asked.

    Raises:
        ServerError: the program did not come back, or requests had no answer, or prompts were not stored.
    """
    stack = known.stack
    asked = _long(known, requests) if requests else []
    flight = InFlight(stack, asked) if asked else None
    time.sleep(REACH_S if flight else 0)
    further = known.questions(2 if hold_s is None else 0)
    under_way = flight.under_way if flight else 0
    with fault(stack, program):
        if hold_s is None and flight:
            flight.wait()
        time.sleep(hold_s or 0)
        meanwhile = tuple(known.ask(question) for question in further)
    flown = flight.replies() if flight else ()
    back = time.monotonic()
    wait_back(known)
    recovered_s = time.monotonic() - back
    last = known.questions(2)
    after = tuple(known.ask(question) for question in last)
    pairs = zip([*asked, *further, *last], [*flown, *meanwhile, *after], strict=True)
    wrong = sum(known.is_wrong(*pair) for pair in pairs)
    return Trial(flown, meanwhile, after, recovered_s, wrong, under_way)


def _long(known: KnownAnswers, requests: int) -> list[Question]:
    """Make questions with answers of which only the beginning is judged: all are under way for a while.

    Of half of the prompts LMCache holds the KV, which is loaded soon.
    """
    tokens = known.flight_tokens  # asked first: what is kept next is kept until the fault
    asked = [*known.keep(requests // 2), *known.questions(requests - requests // 2)]
    return [replace(question, answer_tokens=tokens) for question in asked]


def wait_back(known: KnownAnswers) -> None:
    """Wait until a new question has an answer, and what is asked is looked up and stored.

    Raises:
        ServerError: that was not so after a minute, or an engine has ended.
    """
    deadline = time.monotonic() + BACK_LIMIT_S
    while (reply := known.ask(known.questions(1)[0])).call is None:
        for engine in known.stack.engines:
            if not engine.process.alive():
                raise ServerError(f"{engine.name} has ended; its log is {engine.process.record.log}")
        if time.monotonic() > deadline:
            raise ServerError(f"no question had an answer for {BACK_LIMIT_S:g} s; last: {reply.error}")
        time.sleep(0.25)
    for engine in known.stack.engines:
        if engine.cache:
            wait_connected(known.stack, engine, engine.cache)
