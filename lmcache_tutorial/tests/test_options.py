"""One table: pytest's options, the ini file's, the command's and README's are made from it."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.settings.bars import percent
from lmcache_tutorial.settings.command_options import (
    BaselineOptions,
    DiagnoseOptions,
    HeadlinesOptions,
    NotebookOptions,
    PromptsOptions,
    ReportOptions,
    StatusOptions,
    TracesOptions,
    UpOptions,
    WatchOptions,
)
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.options import RUN_OPTIONS, RunOptions, table
from lmcache_tutorial.settings.readme_table import options_table
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.spelling import PYTEST, Spelling

ROOT = Path(__file__).parents[2]
ROOMS = [
    init.parent for init in (ROOT / "lmcache_tutorial").glob("*/__init__.py") if init.parent.name != "tests"
]
UP_ALONE = table(UpOptions)[len(RUN_OPTIONS) :]
ROWS = (
    *RUN_OPTIONS,
    *UP_ALONE,
    *table(DiagnoseOptions),
    *table(HeadlinesOptions),
    *table(StatusOptions),
    *table(BaselineOptions),
    *table(PromptsOptions),
    *table(TracesOptions),
    *table(WatchOptions),
    *table(ReportOptions),
    *table(NotebookOptions),
)
ONLY_PYTESTS = "keep-stack|peers|allow-slow-lmcache|report-dir|min-ttft-drop"
BOTH = "stack|model|dtype|chunk-tokens|engine-memory-gib|lmcache-memory-gib|gpu-memory-share|min-hit-rate"


def test_a_row_takes_its_name_type_and_default_from_its_field():
    rows = {row.name: row for row in RUN_OPTIONS}
    assert (rows["chunk_tokens"].kind, rows["chunk_tokens"].default) == (int, None)
    assert (rows["report_dir"].kind, rows["report_dir"].default) == (Path, Path("reports"))
    assert (rows["min_hit_rate"].kind, rows["min_hit_rate"].default_words) == (float, "90")
    assert (rows["keep"].kind, rows["keep"].value_words) == (bool, "")
    assert rows["peers"].value_words == "tuning"


def test_pytest_and_its_ini_file_have_every_option_of_the_table(pytestconfig):
    for row in RUN_OPTIONS:
        pytestconfig.getoption(PYTEST(row.name))  # an option that it does not know is an error
        if row.ini:
            pytestconfig.getini(f"kv_{row.name}")
        else:
            with pytest.raises(ValueError, match="unknown configuration value"):
                pytestconfig.getini(f"kv_{row.name}")


def test_each_command_has_the_options_that_the_table_gives_it():
    commands = dict(typer.main.get_command(app).commands)
    for group in ("prompts", "traces"):  # commands of commands
        commands |= commands.pop(group).commands
    for name, command in commands.items():
        options = {
            option
            for parameter in command.params
            if parameter.param_type_name == "option"
            for option in parameter.opts
        }
        expected = {f"--{row.name.replace('_', '-')}" for row in ROWS if name in row.commands}
        assert options - {"--help"} == expected, name
    assert {command for row in ROWS for command in row.commands} <= set(commands)


def test_the_readme_shows_the_table():
    shown = (ROOT / "README.md").read_text().partition("<!-- options -->")[2]
    shown = shown.partition("<!-- /options -->")[0].strip()
    assert shown == options_table(), "run: python .ci/readme_tables.py"


def test_no_old_spelling_is_left():
    """Whoever copies a command from a page or from a message gets one that works."""
    old = re.compile(rf"--(?:{ONLY_PYTESTS})\b|pytest[^\n`]* --(?:{BOTH})\b")
    folders = (ROOT, ROOT / ".ci", ROOT / "fixtures", ROOT / "tutorial_tests", *ROOMS)
    files = [path for folder in folders for path in folder.glob("*") if path.is_file()]
    assert len(files) > 100
    found = [
        f"{path}: {line}"
        for path in files
        if path.suffix in (".py", ".md", ".jinja", "") and path.name != "CHANGELOG.md"  # it tells the rename
        for line in path.read_text().splitlines()
        if old.search(line)
    ]
    assert found == []


def test_a_check_names_only_options_that_are_in_the_table():
    text = "".join(path.read_text() for room in ROOMS for path in room.glob("*.py"))
    named = re.findall(r"\b(?:option|PYTEST|percent|user_path|_check_range)\(['\"](\w+)['\"]", text)
    assert len(set(named)) > 10
    assert set(named) <= {row.name for row in ROWS}


ASKERS = [
    (Spelling(), "--chunk-tokens is 100", "To fix: --chunk-tokens=96"),
    (PYTEST, "--kv-chunk-tokens is 100", "To fix: --kv-chunk-tokens=96"),
    (
        Spelling("--kv-", frozenset({"chunk_tokens"})),
        "kv_chunk_tokens in the ini file is 100",
        "To fix: kv_chunk_tokens = 96 in the ini file",
    ),
]


@pytest.mark.parametrize(("spelling", "begin", "end"), ASKERS, ids=["command", "pytest", "ini"])
def test_an_error_names_the_option_as_the_asker_wrote_it(spelling, begin, end):
    with pytest.raises(ConfigError) as error:
        run_config(RunOptions(stack="cpu", chunk_tokens=100))
    words = error.value.words(spelling)
    assert words.startswith(begin)
    assert words.endswith(end)


def test_an_error_without_an_asker_is_written_as_the_command_writes_it():
    with pytest.raises(ConfigError) as error:
        percent("min_hit_rate", 100)
    assert str(error.value).startswith("--min-hit-rate is 100")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "--stack=tpu"], "error: --stack is 'tpu', but must be one of auto, cpu, gpu."),
        (
            ["up", "--stack=cpu", "--dtype=int3"],
            "error: --dtype is 'int3', but must be one of auto, bfloat16",
        ),
        (["up", "--stack=cpu", "--chunk-tokens=100"], "error: --chunk-tokens is 100"),
        (["doctor", "--stack=cpu", "--model=./missing"], "error: --model is ./missing, which is neither"),
        (["diagnose", "x", "--min-hit-rate=0.5"], "error: --min-hit-rate is 0.5: per cent, not a fraction."),
        (
            ["diagnose", "x", "--chunk-tokens=100"],
            "error: --chunk-tokens is 100, but must be a multiple of 32",
        ),
        (["diagnose", "x", "--block-tokens=0"], "Invalid value for '--block-tokens'"),
        (["headlines", "x", "--into=~nobody-of-that-name/R"], "error: --into is '~nobody-of-that-name/R'"),
        (["up", "--kv-stack=cpu"], "No such option"),
    ],
)
def test_bad_usage_of_the_command_is_told_on_standard_error_with_exit_code_2(arguments, message):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_what_the_command_is_given_reaches_the_stack(monkeypatch):
    asked = []

    def stop(run, progress):
        asked.append(run)
        raise ConfigError("enough")

    monkeypatch.setattr("lmcache_tutorial.cli.stack_commands.open_stack", stop)
    CliRunner().invoke(app, ["up", "--stack=cpu", "--chunk-tokens=96", "--engine-memory-gib=3"])
    (run,) = asked
    stack = run.stack
    assert (stack.profile, stack.cache.chunk_tokens, stack.engine.memory_gib) == ("cpu", 96, 3.0)
    assert run.keep_stack
