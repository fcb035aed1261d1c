"""The structure: which room may import which, and how lessons are named."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmcache_tutorial.lessons.header import parse_header

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
# A room imports only rooms of lower ranks, never one of its own; `lmcache_tutorial/README.md` says so too.
RANKS = {
    "quantities": 1,
    "pages": 2,
    "machine": 2,
    "settings": 3,
    "lessons": 3,
    "prompts": 4,
    "selfcheck": 4,
    "models": 5,
    "servers": 6,
    "stack": 7,
    "traces": 7,
    "asking": 8,
    "graphs": 9,
    "diagnosis": 10,
    "gate": 11,
    "report": 12,
    "peers": 13,
    "workbench": 14,
    "notebook": 14,
    "plugin": 15,
    "cli": 15,
}
NEVER = {  # beyond the ranks
    "traces": {"stack", "asking"},
    "report": {"stack", "asking"},
    "diagnosis": set(RANKS) - {"quantities", "pages", "settings", "prompts"},
}
ALONE = ("servers/supervisor.py", "machine/checks.py")  # run by their paths: the standard library only
# These tests look at more than one room.
SUITE_WIDE = {"compose", "browser", "colours", "phoenix", "structure", "wheel"}
LONGEST_FUNCTION = 40  # lines; what it holds and how it branches is ruff's affair
LESSONS = sorted((ROOT / "tutorial_tests").glob("test_lesson*.py"))
ROOM_MODULES = sorted(path for room in RANKS for path in (PACKAGE / room).glob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms of which a module imports something; it must name its own package with dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom | ast.Import) and not getattr(node, "level", 0):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            top = {name.split(".")[0] for name in names}
            assert not top & {"fixtures", "tutorial_tests", "lmcache_tutorial"}, path
    return found


def test_every_module_lies_in_a_room():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"tests"} == set(RANKS)
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]
    assert all(
        len(list((PACKAGE / room).glob("*.py"))) > 2 for room in RANKS
    )  # its own file, and two modules


@pytest.mark.parametrize("path", ROOM_MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_module_imports_only_rooms_of_lower_ranks(path):
    room = path.parent.name
    wrong = {other for other in imported_rooms(path) if RANKS[other] >= RANKS[room]}
    assert wrong == set()
    assert imported_rooms(path) & NEVER.get(room, set()) == set()


@pytest.mark.parametrize("name", ALONE)
def test_what_runs_by_its_path_imports_the_standard_library_alone(name):
    nodes = ast.walk(ast.parse((PACKAGE / name).read_text()))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in imports)
    named = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
        for node in imports
        for alias in node.names
    }
    assert named <= sys.stdlib_module_names


def test_the_map_tells_of_every_room_its_rank_and_its_modules():
    rows = re.findall(r"^\| (\d+) \| `(\w+)/` \| (.*) \|$", (PACKAGE / "README.md").read_text(), re.MULTILINE)
    assert {room: int(rank) for rank, room, _ in rows} == RANKS
    for _, room, text in rows:
        modules = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`(\w+)`", text)) == modules, room


def test_tests_are_found_by_the_name_of_a_module_or_a_room():
    names = {path.stem.removeprefix("test_") for path in (PACKAGE / "tests").glob("test_*.py")}
    assert names - SUITE_WIDE - {path.stem for path in ROOM_MODULES} - set(RANKS) == set()
    assert names >= SUITE_WIDE


def test_nothing_imports_a_fixture():
    paths = [*LESSONS, *(PACKAGE / "tests").glob("*.py"), *(ROOT / "fixtures").glob("*.py")]
    assert [
        path.name for path in paths if re.search(r"^(from|import) fixtures", path.read_text(), re.M)
    ] == []


def test_modules_and_lessons_stay_small():
    modules = [path for path in PACKAGE.rglob("*.py") if "tests" not in path.parts]
    limits = {"fixtures": 160, "tutorial_tests": 280}
    for path in [*modules, *(ROOT / "fixtures").glob("*.py"), *LESSONS]:
        assert len(path.read_text().splitlines()) <= limits.get(path.parent.name, 400), path


def sources() -> list[Path]:
    """Return every Python file of the project."""
    folders = (PACKAGE, ROOT / "fixtures", ROOT / "tutorial_tests", ROOT / ".ci")
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def test_no_comment_switches_a_rule_off():
    switch = re.compile(r"# *fmt: *(?:skip|off)|# *(?:ruff: *)?noqa(?!:)|# *noqa:.*(?:SIM|RET|C901|PLR09)")
    assert [path.name for path in sources() if switch.search(path.read_text())] == []


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines from its ``def`` to its end."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    docstring = function.body[0]
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def test_a_function_is_read_at_once():
    for path in sources():
        if path.is_relative_to(PACKAGE / "tests"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert lines_without_docstring(node) <= LONGEST_FUNCTION, f"{path}: {node.name}"


@pytest.mark.xdist_group("one")
def test_tests_of_a_group_share_a_worker(request):
    """With pytest 9.2 pytest-xdist 3.8.0 forgot its groups, and each worker built the wheel again."""
    if hasattr(request.config, "workerinput") and request.config.option.dist == "loadgroup":
        assert request.node.nodeid.endswith("@one")


def collected(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_k_selects_one_chapter_alone():
    everything = collected()
    assert len(LESSONS) == 9
    for number, path in enumerate(LESSONS, 1):
        word = "lesson" + str(number)
        chosen = [line for line in everything if word in line]  # -k looks for the word in what is collected
        assert chosen
        assert all(f"tutorial_tests/{path.name}::test_{word}_" in line for line in chosen)
    assert collected("tutorial_tests", "-k", word) == chosen
    assert not [line for line in everything if "/exercises/" in line]


@pytest.mark.parametrize("path", LESSONS, ids=range(1, len(LESSONS) + 1))
def test_a_chapter_holds_the_form(path):
    text = path.read_text()
    sections = re.findall(r"^# ## (\d)\. (.*)$", text, re.MULTILINE)
    assert [number for number, _ in sections] == ["1", "2", "3", "4", "5"]
    wanted = ["workload", "prediction", "measurement", "claims", "Exercises"]
    assert [title.split()[-1] for _, title in sections] == wanted
    claims = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    assert len([name for name in claims if "benchmark" not in name]) <= 7
    (number,) = re.findall(r"test_lesson(\d)_", path.name)
    named = re.findall(r"`(ex\d_\d_\w+\.py)`", text.partition("## 5. Exercises")[2])
    assert [name.split("_")[:2] for name in named] == [[f"ex{number}", "1"], [f"ex{number}", "2"]]
    assert all((path.parent / "exercises" / name).is_file() for name in named)


@pytest.mark.parametrize("path", LESSONS, ids=range(1, len(LESSONS) + 1))
def test_the_glossary_explains_every_word_that_a_chapter_brings(path):
    header = parse_header(ast.get_docstring(ast.parse(path.read_text())))
    glossary = (ROOT / "README.md").read_text().partition("## Words we use")[2].partition("\n## ")[0]
    explained = {
        word.strip("* `")
        for line in glossary.splitlines()
        if line.startswith("|")
        for word in re.split(r"[,;]", line.split("|")[1])
    }
    brought = [word.strip() for word in header.fields["Words"].rstrip(".").split(",")]
    assert [word for word in brought if word not in explained] == []
