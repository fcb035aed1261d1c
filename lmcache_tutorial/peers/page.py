"""What peers did side by side: the document that is kept (peers.json), and its page (peers.html)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from ..machine.files import write_atomically
from ..pages.charts import caption, draw, legend
from ..pages.templating import TITLES, page_environment
from ..quantities.sources import NEUTRAL
from ..quantities.statistics import median_interval
from .catalogue import NATIVE, TUNED, Peer
from .findings import LOAD_SHARE, LOAD_TOKENS, Sample, Samples, against_native

SCHEMA = 4
OVERHEAD_SHARE, OVERHEAD_S = 0.03, 0.002


class PeersError(RuntimeError):
    """What an earlier run left cannot be read; the message says what to do."""


@dataclass
class PeersRecord:
    """Everything that one run of a set of peers collects; becomes peers.json or tuning.json.

    ``failed``: peer -> why it was given up; its samples are gone.
    """

    set: str
    environment: Mapping[str, Any]
    peers: Sequence[Peer]
    notes: Sequence[str]
    kv_bytes_per_token: int
    lengths: Mapping[str, int]
    settings: str = ""
    samples: list[Sample] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    commands: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    copies: list[dict[str, float]] = field(default_factory=list)
    overhead: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    @property
    def next_block(self) -> int:
        """The number of the block that is measured next."""
        return 1 + max((sample.block for sample in self.samples), default=-1)

    @property
    def measured(self) -> frozenset[str]:
        """The names of the peers that have been measured."""
        return frozenset(sample.peer for sample in self.samples)

    def give_up(self, peer: Peer, why: str) -> None:
        """Leave out a peer that failed, with all that was measured of it."""
        self.failed[peer.name] = why
        self.samples = [sample for sample in self.samples if sample.peer != peer.name]

    def go_on_from(self, path: Path) -> bool:
        """Take in what an unfinished run measured: of the same peers and settings, machine, packages, model.

        A peer that failed is tried again.

        Returns:
            Whether there was such a run, with peers left to measure.

        Raises:
            PeersError: the file is damaged. It may hold hours of measurements, so it is not replaced.
        """
        if not path.is_file():
            return False
        try:
            return self._take_in(json.loads(path.read_text()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise PeersError(
                f"{path} is damaged, so what it holds cannot be gone on with.\n"
                f"  seen  {type(error).__name__}: {error}\n"
                "To fix: move the file away, or measure into another report folder"
            ) from None

    def _take_in(self, document: Mapping[str, Any]) -> bool:
        if document.get("schema") != SCHEMA or document["environment"] != self.environment:
            return False
        if document["settings"] != self.settings:
            return False
        samples = [Sample(**sample) for sample in document["samples"]]
        if {sample.peer for sample in samples} >= {peer.name for peer in self.peers}:
            return False
        commands = {p["name"]: p["servers"] for p in document["peers"] if p["servers"]}
        notes, started = [*dict.fromkeys([*document["notes"], *self.notes])], document["started"]
        self.copies, self.overhead = document["copies"], document["overhead"]
        self.samples, self.commands = samples, commands
        earlier = f"Measured by an earlier run, {started}: blocks up to {self.next_block}."
        self.notes = [*notes, earlier]
        return True

    def document(self) -> dict[str, Any]:
        """Build the document; every number on the page stands in it."""
        copies = {int(one["block"]): one["host_to_device"] for one in self.copies}
        samples = Samples(self.samples, self.kv_bytes_per_token, copies)
        native = against_native(samples)
        return {
            "schema": SCHEMA,
            "set": self.set,
            "started": datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "duration_s": round(time.time() - self.started, 1),
            "environment": dict(self.environment),
            "settings": self.settings,
            "lengths": dict(self.lengths),
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "peers": [
                {
                    "name": p.name,
                    "what": p.what,
                    "prediction": p.prediction,
                    "servers": self.commands.get(p.name),
                }
                for p in self.peers
            ],
            "notes": list(self.notes),
            "unmeasured": {
                peer.name: self.failed.get(peer.name, "the run ended before")
                for peer in self.peers
                if peer.name not in self.measured
            },
            "copies": self.copies,
            "rows": [_plain(row) for row in samples.rows()],
            "outcomes": list(samples.outcomes(self.peers[0].name)) if self.set == "tuning" else [],
            "against_native": {str(n): asdict(ratio) for n, ratio in native.items()} if native else None,
            "overhead": self.overhead,
            "samples": [asdict(sample) for sample in self.samples],
        }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) if hasattr(value, "low") else value for name, value in row.items()}


def overhead_row(
    tokens: int, *, suite: Sequence[float], bare: Sequence[float], framework: Sequence[float]
) -> dict[str, Any]:
    """Compare warm TTFT through the suite with that of a bare client, asked in turns [s].

    Args:
        tokens: prompt tokens.
        suite: TTFT as ``ask`` measured it, one a round.
        bare: TTFT of the same request by a bare HTTP client, one a round.
        framework: the time before the request is sent: graph, chat client and trace, one a round.

    Returns:
        The row; ``added`` is the median of the differences. It is ``resolved`` where its interval is narrower
        than what is allowed on both sides: a machine too noisy for that can neither hold nor break the claim.
    """
    added = median_interval([one - other for one, other in zip(suite, bare, strict=True)])
    allowed = max(OVERHEAD_SHARE * median(bare), OVERHEAD_S)
    rounds = {"suite_s": list(suite), "bare_s": list(bare), "framework_s": list(framework)}
    resolved = added.high - added.low < 2 * allowed
    return {"tokens": tokens, **rounds, "added": asdict(added), "allowed_s": allowed, "resolved": resolved}


def findings(document: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """Yield what is claimed of a run: a sentence, whether it holds, and what was seen."""
    left = {(row["peer"], row["tokens"]): row["outside_computed"] for row in document["rows"]}
    for tokens, ratio in (document["against_native"] or {}).items():
        computed = [left[peer.name, int(tokens)] for peer in (TUNED, NATIVE)]
        yield (
            f"LMCache, tuned, is at or below native offload at {int(tokens):,} tokens",
            ratio["value"] <= 1,
            f"{ratio['value']:.3f} of its TTFT ({ratio['low']:.3f} to {ratio['high']:.3f}), with "
            f"{computed[0]} tokens left to compute beside {computed[1]}",
        )
    for row in document["rows"]:
        if row["peer"] == TUNED.name and row["load_share"] and row["tokens"] >= LOAD_TOKENS:
            yield (
                f"LMCache, tuned, loads at {LOAD_SHARE:.0%} of the copy rate or more "
                f"at {row['tokens']:,} tokens",
                row["load_share"] >= LOAD_SHARE,
                f"{row['load_bytes_s'] / 1e9:.1f} GB/s, {row['load_share']:.0%} of the copy rate",
            )
    for row in document["overhead"]:
        if row["resolved"]:
            yield (
                f"The suite adds little to a warm TTFT at {row['tokens']:,} tokens",
                row["added"]["value"] < row["allowed_s"],
                f"{_ms(row['added'])} ms added, {_ms(row['allowed_s'])} ms allowed",
            )


def render_peers(document: Mapping[str, Any]) -> str:
    """Build the page: no script, no network."""
    page = page_environment()
    lengths = sorted({row["tokens"] for row in document["rows"]})
    page.globals |= {"title": TITLES[document["set"]], "lengths": lengths}
    page.globals |= {"chart": _chart, "draw": draw, "caption": caption, "legend": legend}
    page.globals |= {"findings": list(findings(document)), "median": median}
    page.filters |= {"ms": _ms, "span": _span, "rate": _rate}
    return page.get_template("peers.html.jinja").render(run=document)


def write_page(document: Mapping[str, Any], path: Path) -> None:
    """Render the page and write it, atomically."""
    write_atomically(path, render_peers(document))


def _chart(document: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """Chart the warm TTFT of every peer at one length, as results.json has its charts."""
    arms = {"engine": "engine's own cache", "outside": "from outside"}
    rows, served_by = [], {}
    for sample in sorted(document["samples"], key=lambda s: (s["start"] != "outside", s["block"])):
        if sample["tokens"] == tokens and sample["start"] in arms:
            arm = f"{sample['peer']}: {arms[sample['start']]}"
            outside = NEUTRAL if sample["peer"] == NATIVE.name else "lmcache_l1"
            served_by[arm] = "engine" if sample["start"] == "engine" else outside
            rows.append([arm, sample["ttft_s"] * 1000])
    axis = "TTFT [ms]"
    chart = {"kind": "rounds", "name": f"Warm TTFT, {tokens:,} tokens", "axis": axis, "served_by": served_by}
    return chart | {"columns": ["arm", axis], "rows": rows}


def _ms(value: Any, signed: bool = False) -> str:
    """Print seconds, or the value of an estimate in seconds, in milliseconds.

    >>> _ms(0.0123), _ms(-0.002, signed=True), _ms(None), _ms({"value": 0.1, "low": 0.09, "high": 0.2})
    ('12.3', '-2.0', '–', '100.0')
    """
    if value is None:
        return "–"
    seconds = value["value"] if isinstance(value, Mapping) else value
    return f"{seconds * 1000:+.1f}" if signed else f"{seconds * 1000:,.1f}"


def _span(value: Mapping[str, float]) -> str:
    """Print the interval of an estimate in milliseconds.

    >>> _span({"value": 0.1, "low": 0.09, "high": 0.2})
    '90.0 to 200.0'
    """
    return f"{_ms(value['low'])} to {_ms(value['high'])}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e9:.1f} GB/s"
