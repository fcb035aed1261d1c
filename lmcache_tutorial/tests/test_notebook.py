"""The notebook: made from the lessons; run in a kernel, on tiny lessons without any engine; and rendered."""

import ast
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

import lmcache_tutorial
from lmcache_tutorial.cli import notebook as command
from lmcache_tutorial.cli.app import app
from lmcache_tutorial.lessons.folder import NoLessonsError, chosen_files, clone_around, lesson_files
from lmcache_tutorial.notebook.build import anchor, build
from lmcache_tutorial.notebook.chapter import Chapter, ChapterError, begin_chapter
from lmcache_tutorial.notebook.execute import NotebookRunError, execute, relative, text_of
from lmcache_tutorial.notebook.inline import lesson_html
from lmcache_tutorial.notebook.page import markdown, notebook_page
from lmcache_tutorial.pages.templating import style_sheet
from lmcache_tutorial.settings.command_options import NOTEBOOK_FILE
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.tests.conftest import BAD_CODE, HOSTILE
from lmcache_tutorial.tests.notebooks import absolute_paths, errors, pictures_of

ROOT = Path(__file__).parents[2]
PAGE_LIMIT = 5_000_000  # characters of a page
LIMIT_S = 240
LESSON = '''"""Lesson {number}. A tiny one.

Question      Does it | work?
You will see  a claim.
Words         hit.
Time          none.
Hardware      any.
Builds on     nothing.
"""

# %% [markdown]
# ## 1. The workload
# Words, and `code`.

# %%
import pytest

from lmcache_tutorial.report.results import LessonReport

{code}

# %% [markdown]
# ## 5. Exercises
# 1. None.
'''
# Its fixture has the name of one of the root's conftest.py, which the second chapter asks for.
PASSES = """
@pytest.fixture(scope="module")
def measured() -> list[int]:
    return [3, 3]


# %%
def test_lesson1_the_count_is_as_predicted(measured: list[int], report: LessonReport) -> None:
    report.compare("Count", predicted=[3, 3], measured=measured)
    report.rounds("TTFT", {"cold": [1.0, 1.1], "warm": [0.1, 0.2]}, served_by={"cold": "computed"})
    assert measured == [3, 3]
"""
# Its rounds decide nothing at first.
UNDECIDED_ONCE = """
from pathlib import Path

from lmcache_tutorial.gate.decide import UndecidedError

TRIED = Path("tried")


# %%
def test_lesson2_it_is_decided_in_the_end(measured: str, report: LessonReport) -> None:
    assert measured == "the suite's own"
    if not TRIED.exists():
        TRIED.touch()
        raise UndecidedError("too noisy")
"""
FAILS = """
def test_lesson3_the_count_is_as_predicted() -> None:
    found = [3, 4]
    assert found == [3, 3]


def test_lesson3_another_holds() -> None:
    assert True
"""
CONFTEST = """
import pytest

pytest_plugins = ["fixtures.report"]


@pytest.fixture(scope="session")
def measured():
    return "the suite's own"
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with three tiny lessons, which is the working folder."""
    folder = tmp_path / "clone" / "tutorial_tests"
    folder.mkdir(parents=True)
    for number, code in enumerate((PASSES, UNDECIDED_ONCE, FAILS), 1):
        text = LESSON.format(number=number, code=code.strip())
        (folder / f"test_lesson{number}_tiny.py").write_text(text)
    (folder.parent / "conftest.py").write_text(CONFTEST)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return folder.parent


@pytest.fixture(scope="module")
def whole():
    """The notebook of the real lessons, not executed."""
    return build(lesson_files(ROOT))


def sources(notebook, chapter):
    return [cell.source for cell in notebook.cells if cell.metadata["chapter"] == chapter]


def test_the_notebook_is_valid_and_the_same_lessons_make_the_same_file(whole):
    nbformat.validate(whole)
    assert text_of(whole) == text_of(build(lesson_files(ROOT)))
    ids = [cell.id for cell in whole.cells]
    assert len(set(ids)) == len(ids) > 150


def test_every_lesson_is_a_chapter_with_its_own_cells(whole):
    assert list(dict.fromkeys(cell.metadata["chapter"] for cell in whole.cells)) == [
        "front",
        *lesson_files(ROOT),
        "tour",
    ]
    for lesson, path in lesson_files(ROOT).items():
        cells, text = sources(whole, lesson), path.read_text()
        title = ast.get_docstring(ast.parse(text)).partition("\n")[0].rstrip(".")
        assert cells[0].startswith(f"# {title}\n")
        assert cells[1].endswith(f'chapter = begin_chapter("{lesson}")')
        _docstring, *written = ast.parse(text).body
        mine = [c.source for c in whole.cells if c.metadata["chapter"] == lesson and c.cell_type == "code"]
        ours = [source for source in mine[1:] if not source.startswith("chapter.")]
        assert ast.dump(ast.parse("\n".join(ours))) == ast.dump(ast.Module(written, []))
        run, exercises = cells.index("chapter.run()"), len(cells) - 1
        assert cells[run + 2] == "chapter.show()"
        assert cells[exercises].startswith("## 5. Exercises")
        assert run + 3 == exercises


def test_a_cell_keeps_its_id_when_another_one_comes(clone):
    before = {cell.source: cell.id for cell in build(lesson_files(clone)).cells}
    path = clone / "tutorial_tests" / "test_lesson1_tiny.py"
    path.write_text(path.read_text().replace("# %%\nimport", "# %%\nMORE = 1\n\n# %%\nimport"))
    after = {cell.source: cell.id for cell in build(lesson_files(clone)).cells}
    assert set(after) - set(before) == {"MORE = 1"}
    assert {source: after[source] for source in before} == before


def test_the_contents_lead_to_every_chapter(whole):
    front, *_ = sources(whole, "front")
    links = re.findall(r"^- \[(.+)\]\(#(.+)\)$", front, re.MULTILINE)
    cells = [cell.source for cell in whole.cells if cell.cell_type == "markdown"]
    headings = [title for text in cells for title in re.findall(r"^# (.+)$", text, re.MULTILINE)]
    assert len(headings) == 13
    assert [title for title, _ in links] == headings[1:]
    assert [place for _, place in links] == [anchor(title) for title, _ in links]
    places = re.findall(r'<h1 id="(.+?)"', notebook_page(whole))
    assert set(places) >= {place.replace("'", "&#x27;") for _, place in links}


def test_the_glossary_is_the_readmes(whole):
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in sources(whole, "front")[-1].splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert all(row in readme for row in rows)


def test_a_lesson_that_does_not_exist_is_named(clone):
    with pytest.raises(NoLessonsError, match=r"(?s)no lesson9\..*lesson1, lesson2, lesson3"):
        chosen_files(clone, ["lesson1", "lesson9"])
    assert list(chosen_files(clone, ["lesson3", "lesson1"])) == ["lesson1", "lesson3"]
    assert clone_around(clone / "tutorial_tests") == clone


def test_the_tour_uses_public_names_and_runs(whole):
    cells = [cell for cell in whole.cells if cell.metadata["chapter"] == "tour"]
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in imports} == {"lmcache_tutorial"}
    shown = []
    code = code.replace("show_chart(", "shown.append(")
    exec(compile(code, "tour", "exec"), {"shown": shown})
    assert [chart.kind for chart in shown] == ["rounds", "served"]


def test_every_public_name_is_documented_and_loaded_when_it_is_asked_for():
    tree = ast.parse(Path(lmcache_tutorial.__file__).read_text())
    typed = [name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names]
    assert set(lmcache_tutorial.__all__) == set(typed) - {"annotations", "import_module", "TYPE_CHECKING"}
    for name in lmcache_tutorial.__all__:
        assert getattr(lmcache_tutorial, name).__doc__
    probe = (
        "import sys, lmcache_tutorial as ours; print([m for m in sys.modules if f'{ours.__name__}.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = lmcache_tutorial.nothing_like_this


@pytest.fixture
def no_servers(monkeypatch):
    """Neither servers that are needed, nor a stack that is kept; what asks to stop one stands in the list."""
    stopped = []
    monkeypatch.setattr(command, "need_servers", lambda *_: None)
    monkeypatch.setattr(command, "kept_servers", dict)
    monkeypatch.setattr(command, "take_down", stopped.append)
    return stopped


@pytest.mark.xdist_group("kernel")
def test_chapters_run_one_after_the_other_and_do_not_mix(clone, no_servers):
    done = invoke("lesson1", "lesson2")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:-1] == [
        "notebook: What LMCache brings to long-context work on vLLM",
        "notebook: Lesson 1. A tiny one",
        "notebook: Lesson 2. A tiny one",
        "notebook: A tour of the helpers",
    ]
    assert len(no_servers) == 1
    made = nbformat.read(clone / NOTEBOOK_FILE, as_version=4)
    assert errors(made) == []
    assert absolute_paths(made) == []
    assert NotebookNotary().check_signature(made)
    page = (clone / NOTEBOOK_FILE).with_suffix(".html").read_text()
    assert page == notebook_page(made)
    assert "1 passed" in page
    assert len(pictures_of(page)) == 3, "one of lesson 1, two of the tour"
    assert "undecided, so measured once more:" in page
    for lesson in ("lesson1", "lesson2"):
        found = json.loads((clone / "reports" / "notebook" / lesson / "results.json").read_text())
        assert [(one["id"], one["outcome"]) for one in found["lessons"]] == [(lesson, "passed")]


def test_the_notebooks_of_reference_runs_are_whole_and_name_nobodys_machine():
    found = sorted((ROOT / "reports" / "reference").glob("*/*.ipynb"))
    assert NOTEBOOK_FILE in {path.name for path in found}
    for path in found:  # the whole notebook, or one lesson's under that lesson's name
        made = nbformat.read(path, as_version=4)
        nbformat.validate(made)
        assert errors(made) == []
        assert absolute_paths(made) == []
        chapters = set(lesson_files(ROOT)) if path.name == NOTEBOOK_FILE else {path.stem}
        assert {cell.metadata["chapter"] for cell in made.cells} == {"front", "tour", *chapters}
        page = path.with_suffix(".html").read_text()
        assert len(page) < PAGE_LIMIT
        assert re.findall(r"(?:src=|<link[^>]*href=|url\()[\"']?(?!data:|#)[^\"' )>]+", page) == []


@pytest.mark.xdist_group("kernel")
def test_in_a_kernel_the_real_chapters_have_the_claims_that_they_have_in_a_terminal(clone):
    for path in lesson_files(clone).values():
        path.unlink()
    for path in (ROOT / "conftest.py", *lesson_files(ROOT).values()):
        shutil.copy(path, clone / path.relative_to(ROOT))
    made = build(lesson_files(clone))
    for cell in made.cells:
        if cell.source.startswith("chapter."):  # nothing is asked of any engine
            cell.source = 'chapter.run("--collect-only")' if cell.source == "chapter.run()" else "pass"
    execute(made, clone, cell_limit_s=LIMIT_S, progress=print)
    texts = {cell.metadata["chapter"]: [] for cell in made.cells}
    for cell in made.cells:
        texts[cell.metadata["chapter"]] += [one.text for one in cell.get("outputs", []) if "text" in one]
    for lesson, path in lesson_files(ROOT).items():
        found = re.findall(r"^(\S+)::(test_\w+)", "".join(texts[lesson]), re.MULTILINE)
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        claims = [
            one.name for one in functions if one.name.startswith("test_") and "benchmark" not in one.name
        ]
        assert {file for file, _ in found} == {f"tutorial_tests/{path.name}"}
        assert list(dict.fromkeys(name for _, name in found)) == claims


@pytest.mark.xdist_group("kernel")
def test_a_chapter_runs_by_itself_and_a_claim_that_fails_is_named(clone):
    made = build(lesson_files(clone))
    alone = [cell for cell in made.cells if cell.metadata["chapter"] == "lesson3"]
    with pytest.raises(NotebookRunError) as stopped:
        execute(new_notebook(cells=alone), clone, cell_limit_s=LIMIT_S, progress=print)
    assert str(stopped.value).splitlines() == [
        "the notebook stopped in the chapter 'Lesson 3. A tiny one'.",
        "  cell  chapter.run()",
        "  seen  ChapterError: lesson3: not every claim passed.",
        "  failed: The count is as predicted: assert [3, 4] == [3, 3]",
    ]
    (raised,) = [one for cell in alone for one in cell.get("outputs", []) if one.output_type == "error"]
    assert len(raised.traceback) == 1, "the claim's own traceback stands above it"


@pytest.mark.xdist_group("kernel")
@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import time\ntime.sleep(60)", "a cell was not done after 1 s"),
        ("import os\nos._exit(3)", "its kernel ended"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
    ids=["too long", "kernel ended", "raised"],
)
def test_a_cell_that_does_not_end_well_is_one_clear_error(tmp_path, code, seen):
    cells = [new_code_cell(source, metadata={"chapter": "one"}) for source in ("1", code)]
    limit_s = 1 if "sleep" in code else LIMIT_S
    with pytest.raises(NotebookRunError, match=re.escape(seen)) as stopped:
        execute(new_notebook(cells=cells), tmp_path, cell_limit_s=limit_s, progress=print)
    assert f"  cell  {code.splitlines()[0]}" in str(stopped.value)
    assert cells[0].execution_count == 1


@pytest.mark.parametrize("home", ["/home/you", "/"])
def test_paths_in_outputs_become_relative(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    letters = f"base64,PHN2{home}{tmp_path}/AB+{tmp_path}=="
    text = f"report: {tmp_path}/reports/index.html, rootdir: {tmp_path}, {tmp_path}2"
    text += f" {sys.prefix}/lib/a.py:3 {letters}"
    cell = new_code_cell("1", metadata={"chapter": "a"})
    cell.outputs = [
        nbformat.v4.new_output("stream", text=text),
        nbformat.v4.new_output("display_data", data={"text/html": f"<p>{text}</p>", "text/plain": "~"}),
    ]
    made = new_notebook(cells=[cell])
    relative(made, tmp_path)
    wanted = f"report: reports/index.html, rootdir: ., {tmp_path}2 lib/a.py:3 {letters}"
    assert made.cells[0].outputs[0].text == wanted
    assert made.cells[0].outputs[1].data == {"text/html": f"<p>{wanted}</p>", "text/plain": "~"}
    nbformat.validate(made)


def test_the_users_home_is_not_told(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/you")
    cell = new_code_cell("1", metadata={"chapter": "a"})
    cell.outputs = [nbformat.v4.new_output("stream", text="in /home/you/.cache/x and /home/your")]
    made = new_notebook(cells=[cell])
    assert absolute_paths(made) == ["/home/you", "/home/your"]
    relative(made, tmp_path)
    assert made.cells[0].outputs[0].text == "in ~/.cache/x and /home/your"


def test_results_that_are_not_there_are_one_message(clone, document):
    chapter = Chapter("lesson1", lesson_files(clone)["lesson1"], clone)
    with pytest.raises(ChapterError, match=r"(?s)lesson1 has no results.*To fix: run chapter\.run\(\) first"):
        chapter.show()
    with pytest.raises(ConfigError, match=r"hold lesson1, .*and not lesson99"):
        lesson_html(document, "lesson99")


def test_without_a_kernel_a_chapter_names_what_runs_its_lesson():
    with pytest.raises(ChapterError, match=r"(?s)here is none.*pytest -k lesson2"):
        begin_chapter("lesson2")


class Tags(HTMLParser):
    """Collects what a page holds."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_what_a_lesson_found_is_shown_with_pictures_and_without_script(document):
    html = lesson_html(document, "lesson2")
    tags = Tags(html).tags
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    lesson = next(one for one in document["lessons"] if one["id"] == "lesson2")
    assert [one["alt"] for one in pictures] == [chart["name"] for chart in lesson["charts"]]
    assert all(one["src"].startswith("data:image/svg+xml;base64,") for one in pictures)
    assert not any(tag in ("script", "svg", "iframe", "link") for tag, _ in tags)
    assert f"<script>{BAD_CODE}" not in html
    assert "Trace: " in html
    assert "Predicted and measured" in html
    assert style_sheet().count(":root") == html.count(":scope") - 1
    assert 'id="lesson1"' not in html


def test_a_picture_is_a_whole_drawing_in_itself(document):
    drawn = pictures_of(lesson_html(document, "lesson1"))
    assert len(drawn) == 5
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        used = set(re.findall(r"var\((--[\w-]+)\)", svg))
        assert used <= set(re.findall(r"(--[\w-]+):", svg))


def test_the_page_has_no_script_and_asks_for_nothing(whole):
    page = notebook_page(whole)
    tags = Tags(page).tags
    assert not any(tag in ("script", "iframe") for tag, _ in tags)
    assert [attributes["href"] for tag, attributes in tags if tag == "link"] == ["data:,"]
    assert {a["src"][:5] for tag, a in tags if tag == "img"} <= {"data:"}
    assert len(page) < 1_000_000
    assert "<title>What LMCache brings to long-context work on vLLM</title>" in page


def test_html_in_a_cells_words_is_escaped():
    assert "<script" not in markdown(f"# {HOSTILE}\n\n{HOSTILE}\n\n| a |\n|---|\n| {HOSTILE} |")


def invoke(*words):
    return CliRunner().invoke(app, ["notebook", *words])


def test_the_command_writes_a_notebook_and_its_page_without_running_it(clone):
    done = invoke("lesson2", "--empty")
    assert (done.exit_code, done.stderr) == (0, "")
    made = nbformat.read(clone / NOTEBOOK_FILE, as_version=4)
    assert sources(made, "lesson2")
    assert not sources(made, "lesson1")
    assert "Lesson 2. A tiny one" in (clone / NOTEBOOK_FILE).with_suffix(".html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["lesson9"], "there is no lesson9", id="no such lesson"),
        (["--into=notebook.html"], "a name that ends in .ipynb"),
        (["--into=nowhere/a.ipynb"], "cannot be written"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_message_before_anything_runs(clone, monkeypatch, words, said):
    monkeypatch.setattr(command, "need_servers", lambda *_: pytest.fail("it would have begun"))
    done = invoke(*words)
    assert done.exit_code == 2, done.exception
    assert said in done.stderr
    assert "To fix" in done.stderr
    assert done.stdout == ""


def test_outside_of_a_clone_the_command_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke()
    assert done.exit_code == 2
    assert "there are no lessons here" in done.stderr


@pytest.mark.xdist_group("kernel")
def test_a_notebook_that_fails_is_kept_aside_and_the_servers_are_stopped(clone, no_servers):
    (clone / NOTEBOOK_FILE).write_text("the last good one")
    done = invoke("lesson3")
    assert done.exit_code == 1
    assert "failed: The count is as predicted: assert [3, 4] == [3, 3]" in done.stderr
    assert (clone / NOTEBOOK_FILE).read_text() == "the last good one"
    assert errors(nbformat.read(clone / command.FAILED, as_version=4)) == ["ChapterError"]
    assert len(no_servers) == 1


def test_a_stack_that_was_kept_before_stays(monkeypatch):
    monkeypatch.setattr(command, "kept_servers", lambda: {"vllm": object()})
    monkeypatch.setattr(command, "take_down", lambda _: pytest.fail("it was not the notebook's"))
    with command._servers_left_as_they_were():
        pass
