"""Every question is about a prediction that its lesson makes: read from the lessons' source."""

import ast
import re
from pathlib import Path

import pytest

from lmcache_tutorial.lessons.questions import QUESTIONS, questions_of

ROOT = Path(__file__).parents[2]
LESSONS = [f"lesson{number}" for number in range(1, 10)]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=range(1, 10))  # -k lesson3 means the lesson


def module(lesson: str) -> ast.Module:
    (path,) = (ROOT / "tutorial_tests").glob(f"test_{lesson}_*.py")
    return ast.parse(path.read_text())


class Texts:
    """What a lesson's source can write: its texts, and those that it puts together from others."""

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        self.whole = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        patterns = {pattern(n) for n in nodes if isinstance(n, ast.JoinedStr)}
        self.patterns = {one for one in patterns if one.strip("(.+)")}  # not one that would match anything

    def makes(self, text: str) -> bool:
        """Tell whether it is a text of the source, or a pattern whose gaps hold such texts."""
        if text in self.whole:
            return True
        found = [re.fullmatch(one, text) for one in self.patterns]
        return any(match and all(map(self.makes, match.groups())) for match in found)


def pattern(node: ast.expr) -> str:
    """Turn a text of the source into a regular expression, with a group for each of its gaps."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    assert isinstance(node, ast.JoinedStr), ast.dump(node)
    return "".join(pattern(v) if isinstance(v, ast.Constant) else "(.+)" for v in node.values)


def named(function: ast.FunctionDef, name: str) -> list[str]:
    """Find the texts that a function gives a name."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            found += [pattern(v) for t, v in pairs if isinstance(t, ast.Name) and t.id == name]
    return found


def predictions(tree: ast.Module) -> list[tuple[str, str, bool]]:
    """Return of every comparison that a lesson reports its name's pattern, unit, and if it is a sequence."""
    found = []
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            called = getattr(call.func, "attr", "")
            if called not in ("compare", "compare_arms") or getattr(call.func.value, "id", "") != "report":
                continue
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            unit = ast.literal_eval(given["unit"]) if "unit" in given else "tokens"
            first, arms = call.args[0], called == "compare_arms"
            names = named(function, first.id) if isinstance(first, ast.Name) else [pattern(first)]
            assert names, ast.dump(first)
            found += [(f"{one}, (.+)" if arms else one, unit, arms or "sequence" in given) for one in names]
    return found


@each_lesson
def test_every_question_names_a_prediction_that_the_lesson_makes(lesson):
    tree = module(lesson)
    texts, made = Texts(tree), predictions(tree)
    for question in questions_of(lesson):
        matches = [(re.fullmatch(name, question.name), unit, ordered) for name, unit, ordered in made]
        found = [one for one in matches if one[0] and all(map(texts.makes, one[0].groups()))]
        assert found, f"{lesson} makes no prediction {question.name!r}"
        assert {unit for _, unit, _ in found} == {question.unit}
        if isinstance(question.of, int):  # the place of a value says something in a sequence alone
            assert all(ordered for _, _, ordered in found)


def test_a_name_that_no_lesson_makes_is_noticed():
    tree = module("lesson7")
    assert Texts(tree).makes("round_robin, one Valkey")
    assert not Texts(tree).makes("round_robin, two Valkeys")
    assert not Texts(module("lesson4")).makes("in the cellar")


@each_lesson
def test_a_lesson_asks_for_two_or_three_numbers_and_says_how_they_are_worked_out(lesson):
    questions = questions_of(lesson)
    assert 2 <= len(questions) <= 3
    assert len({question.name for question in questions}) == len(questions)
    for question in questions:
        assert question.asks.endswith("?")
        assert 1 <= len(re.findall(r"[.?](?: |$)", question.how)) <= 2  # a sentence or two
        assert question.of in ("each", "all") or question.of >= 1


def test_the_lessons_are_all_of_them():
    assert set(QUESTIONS) == set(LESSONS)
