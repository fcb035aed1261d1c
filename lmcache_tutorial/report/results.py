"""What a run found, as data: the lessons' own reports, collected into the results.json contract."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import fastjsonschema

from ..diagnosis.result import Diagnosis
from ..gate.verdict import verdict, worst
from ..lessons.header import LessonHeader
from ..lessons.questions import Question
from ..machine.files import write_atomically
from ..prompts.layout import Layout
from ..prompts.parting import prefix_chart
from ..quantities.records import Interval, SpanRecord, TokenSources
from ..quantities.sources import SOURCES, UNTOLD, checked, told
from ..quantities.statistics import total
from ..settings.bars import Thresholds

SCHEMA_VERSION = 2
CONVERTED = "converted from schema 1"
LONGEST = 200  # characters of the schema's complaint: it may quote a whole lesson


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart by its data; it is drawn when the page is made.

    Attributes:
        name: its title.
        kind: a key of :data:`plotting.KINDS`.
        columns: what each place of a row holds, with its unit.
        rows: the data, at least one row.
        axis: what the horizontal axis shows, with its unit.
        served_by: series, arm or part -> who served it, a key of :data:`sources.KEYS`. It decides the
            colour, so that a colour means one thing on every chart; what is not stated is neutral.
        caption: what bar, dot and line are, where the words that the kind has for it do not say enough.
    """

    name: str
    kind: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    axis: str
    served_by: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""

    def document(self) -> dict[str, Any]:
        """Build the chart's part of results.json.

        Raises:
            SourceError: ``served_by`` names what is not drawn, or what is no source.
        """
        data = [list(row) for row in self.rows]
        series = {"growth": [row[-1] for row in data], "parts": self.columns[1:]}
        drawn = dict.fromkeys(series.get(self.kind, [row[0] for row in data]))
        chart: dict[str, Any] = {"name": self.name, "kind": self.kind, "axis": self.axis}
        chart |= {"columns": list(self.columns), "rows": data}
        chart["served_by"] = checked(self.served_by, drawn, self.name)
        return chart | {"caption": self.caption} if self.caption else chart


@dataclass
class LessonReport:
    """What one lesson shows. A lesson adds to it; nothing is printed or drawn here."""

    id: str
    header: LessonHeader
    predictions: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    headline_figures: dict[str, Any] = field(default_factory=dict)
    yours: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # by the name of a prediction
    memory_bytes: int = 0  # the most that was seen of all servers and the run together

    def compare(
        self,
        name: str,
        *,
        predicted: Sequence[float],
        measured: Sequence[float],
        unit: str = "tokens",
        sequence: bool = False,
    ) -> None:
        """Put predictions beside what was measured, one value a round.

        ``sequence`` shows every value in its order, where the order is what the lesson teaches; else the
        table shows the range of the rounds.
        """
        both = {"predicted": list(predicted), "measured": list(measured)}
        self.predictions.append({"name": name, "unit": unit, "sequence": sequence, **both})

    def compare_arms(
        self, name: str, *, predicted: Mapping[str, Sequence[int]], measured: Mapping[str, Sequence[int]]
    ) -> None:
        """Put the tokens predicted for each arm beside those measured, in the order of the requests."""
        for arm, expected in predicted.items():
            self.compare(f"{name}, {arm}", predicted=expected, measured=measured[arm], sequence=True)

    def own_numbers(self, questions: Sequence[Question], answers: Mapping[str, int]) -> None:
        """Put a reader's own numbers beside the predictions that they are about.

        Args:
            questions: all that were asked of this lesson.
            answers: the name of a question -> the number, in its unit; what is missing was not answered.
        """
        for one in questions:
            answer = answers.get(one.name)
            self.yours[one.name] = None if answer is None else {"value": answer, "of": one.of}

    def measure(self, name: str, *, arm: str, values: Sequence[float], unit: str = "s") -> None:
        """Keep the values of one arm, one a round."""
        self.measurements.append({"name": name, "unit": unit, "arm": arm, "values": list(values)})

    def served(
        self,
        name: str,
        arms: Mapping[str, Sequence[TokenSources]],
        *,
        calls: Mapping[str, int] | None = None,
    ) -> None:
        """Chart who served the prompt tokens of each arm, front to end: the mean of one request.

        Args:
            name: the chart's title.
            arms: arm -> the tokens of each of its windows.
            calls: arm -> the requests in all its windows, where a window holds more than one (a turn of an
                agent, calls side by side); without it each window is one request.
        """
        rows: list[list[Any]] = []
        for arm, windows in arms.items():
            requests = calls[arm] if calls else len(windows)
            tokens = asdict(total(windows))
            rows.append([arm, requests, *(tokens[key] / requests for key in (*SOURCES, "untold"))])
        columns = ["arm", "requests", *SOURCES.values(), UNTOLD]
        if not any(row[-1] for row in rows):  # all is told
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        self.chart(Chart(name, "served", columns, rows, axis="prompt tokens of one request, mean"))

    def headline(
        self,
        *,
        hit_rate: float | None = None,
        static_hit_rate: float | None = None,
        ttft_drop: Interval | None = None,
        tokens: TokenSources | None = None,
    ) -> None:
        """State the lesson's figures for the summary line; fractions of 1, tokens of the warm window."""
        figures: dict[str, Any] = {"hit_rate": hit_rate, "static_hit_rate": static_hit_rate}
        if ttft_drop:
            figures["ttft_drop"] = ttft_drop.value
            figures |= {"ttft_drop_low": ttft_drop.low, "ttft_drop_high": ttft_drop.high}
        if tokens:
            figures["tokens"] = told(tokens)
        self.headline_figures |= {name: value for name, value in figures.items() if value is not None}

    def rounds(
        self,
        name: str,
        arms: Mapping[str, Sequence[float]],
        *,
        unit: str = "s",
        served_by: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the values of several arms, one a round, and chart them: every round a dot.

        ``served_by`` says of each arm who served its tokens; see :class:`Chart`.
        """
        for arm, values in arms.items():
            self.measure(name, arm=arm, values=values, unit=unit)
        rows = [(arm, value) for arm, values in arms.items() for value in values]
        axis = f"{name} [{unit}]"
        self.chart(Chart(name, "rounds", ["arm", axis], rows, axis=axis, served_by=served_by or {}))

    def chart(self, chart: Chart) -> None:
        """Add a chart by its data."""
        self.charts.append(chart.document())

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Add a table of numbers: the columns with their units, at least one row."""
        self.tables.append({"name": name, "columns": list(columns), "rows": [list(row) for row in rows]})

    def prefix(self, name: str, first: Layout, second: Layout, *, block: int, chunk: int) -> None:
        """Draw two prompts one above the other: where they part, and which blocks and chunks that costs.

        Args:
            name: the chart's title.
            first: the prompt whose KV is kept, laid out.
            second: the prompt that is asked next.
            block: tokens of the engine's KV block.
            chunk: tokens of LMCache's chunk.
        """
        self.charts.append({"name": name, **prefix_chart(first, second, block=block, chunk=chunk)})

    def diagnosis(self, name: str, found: Diagnosis) -> None:
        """Show a diagnosis: the predicted hit rate before and after, and where the prefix breaks."""
        self.diagnoses.append({"name": name, **found.document()})

    def trace(self, name: str, trace_id: str, spans: Sequence[SpanRecord]) -> None:
        """Show one turn's trace as a waterfall."""
        self.traces.append({"id": trace_id, "name": name, "spans": [asdict(span) for span in spans]})


@dataclass
class Claim:
    """One test of a lesson: its sentence and how it went."""

    name: str
    outcome: str = "not_run"
    message: str | None = None
    duration_s: float = 0.0


@dataclass
class GroupReport:
    """What one group of a reader's own prompts shows.

    Attributes:
        file: the file that it stands in.
        line: the line of its first request.
        name: the group's.
        claims: what was judged; none where it was not asked, or had no answer.
        figures: what was measured; see :func:`groups.figures`.
        outcome: the worst of the claims', or what stood in their way.
        reason: what stood in their way.
        duration_s: how long asking took [s].
        url: of the deployment that it was asked of, as its document has it; ``None`` before it was found.
    """

    file: str
    line: int
    name: str
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    outcome: str = "not_run"
    reason: str | None = None
    duration_s: float = 0.0
    url: str | None = None

    def document(self, node_id: str) -> dict[str, Any]:
        """Build the group's part of results.json."""
        return {
            "id": node_id,
            "file": self.file,
            "line": self.line,
            "name": self.name,
            "url": self.url,
            "outcome": self.outcome,
            "reason": self.reason,
            "duration_s": round(self.duration_s, 3),
            "claims": [{"name": c.name, "outcome": c.outcome, "message": c.message} for c in self.claims],
            "headline": {},
            "requests": [],
            "measurements": [],
            **self.figures,
        }


@dataclass
class RunRecord:
    """Everything that one run collects; becomes results.json."""

    thresholds: Thresholds
    lessons: dict[str, LessonReport] = field(default_factory=dict)
    claims: dict[str, dict[str, Claim]] = field(default_factory=dict)
    groups: dict[str, GroupReport] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    interrupted: bool = False

    def select(self, lesson: str, header: LessonHeader, node_id: str, name: str) -> None:
        """Note a claim that is to run."""
        self.lessons.setdefault(lesson, LessonReport(lesson, header))
        self.claims.setdefault(lesson, {})[node_id] = Claim(name)

    def claim(self, node_id: str) -> Claim | None:
        """Find a selected claim."""
        return next((claims[node_id] for claims in self.claims.values() if node_id in claims), None)

    def results(self) -> dict[str, Any]:
        """Build the document of the results.json contract (schema 2)."""
        outcomes = {name: [c.outcome for c in claims.values()] for name, claims in self.claims.items()}
        outcomes |= {node_id: [group.outcome] for node_id, group in self.groups.items()}
        groups = [group.document(node_id) for node_id, group in self.groups.items()]
        return {
            "schema": SCHEMA_VERSION,
            "started": datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "duration_s": round(time.time() - self.started, 3),
            "environment": self.environment,
            "thresholds": asdict(self.thresholds),
            "verdict": verdict(outcomes),
            "interrupted": self.interrupted,
            "lessons": [self._lesson(name) for name in sorted(self.lessons)],
            **({"groups": groups} if groups else {}),
        }

    def _lesson(self, name: str) -> dict[str, Any]:
        lesson, claims = self.lessons[name], list(self.claims[name].values())
        outcome = worst([claim.outcome for claim in claims])
        own = {name: {"yours": number} for name, number in lesson.yours.items()}
        reason = next((c.message for c in claims if c.outcome == outcome and c.message), None)
        return {
            "id": name,
            "title": lesson.header.title,
            "question": lesson.header.fields["Question"],
            "you_will_see": lesson.header.fields["You will see"],
            "outcome": outcome,
            "reason": reason if outcome != "passed" else None,
            "duration_s": round(sum(claim.duration_s for claim in claims), 3),
            "claims": [{"name": c.name, "outcome": c.outcome, "message": c.message} for c in claims],
            "headline": lesson.headline_figures,
            **({"memory_gib": round(lesson.memory_bytes / 2**30, 2)} if lesson.memory_bytes else {}),
            "predictions": [one | own.get(one["name"], {}) for one in lesson.predictions],
            "measurements": lesson.measurements,
            "charts": lesson.charts,
            "tables": lesson.tables,
            "traces": lesson.traces,
            "diagnoses": lesson.diagnoses,
        }


def upgrade(document: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a document of schema 1 to schema 2, and note it; one of schema 2 is returned as it is.

    Only what the old document tells is set: the number format from the engine's command line and the cores
    from the description of the hardware. What it does not tell stays absent.

    Raises:
        ValueError: the document has another schema.
    """
    new: dict[str, Any] = copy.deepcopy(dict(document))
    if new["schema"] == SCHEMA_VERSION:
        return new
    if new["schema"] != 1:
        raise ValueError(f"only schema 1 can be converted to schema {SCHEMA_VERSION}; got {new['schema']}")
    new["schema"] = SCHEMA_VERSION
    environment = new["environment"]
    command = environment["stack"].get("vllm", {"command": []})["command"]
    if "--dtype" in command:
        environment["dtype"] = command[command.index("--dtype") + 1]
    if cores := re.search(r"(\d+) cores", environment["hardware"]):
        environment["cores"] = int(cores[1])
    new["notes"] = [*new.get("notes", []), CONVERTED]
    return new


def schema() -> dict[str, Any]:
    """Return the JSON Schema of results.json that ships with the package."""
    text = resources.files(__package__).joinpath("results.schema.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _contract() -> Callable[[Any], object]:
    check: Callable[[Any], object] = fastjsonschema.compile(schema())
    return check


def check(results: Mapping[str, Any]) -> None:
    """Hold a document, as it is read from a file, against the schema.

    Raises:
        ValueError: which part of it breaks the contract, and how.
    """
    try:
        _contract()(results)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValueError(error.message[:LONGEST]) from None


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Check a document against the schema and write it, atomically.

    Raises:
        ValueError: it breaks the contract: a defect of this suite.
    """
    plain = json.loads(json.dumps(results, allow_nan=False))
    check(plain)
    write_atomically(path, json.dumps(plain, indent=1) + "\n")
