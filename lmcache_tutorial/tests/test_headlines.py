"""Headlines come from files, and the README's are those of the reference runs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.report.headlines import HeadlinesError, headlines, into

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- headlines -->", "<!-- /headlines -->"


def test_the_readme_shows_what_the_reference_files_say():
    readme = ROOT / "README.md"
    files = sorted((ROOT / "reports" / "reference").glob("*/results.json"))
    assert len(files) >= 2
    shown = readme.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == headlines(files, readme), "run: lmcache-tutorial headlines … --into README.md"


def test_headlines_are_put_between_the_markers(tmp_path, document):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(document))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    text = headlines([tmp_path / "run" / "results.json"], readme)
    into(readme, text)
    assert readme.read_text() == f"before\n{BEGIN}\n\n{text}\n\n{END}\nafter\n"
    assert "(run/index.html)" in text
    assert (
        "| 97.0 % | engine's own cache 62 %, LMCache memory 38 % | 90.0 % | 85.0 % to 95.0 % | 0 ms |" in text
    )


def test_a_file_that_is_no_run_or_a_readme_without_markers_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(HeadlinesError, match=r"is no results\.json"):
        headlines([tmp_path / "results.json"], tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"{END} {BEGIN}")
    with pytest.raises(HeadlinesError, match="no place for headlines"):
        into(tmp_path / "README.md", "x")


@pytest.mark.parametrize(
    "place", ["missing/README.md", "folder", "picture.png", "~nobody-of-that-name/README.md"]
)
def test_a_bad_place_for_headlines_is_one_message(tmp_path, document, place):
    (tmp_path / "results.json").write_text(json.dumps(document))
    (tmp_path / "folder").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe\x80")
    path = place if place.startswith("~") else str(tmp_path / place)
    done = CliRunner().invoke(app, ["headlines", str(tmp_path / "results.json"), f"--into={path}"])
    assert done.exit_code == 2, done.exception
    assert done.stderr.startswith("error: ")
    assert path in done.stderr
    assert "To fix" in done.stderr
    assert done.stdout == ""


BROKEN = [
    "",
    "[]",
    "{}",
    '{"environment": {}, "lessons": [], "verdict": "passed"}',
    '{"environment": [], "lessons": {}}',
    '{"environment": {"weights": "real", "packages": {}, "hardware": "x", "model": "y"}, "lessons": [], '
    '"verdict": "passed"}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_no_run_is_one_message(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    for file in (path, tmp_path / "missing.json"):
        done = CliRunner().invoke(app, ["headlines", str(file)])
        assert done.exit_code == 2, done.exception
        assert f"error: {file} is no results.json" in done.stderr


def test_peers_of_another_machine_or_pair_say_of_which(tmp_path):
    folder = ROOT / "reports" / "reference" / "h100-llama-3.1-8b-shape"
    peers, run = (json.loads((folder / f"{name}.json").read_text()) for name in ("peers", "results"))
    (tmp_path / "results.json").write_text(json.dumps(run))

    def told(hardware: str, lmcache: str) -> str:
        packages = {**run["environment"]["packages"], "lmcache": lmcache}
        environment = {**peers["environment"], "hardware": hardware, "packages": packages}
        (tmp_path / "peers.json").write_text(json.dumps({**peers, "environment": environment}))
        text = headlines([tmp_path / "results.json"], tmp_path / "README.md")
        return text.partition("(prompts of token ids)")[2].splitlines()[0]

    machine, lmcache = run["environment"]["hardware"], run["environment"]["packages"]["lmcache"]
    assert told(machine, lmcache) == ":"
    vllm = run["environment"]["packages"]["vllm"]
    assert told("another", lmcache) == f"; measured on another, with vllm {vllm}, lmcache {lmcache}:"
    assert told(machine, "0.5.99") == f"; measured on {machine}, with vllm {vllm}, lmcache 0.5.99:"


def test_peers_that_are_not_ours_are_one_message(tmp_path, document):
    (tmp_path / "results.json").write_text(json.dumps(document))
    (tmp_path / "peers.json").write_text('{"rows": 3}')
    with pytest.raises(HeadlinesError, match=r"peers\.json beside it none of ours"):
        headlines([tmp_path / "results.json"], tmp_path / "README.md")
