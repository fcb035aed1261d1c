"""Cold prompts that are stored and not: rounds until a sequential test can answer (`graphs/lengths.py`)."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest

from lmcache_tutorial.graphs.lengths import ask_storing
from lmcache_tutorial.quantities.statistics import LOOKS, stays_above

WISH = {"kv_transfer_params": {"lmcache.max_offload_tokens": 0}}
MOST = 1.17  # how many times as long a stored prompt may take


class Lab:
    """Answers each request in a time that is drawn; a stored one takes ``ratio`` times as long."""

    def __init__(self, ratio, scatter, seed=0, speeds=(1.0,)):
        self.ratio, self.scatter, self.random, self.asked = ratio, scatter, Random(seed), []
        self.speeds, self.emptied = speeds, 0
        self.stack = SimpleNamespace(empty_lmcache=self.empty, empty_engine_cache=lambda: None)

    def empty(self):
        self.emptied += 1

    def __call__(self, text, question, **options):
        stored = not options
        self.asked.append(stored)
        speed = self.speeds[self.emptied % len(self.speeds)]
        time_s = speed * self.random.gauss(1, self.scatter) * (self.ratio if stored else 1)
        return SimpleNamespace(call=SimpleNamespace(ttft_s=time_s), tokens=SimpleNamespace(lmcache=0))


def asked(lab):
    return ask_storing(lab, ("a text", "a question?"), WISH, range(LOOKS[-1]), MOST)


def test_on_a_quiet_machine_the_first_look_answers_and_the_order_alternates():
    lab = Lab(ratio=1.03, scatter=0.01)
    found = asked(lab)
    assert len(found.ratios) == LOOKS[0]
    assert stays_above(found.ratios, MOST) is False
    assert lab.asked[:4] == [True, False, False, True]
    assert lab.emptied == LOOKS[0]
    assert set(found.again) == {"stored", "not stored"}


def test_a_machine_that_changes_its_speed_takes_no_more_rounds():
    assert len(asked(Lab(ratio=1.03, scatter=0.01, speeds=(1.0, 1.0, 1.9))).ratios) == LOOKS[0]


@pytest.mark.parametrize(("ratio", "answer"), [(1.036, False), (1.36, True)])
def test_a_noisy_machine_takes_more_rounds_and_gets_the_same_answer(ratio, answer):
    # A scatter of a tenth: half of the rounds lie 13 % apart, as where ten rounds once decided nothing.
    runs = [asked(Lab(ratio, scatter=0.1, seed=seed)).ratios for seed in range(100)]
    answers = [stays_above(ratios, MOST) for ratios in runs]
    assert answers.count(answer) >= 95
    assert (not answer) not in answers
    assert max(map(len, runs)) > LOOKS[1]
