"""The table of faults: how a row's outcome follows from its test, what is written, and the page."""

import json
import re

import pytest

from lmcache_tutorial.report.faults import FaultRow, FaultsRecord, render_faults
from lmcache_tutorial.tests.conftest import HOSTILE

ENVIRONMENT = {
    "hardware": "a machine, 2 cores, 8 GiB",
    "python": "3",
    "packages": {"vllm": "1", "lmcache": "2"},
    "model": "small",
    "weights": "random",
    "profile": "cpu",
}
SETTING = "`lmcache.mp.mq_timeout` 5 s"


@pytest.fixture
def record():
    return FaultsRecord(ENVIRONMENT, pytest.skip, pytest.skip.Exception)


def add(record, fault="LMCache killed", under="idle", **fields):
    values = {"seen": "", "answer": "right", "recovered_s": None, "setting": SETTING, "outcome": "held"}
    record.add(FaultRow(fault, under, **{**values, **fields}))


def ended(record, act, under="idle"):
    """Open a row whose block ends as an act does, and return it."""
    with record.row("LMCache killed", under=under, setting=SETTING) as row:
        row.saw("7 answers, the slowest after 5.3 s")
        row.answer, row.recovered_s = "right", 2.5
        act()
    return record.rows[-1]


def test_a_clean_end_is_held_and_keeps_what_the_test_filled_in(record):
    seen = "7 answers, the slowest after 5.3 s"
    assert ended(record, lambda: None) == FaultRow(
        "LMCache killed", "idle", seen, "right", 2.5, SETTING, "held"
    )


def fail():
    pytest.fail("it took 9 s\nof 5 s")


def assert_it():
    errors = ["an error"]
    assert errors == [], "one request was lost"


def raise_it():
    raise OSError("no route")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (assert_it, "one request was lost"),
        (fail, "it took 9 s"),
        (raise_it, "OSError: no route"),
        (lambda: (_ for _ in ()).throw(AssertionError), "AssertionError"),
    ],
    ids=["assert", "fail", "error", "no message"],
)
def test_what_fails_inside_is_not_held_and_goes_on(record, act, reason):
    with pytest.raises((AssertionError, OSError, pytest.fail.Exception)):
        ended(record, act)
    (row,) = record.rows
    assert (row.outcome, row.reason, row.recovered_s) == ("not held", reason, 2.5)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("act", "kind", "reason"),
    [
        (lambda: pytest.skip("no small disk here"), pytest.skip.Exception, "no small disk here"),
        (interrupt, KeyboardInterrupt, "the run was interrupted"),
    ],
    ids=["skip", "interrupt"],
)
def test_a_skip_and_an_interrupt_are_not_run(record, act, kind, reason):
    with pytest.raises(kind):
        ended(record, act)
    assert [(row.outcome, row.reason) for row in record.rows] == [("not run", reason)]


@pytest.mark.parametrize("end", [pytest.skip, pytest.fail])
def test_a_fault_that_cannot_be_made_is_not_run_also_where_that_is_a_failure(end):
    record = FaultsRecord(ENVIRONMENT, end, pytest.skip.Exception)
    with pytest.raises(end.Exception, match="no small disk"):
        ended(record, lambda: record.not_run("no small disk"))
    with pytest.raises(pytest.fail.Exception):
        ended(record, fail, under="another load")
    assert [(row.outcome, row.reason) for row in record.rows] == [
        ("not run", "no small disk"),
        ("not held", "it took 9 s"),
    ]


def test_a_later_row_of_the_same_fault_and_load_replaces_the_earlier_one_in_its_place(record):
    add(record, seen="first")
    add(record, under="4 requests in flight")
    add(record, seen="second")
    assert [(row.under, row.seen) for row in record.rows] == [
        ("idle", "second"),
        ("4 requests in flight", ""),
    ]


def test_both_files_are_written_and_nothing_half_written_is_left(record, tmp_path):
    add(record, recovered_s=1.25)
    folder = tmp_path / "reports"
    assert record.write(folder) == folder / "faults.html"
    assert {path.name for path in folder.iterdir()} == {"faults.html", "faults.json"}
    document = json.loads((folder / "faults.json").read_text())
    assert (document["schema"], document["environment"]) == (1, ENVIRONMENT)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document["started"])
    (row,) = document["rows"]
    assert list(row) == [
        "fault",
        "under",
        "seen",
        "answer",
        "recovered_s",
        "setting",
        "outcome",
        "reason",
    ]
    assert row["recovered_s"] == 1.25
    assert render_faults(document) == (folder / "faults.html").read_text()


def test_secrets_are_taken_out_of_both_files(record, tmp_path, monkeypatch):
    # Long and with a character that JSON and HTML write differently; the cut falls into it.
    secret = 'hunter<&"é' * 90
    monkeypatch.setenv("SOME_API_KEY", secret)
    add(record, seen=f"saw {secret}")

    def leak():
        raise OSError(f"told {secret}")

    with pytest.raises(OSError, match="told"):
        ended(record, leak, under="a question after it")
    record.write(tmp_path)
    for name in ("faults.json", "faults.html"):
        text = (tmp_path / name).read_text()
        assert "hunter" not in text
        assert "saw [SOME_API_KEY]" in text
        assert "told [SOME_API_KEY]" in text


def test_the_page_shows_a_table_without_reasons_where_all_was_held(record):
    add(record, seen="7 answers", recovered_s=2.5)
    page = render_faults(record.document())
    for cell in ("LMCache killed", "idle", "7 answers", "right", "<code>lmcache.mp.mq_timeout</code> 5 s"):
        assert cell in page
    assert '<td class="num">2.50 s</td>' in page
    assert '<span class="badge passed">held</span>' in page
    assert "not run" not in page.lower().partition("</style>")[2]
    assert page.count("<table") == 1
    assert "<script" not in page
    assert "http" not in page.partition("</head>")[2]
    assert "random weights" in page


def test_the_page_gives_reasons_and_marks_a_wrong_answer_in_words(record):
    add(record, answer="wrong", outcome="not held", reason="2 answers were wrong")
    add(record, fault="disk full", answer="–", outcome="not run", reason=HOSTILE)
    page = render_faults(record.document())
    assert "✗ wrong" in page
    assert '<span class="badge failed">not held</span>' in page
    assert "Not held: 2 answers were wrong" in page
    assert '<span class="badge not_run">not run</span>' in page
    assert "Not run: &lt;script&gt;" in page
    assert HOSTILE not in page
