"""An engine that is spread over several GPUs: what it reuses, and who may have the KV of whom.

With *tensor parallelism* each GPU computes, keeps and loads a part of every token's KV. Needs two GPUs of
one host, and is skipped elsewhere. Engines on GPUs of their own are lesson 7's, where there are enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from lmcache_tutorial.asking.direct import ask_engine
from lmcache_tutorial.asking.replies import Question
from lmcache_tutorial.graphs.beside import OpenBeside
from lmcache_tutorial.graphs.cutting import cut_to_chunks
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities import predict
from lmcache_tutorial.quantities.records import Call, TokenSources
from lmcache_tutorial.settings.run import RunConfig
from lmcache_tutorial.stack.restart import spread
from lmcache_tutorial.stack.stack import Stack

GPUS = 2
DOCUMENT = Document("lmcache-source", size="medium", seed=12)
QUESTION = "Which class stores a chunk?"


@dataclass(frozen=True)
class Lab:
    """An engine and an LMCache, and a prompt that is new to both under each new salt.

    It is so long that the engine's own cache and LMCache reuse the same tokens of it.
    """

    stack: Stack
    messages: Sequence[dict[str, str]]

    def new(self) -> Question:
        return Question(self.messages, answer_tokens=4)

    def ask(self, question: Question) -> Call:
        return ask_engine(self.stack, self.stack.engine, question)

    def tokens(self, question: Question) -> TokenSources:
        """Who served a question."""
        tokens = self.ask(question).tokens
        assert tokens
        return tokens


@pytest.fixture(scope="session")
def several(run: RunConfig) -> int:
    """How many GPUs an engine is spread over here."""
    if run.stack.gpus < GPUS:
        pytest.skip(f"needs {GPUS} GPUs of one host, and this run may use {run.stack.gpus}")
    return GPUS


@pytest.fixture(scope="module")
def lab(several: int, stack: Stack, open_beside: OpenBeside, read: Read) -> Lab:
    """An engine over two GPUs, beside the session's stack."""
    opened = open_beside(stack.config.with_engines(tensor_parallel=several)).stack
    manual = read(DOCUMENT)
    chunks = opened.count_tokens(manual) // opened.chunk_tokens - 1
    return Lab(opened, Reader.messages(fresh(cut_to_chunks(opened, manual, QUESTION, chunks)), QUESTION))


def reusable(lab: Lab, prompt: int) -> int:
    """What LMCache serves of a prompt that was asked before [tokens]."""
    return predict.lmcache_reusable_tokens(prompt, prompt, lab.stack.chunk_tokens)


def test_an_engine_over_several_gpus_reuses_what_was_predicted_with_the_same_answer(lab: Lab) -> None:
    question = lab.new()
    assert lab.tokens(question).reused == 0
    own = lab.ask(question)
    lab.stack.empty_engine_cache()
    other = lab.ask(question)
    assert own.tokens
    assert other.tokens
    assert own.tokens.engine == other.tokens.lmcache_l1 == reusable(lab, own.tokens.prompt) > 0
    assert other.same_answer(own)


def test_after_a_restart_it_is_given_what_it_had_stored(lab: Lab) -> None:
    question = lab.new()
    lab.ask(question)
    spread(lab.stack, GPUS)
    found = lab.tokens(question)
    assert found.lmcache_l1 == found.reused == reusable(lab, found.prompt)


@pytest.mark.parametrize("gpus", [1, GPUS])
def test_the_kv_of_one_form_is_not_given_to_the_other(lab: Lab, gpus: int) -> None:
    """From two GPUs to one, and back: LMCache's keys say over how many GPUs a chunk is spread."""
    question = lab.new()
    assert lab.tokens(question).reused == 0
    spread(lab.stack, gpus)
    assert lab.tokens(question).reused == 0
    lab.stack.empty_engine_cache()
    again = lab.tokens(question)
    assert again.lmcache_l1 == reusable(lab, again.prompt)
