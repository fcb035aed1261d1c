"""The structure: which module may import which, and how lessons are named."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmcache_tutorial.lessons import parse_header

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
ORDER = (
    "files lessons records first_token sources predict chat_template rendering prompts parting pages "
    "logged messages log_forms server_log logs turns volatile same_json culprits forerunner losses "
    "diagnosis replay time_limit diagnose metrics machine config progress corpus counters workload shapes "
    "model supervisor process doctor stack copy_rate peers samples side_by_side tracing meter ask gate "
    "results plotting prefix_svg charts report peers_page headlines session plugin diagnose_command cli"
).split()
LESSONS = sorted((ROOT / "tutorial_tests").glob("test_lesson*.py"))


def imports(path: Path, depth: int) -> set[str]:
    """Return the package's modules that a file imports; ``depth`` dots lead out of its own folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("lmcache_tutorial.")}
            assert not any(name.split(".")[0] == "fixtures" for name in names), f"{path} imports fixtures"
    return found


def test_every_module_has_its_place_in_the_order():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert modules - {"__init__", "tests"} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_modules_above_it(module):
    single = PACKAGE / f"{module}.py"
    files = [(single, 1)] if single.exists() else [(path, 2) for path in (PACKAGE / module).glob("*.py")]
    allowed = set(ORDER[: ORDER.index(module)])
    for path, depth in files:
        assert imports(path, depth) <= allowed, path


def test_modules_and_lessons_stay_small():
    modules = [path for path in PACKAGE.rglob("*.py") if "tests" not in path.parts]
    limits = {"fixtures": 160, "tutorial_tests": 290}
    for path in [*modules, *(ROOT / "fixtures").glob("*.py"), *LESSONS]:
        assert len(path.read_text().splitlines()) <= limits.get(path.parent.name, 400), path


def collected(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_k_selects_one_chapter_alone():
    everything = collected()
    assert len(LESSONS) == 5
    for number, path in enumerate(LESSONS, 1):
        word = "lesson" + str(number)
        chosen = collected("-k", word)
        assert chosen
        assert all(f"tutorial_tests/{path.name}::test_{word}_" in line for line in chosen)
        assert [line for line in everything if word in line] == chosen


@pytest.mark.parametrize("path", LESSONS, ids=range(1, len(LESSONS) + 1))
def test_a_chapter_holds_the_form(path):
    text = path.read_text()
    sections = re.findall(r"^# ## (\d)\. (.*)$", text, re.MULTILINE)
    assert [number for number, _ in sections] == ["1", "2", "3", "4", "5"]
    assert [
        title.split()[-1] for _, title in sections
    ] == "workload prediction measurement claims Exercises".split()
    claims = re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    assert len([name for name in claims if "benchmark" not in name]) <= 7
    exercises = re.split(r"^# \d\. ", text.partition("## 5. Exercises")[2], flags=re.MULTILINE)[1:]
    assert exercises
    for exercise in exercises:
        assert [word for word in ("File:", "Change:", "Command:", "Where:") if word not in exercise] == []


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
