"""Peers: the blocks they sit in, what follows from samples, and the page."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.machine.checks import Check
from lmcache_tutorial.peers import rounds as side_by_side
from lmcache_tutorial.peers import seats as peers_seats
from lmcache_tutorial.peers.catalogue import ALONE, COMES, NATIVE, PEERS, SETS, TUNED, blocks, settings_digest
from lmcache_tutorial.peers.findings import Sample, Samples, against_native
from lmcache_tutorial.peers.page import PeersError, PeersRecord, findings, overhead_row, render_peers
from lmcache_tutorial.peers.rounds import measure, save
from lmcache_tutorial.peers.seats import Seats, seat_config
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.stack import needs as doctor
from lmcache_tutorial.stack.kept_state import StackError

KV = 131_072
# [s] by start at 32,000 tokens; the load takes 0.1 s beyond the engine's own hit
TTFT = {"cold": 1.2, "engine": 0.06, "outside": 0.16}


def samples(*peers, block=0, scale=1.0, outside=32_000):
    starts = {p.name: ["cold", "engine"] if p is ALONE else ["cold", "engine", "outside"] for p in peers}
    found = []
    for peer, number in product(peers, range(5)):
        for start in starts[peer.name]:
            ttft_s = TTFT[start] * scale * (1 + number / 1000)
            tokens = (16, 32_000 if start == "engine" else 0, outside if start == "outside" else 0, 32_000)
            found.append(Sample(peer.name, block, 32_000, number, start, ttft_s, *tokens))
    return found


@given(st.integers(1, 6), st.sampled_from([SETS["peers"].peers, SETS["tuning"].peers, (ALONE, TUNED)]))
def test_every_peer_gets_one_seat_and_the_first_sits_in_every_block(seats, peers):
    found = blocks(peers, seats)
    if seats == 1:
        assert found == [[peer] for peer in peers]
        return
    assert [peer.name for block in found for peer in block[1:]] == [peer.name for peer in peers[1:]]
    assert all(block[0] is peers[0] and len(block) <= seats for block in found)


def test_a_tuning_step_is_compared_within_its_block_where_the_base_sat_there():
    base, step, other = SETS["tuning"].peers[:3]
    found = samples(base, step) + samples(base, block=1, scale=2) + samples(other, block=1, scale=2)
    changes = {row["peer"]: row for row in Samples(found, KV).outcomes(base.name)}
    assert changes[other.name]["same_block"]
    assert changes[other.name]["outside_s"] == pytest.approx(0)
    apart = Samples(samples(base) + samples(step, block=1, scale=2), KV)
    (change,) = apart.outcomes(base.name)
    assert not change["same_block"]
    assert change["outside_s"] == pytest.approx(0.16, rel=0.01)


def test_the_load_phase_is_what_a_hit_outside_takes_beyond_the_engines_own():
    rows = {row["peer"]: row for row in Samples(samples(ALONE, TUNED), KV, copy_bytes_s={0: 50e9}).rows()}
    row = rows[TUNED.name]
    assert row["load_s"] == pytest.approx(0.1, rel=0.01)
    assert row["load_bytes_s"] == pytest.approx(32_000 * KV / 0.1, rel=0.01)
    assert row["load_share"] == pytest.approx(row["load_bytes_s"] / 50e9)
    assert row["drop"].value == pytest.approx(1 - 0.16 / 1.2, rel=0.01)
    assert rows[ALONE.name]["outside"] is None


def test_what_storing_costs_is_told_by_vllm_alone_in_the_same_block():
    found = samples(ALONE, TUNED) + samples(ALONE, COMES, block=1, scale=1.1)
    rows = {row["peer"]: row for row in Samples(found, KV).rows()}
    assert rows[TUNED.name]["storing_s"] == pytest.approx(0)
    assert rows[COMES.name]["storing_s"] == pytest.approx(0)  # against block 1, not block 0
    assert rows[ALONE.name]["storing_s"] is None


def test_peers_of_different_blocks_are_not_compared():
    assert against_native(Samples(samples(TUNED) + samples(NATIVE, block=1), KV)) is None
    assert against_native(Samples(samples(TUNED), KV)) is None
    assert against_native(Samples(samples(TUNED, NATIVE), KV))[32_000].value == 1


@pytest.mark.parametrize(("added", "noise", "resolved"), [(0.001, 0.0001, True), (0.001, 0.1, False)])
def test_the_suites_overhead_is_judged_only_where_the_machine_is_quiet(added, noise, resolved):
    bare = [0.05 + noise * (number % 3) for number in range(21)]
    row = overhead_row(8_000, suite=[b + added for b in reversed(bare)], bare=bare, framework=[0.003] * 21)
    assert row["allowed_s"] == max(0.03 * sorted(bare)[10], 0.002)
    assert row["resolved"] is resolved


def record(cpu_run, name, found):
    peers = SETS[name].peers
    made = PeersRecord(
        name, {**ENVIRONMENT, "weights": "random"}, peers, ["a note"], KV, {"short": 900}, samples=found
    )
    made.copies = [{"block": 0, "host_to_device": 50e9, "device_to_host": 51e9}]
    return made


ENVIRONMENT = {
    "hardware": "x",
    "python": "3",
    "packages": {"vllm": "1"},
    "model": "shape:m",
    "profile": "gpu",
}


def test_the_page_shows_findings_and_says_that_weights_are_random(cpu_run):
    made = record(cpu_run, "peers", samples(ALONE, TUNED, NATIVE))
    document = json.loads(json.dumps(made.document(), allow_nan=False))
    assert [holds for _, holds, _ in findings(document)] == [True, True]
    page = render_peers(document)
    assert "random weights" in page
    assert "is at or below native offload at 32,000 tokens" in page
    assert "<script" not in page


def test_an_unfinished_run_goes_on_where_it_ended(cpu_run, tmp_path):
    path, peers = tmp_path / "tuning.json", SETS["tuning"].peers
    save(record(cpu_run, "tuning", samples(*peers[:3])).document(), path)
    later = record(cpu_run, "tuning", [])
    assert later.go_on_from(path)
    assert (later.next_block, len(later.samples)) == (1, 45)
    assert [p.name for p in blocks(peers, 3, later.measured)[0]] == [peers[n].name for n in (0, 3, 4)]
    notes = later.document()["notes"]
    assert notes[0] == "a note"
    assert "earlier run" in notes[1]
    assert later.document()["unmeasured"][peers[3].name] == "the run ended before"


@pytest.mark.parametrize("change", ["another machine", "other settings", "finished", "no file"])
def test_a_run_begins_anew_where_there_is_nothing_to_go_on_from(cpu_run, tmp_path, change):
    path = tmp_path / "peers.json"
    document = record(cpu_run, "peers", samples(*PEERS[: None if change == "finished" else 2])).document()
    document["environment"] |= {"hardware": "y"} if change == "another machine" else {}
    document["settings"] += "x" if change == "other settings" else ""
    if change != "no file":
        save(document, path)
    later = record(cpu_run, "peers", [])
    assert not later.go_on_from(path)
    assert later.samples == []


def no_json(document):
    return json.dumps(document)[:-9]


def a_list(document):
    return json.dumps([document])


def without(key):
    return lambda document: json.dumps({name: value for name, value in document.items() if name != key})


def of_a_sample(key):
    def damage(document):
        del document["samples"][0][key]
        return json.dumps(document)

    return damage


DAMAGES = {
    "no JSON": no_json,
    "a list": a_list,
    "no samples": without("samples"),
    "no settings": without("settings"),
    "no environment": without("environment"),
    "no copies": without("copies"),
    "a sample without its peer": of_a_sample("peer"),
    "a sample without its block": of_a_sample("block"),
    "bytes that are no text": lambda document: b"\xff\xfe",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_one_message_and_stays_as_it_is(cpu_run, tmp_path, damage):
    path = tmp_path / "peers.json"
    left = damage(record(cpu_run, "peers", samples(*PEERS[:2])).document())
    path.write_bytes(left if isinstance(left, bytes) else left.encode())
    before = path.read_bytes()
    later = record(cpu_run, "peers", [])
    with pytest.raises(PeersError, match=r"(?s)peers\.json is damaged.*seen.*To fix: move"):
        later.go_on_from(path)
    assert later.samples == []
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_not_gone_on_with(cpu_run, tmp_path):
    path = tmp_path / "peers.json"
    path.write_text('{"schema": 1}')
    assert not record(cpu_run, "peers", []).go_on_from(path)


def test_a_peer_that_fails_is_given_up_and_the_others_go_on(cpu_run, monkeypatch):
    base, bad = SETS["tuning"].peers[:2]
    good = SETS["tuning"].peers[2]
    made = record(cpu_run, "tuning", [])

    def turn(seat, text, tokens, block, number):
        if seat[0] is bad and number == 1:
            raise ServerError("it died")
        starts = TTFT if number >= 0 else ()
        return [Sample(seat[0].name, block, tokens, number, s, 1.0, 8, 0, 0, 0) for s in starts]

    monkeypatch.setattr(side_by_side, "_round", turn)
    closed = []
    seats = [
        (peer, SimpleNamespace(close=lambda name=peer.name: closed.append(name)))
        for peer in (base, bad, good)
    ]
    for sample in measure(
        0, seats, SETS["tuning"], PROFILES["cpu"].classes[0].sizes, lambda peer, e: made.give_up(peer, f"{e}")
    ):
        made.samples.append(sample)
    sizes, rounds = len(SETS["tuning"].sizes), SETS["tuning"].rounds
    assert [s.peer for s in made.samples].count(good.name) == 3 * sizes * rounds
    assert made.measured == {base.name, good.name}
    assert closed == [bad.name]
    assert made.document()["unmeasured"][bad.name] == "it died"
    assert f"{bad.name} was not measured: it died." in render_peers(made.document())


def test_a_peer_that_does_not_start_has_no_seat_and_every_server_is_closed(cpu_run, monkeypatch):
    class Launched:
        closed = 0

        def close(self):
            Launched.closed += 1

    base, bad, good = SETS["tuning"].peers[:3]
    stacks = {peer.name: Launched() for peer in (base, bad, good)}
    launched = iter(stacks.values())

    def wait(stack, since):
        if stack is stacks[bad.name]:
            raise ServerError("it did not start")

    monkeypatch.setattr(peers_seats, "launch", lambda *_: next(launched))
    monkeypatch.setattr(peers_seats, "wait_ready", wait)
    model, gone = SimpleNamespace(kv_bytes_per_token=lambda dtype: KV), []
    sizes = cpu_run.classes[0].sizes
    places = Seats(cpu_run, sizes, model, print, lambda peer, _: gone.append(peer))
    with places.taken((base, bad, good)) as seats:
        assert [peer for peer, _ in seats] == [base, good]
        assert gone == [bad]
    assert Launched.closed == 3
    assert list(measure(0, [], SETS["tuning"], sizes, gone.append)) == []


def test_what_a_cache_left_to_compute_is_told(cpu_run):
    document = record(cpu_run, "peers", samples(ALONE, TUNED, NATIVE)).document()
    rows = {row["peer"]: row for row in document["rows"]}
    assert (rows[ALONE.name]["engine_computed"], rows[ALONE.name]["outside_computed"]) == (16, None)
    assert "16 tokens left to compute beside 16" in next(findings(document))[2]


def test_a_load_that_is_too_slow_is_a_finding_that_does_not_hold(cpu_run):
    document = record(cpu_run, "peers", samples(ALONE, TUNED, outside=16_000)).document()
    assert [(holds, "42%" in seen) for _, holds, seen in findings(document)] == [(False, True)]


def test_the_tuning_page_has_each_prediction_beside_its_outcome(cpu_run):
    page = render_peers(record(cpu_run, "tuning", samples(*SETS["tuning"].peers)).document())
    assert all(peer.prediction in page.replace("&#39;", "'") for peer in SETS["tuning"].peers[1:])


def test_the_digest_follows_every_setting_of_a_peer():
    plain = PROFILES["gpu"].stack
    slow, fast = (PROFILES["cpu"].classes[place].sizes for place in (0, -1))
    digests = {settings_digest(PEERS, p, slow) for p in (plain, plain.with_caches(chunk_tokens=512))}
    others = {settings_digest(PEERS[:2], plain, slow), settings_digest(PEERS, plain, fast)}
    assert len(digests | others) == 4


@pytest.mark.parametrize(("peer", "before"), [(TUNED, " warm"), (TUNED, " of LMCache"), (NATIVE, " against")])
def test_what_the_readme_says_of_the_peers_stands_in_the_reference(peer, before):
    root = Path(__file__).parents[2]
    rows = json.loads((root / "reports/reference/h100-llama-3.1-8b-shape/peers.json").read_text())["rows"]
    short, medium, long = (f"{1000 * r['outside']['value']:.0f}" for r in rows if r["peer"] == peer.name)
    readme = " ".join((root / "README.md").read_text().split())
    assert f"{short}, {medium} and {long} ms{before}" in readme


def test_the_whole_lengths_are_whole_chunks_and_fit_a_seat():
    profile, model = PROFILES["gpu"], SimpleNamespace(kv_bytes_per_token=lambda dtype: KV)
    chunk, block = profile.stack.cache.chunk_tokens, profile.stack.engine.block_tokens

    def context(sizes):
        return seat_config(profile.stack, TUNED, model, sizes, 0).engine.context_tokens

    for sizes in (one.sizes for one in profile.classes):
        assert sizes.whole
        assert all(tokens % chunk == tokens % block == 0 for tokens in sizes.whole)
        assert context(sizes) > sizes.longest >= sizes.long
        assert context(replace(sizes, whole=(8_192, 32_768, 120_064))) > 120_064


@pytest.mark.parametrize("profile", PROFILES)
def test_every_peer_is_a_change_of_the_profiles_stack(profile):
    plain = PROFILES[profile].stack
    assert TUNED.config(plain) == plain
    made = [peer.config(plain) for peer in PEERS]
    kept = {(len(one.caches), one.engine.offload_gib is not None) for one in made}
    assert kept == {(0, False), (0, True), (1, False)}  # nothing, vLLM by itself, LMCache


def test_peers_that_do_not_fit_side_by_side_are_refused_before_one_starts(cpu_run, monkeypatch):
    needs = []

    def checks(**wanted):
        needs.append(wanted)
        return [Check("memory", "1 GiB available, 9 needed", "close other programs")]

    monkeypatch.setattr(doctor, "resource_checks", checks)
    monkeypatch.setattr(peers_seats, "launch", lambda *_: pytest.fail("it was started"))
    model = SimpleNamespace(kv_bytes_per_token=lambda dtype: KV)
    sizes, gone = cpu_run.classes[0].sizes, []
    with (
        pytest.raises(StackError, match="memory is too small for vLLM alone beside LMCache, tuned: 1 GiB"),
        Seats(cpu_run, sizes, model, print, gone.append).taken((ALONE, TUNED)),
    ):
        pass
    assert needs[0]["shm_gib"] > 0
