"""The picture of two prompts that part: tokens above, the engine's blocks and LMCache's chunks below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Chart = Mapping[str, Any]
Row = Sequence[Any]

WIDTH = 960
HEAD = (142, 240)  # the box of what is left out at the front: its edges
BAND = (142, 846)  # the zoomed tokens; they begin behind the head box where there is one
TAIL_END = 952
LABELS = 4
PROMPTS = {"first": (40, "First prompt"), "second": (76, "Second prompt")}
BAND_HEIGHT, CELL_HEIGHT = 28, 26
UNITS = {  # key of the source -> (top, whose units, their name)
    "engine": (124, "Engine's own cache", "block"),
    "lmcache_l1": (166, "LMCache", "chunk"),
}
BORDERS_AT = 208
WORDS_TITLE = 244
WORDS = {"first": 254, "second": 290}
HEIGHT = 346
CHARACTER, SANS_CHARACTER, BOLD_CHARACTER = 7.9, 7.0, 8.0  # generous widths [pixels]
WORD_CHARACTERS = 16
TICK_PIXELS = 4.5  # single tokens get borders where they are at least that wide
SHOWN_SPACES = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "↵"})


@dataclass(frozen=True)
class Scale:
    """Token -> horizontal place: the window of a chart across the band."""

    begin: int
    end: int
    left: float

    def x(self, token: float) -> float:
        """Place a token border; what lies outside the window is put at its edge."""
        inside = min(max(token, self.begin), self.end)
        return self.left + (BAND[1] - self.left) * (inside - self.begin) / (self.end - self.begin)


def prefix_svg(chart: Chart, prefix: str) -> str:
    """Draw the data of :func:`parting.prefix_chart`.

    Args:
        chart: a chart of kind ``prefix``.
        prefix: put before every id; unique on the page.

    Returns:
        An ``<svg>`` element; its colours and fonts are the page's.
    """
    begin, end = chart["window"]
    scale = Scale(begin, end, HEAD[1] + 10 if begin else BAND[0])
    parts = [
        *_hatching(prefix),
        *_prompts(chart, scale, prefix),
        *_units(chart, scale),
        *_words(chart, scale, prefix),
        *_parting(chart, scale),
    ]
    name = escape(chart["name"], quote=True)
    attributes = f'class="prefix" role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f"<svg {attributes}>{''.join(parts)}</svg>"


def prefix_legend(chart: Chart) -> list[tuple[str, str]]:
    """List the swatches that the picture has, and their words."""
    swatches = [("equal", "equal in both prompts")]
    if any(row[-1] == "differs" for row in chart["rows"]):
        swatches.append(("differs", "differs"))
    for key, words in (
        ("engine", "in a whole block left of the parting: the engine's own cache can serve it"),
        ("lmcache_l1", "in a whole chunk left of the parting: LMCache can serve it"),
    ):
        if chart["reused"][key]:
            swatches.append((key, words))
    return [*swatches, ("computed", "has to be prefilled again")]


def prefix_caption(chart: Chart) -> str:
    """Say in words what the picture shows, with its numbers."""
    shared, prompt = chart["shared"], chart["tokens"]["second"]
    words = f"The first {shared:,} of the second prompt's {prompt:,} tokens stand in the first prompt too. "
    for key, whose in (("engine", "the engine's own cache"), ("lmcache_l1", "LMCache")):
        unit = chart[UNITS[key][2]]
        words += f"In whole {UNITS[key][2]}s of {unit:,}, {whose} can serve {chart['reused'][key]:,} of them"
        words += "; " if key == "engine" else ". "
    words = words.replace("; In", "; in")
    if shared < prompt:
        words += "All that stands right of the parting is prefilled again, equal words too"
        if chart["equal_at_end"]:
            words += f", such as the {chart['equal_at_end']:,} tokens at the end that are equal in both"
        words += ": a token's KV depends on every token before it."
    return words


def _prompts(chart: Chart, scale: Scale, prefix: str) -> Iterator[str]:
    parting = scale.x(chart["shared"])
    for prompt, (top, label) in PROMPTS.items():
        yield _label(top + 12, label, f"{chart['tokens'][prompt]:,} tokens")
        if scale.begin:
            yield _rect(HEAD[0], top, (HEAD[1] - HEAD[0], BAND_HEIGHT), "equal")
        for row in _rows(chart, "run", prompt):
            _, _, start, count, segment, _, state = row
            left, right = scale.x(start), scale.x(start + count)
            yield _rect(left, top, (right - left, BAND_HEIGHT), state, prefix)
            yield from _inside(_wider_side(left, right, parting), top + 18, segment, "halo")
        last = min(scale.end, chart["tokens"][prompt])
        pixels = (scale.x(scale.end) - scale.left) / (scale.end - scale.begin)
        for token in range(scale.begin + 1, last) if pixels >= TICK_PIXELS else ():
            yield _line(scale.x(token), top + BAND_HEIGHT - 5, top + BAND_HEIGHT, "tick")
        if (more := chart["tokens"][prompt] - scale.end) > 0:
            yield _rect(BAND[1] + 10, top, (TAIL_END - BAND[1] - 10, BAND_HEIGHT), "open")
            yield _text((BAND[1] + 10 + TAIL_END) / 2, top + 18, f"{more:,} more", "middle")
    if scale.begin:
        middle, between = (HEAD[0] + HEAD[1]) / 2, PROMPTS["second"][0]
        yield _text(middle, PROMPTS["first"][0] + 18, f"{scale.begin:,} more", "middle")
        yield _text(middle, between + 18, "equal in both", "middle")


def _units(chart: Chart, scale: Scale) -> Iterator[str]:
    prompt, parting = chart["tokens"]["second"], scale.x(chart["shared"])
    for key, (top, whose, name) in UNITS.items():
        unit, reused = chart[name], chart["reused"][key]
        yield _label(top + 11, whose, f"{name}s of {unit:,}")
        if scale.begin:
            size = (HEAD[1] - HEAD[0], CELL_HEIGHT)
            yield _rect(HEAD[0], top, size, key if reused >= scale.begin else "computed")
            count = f"{scale.begin // unit:,} {name}s"
            yield _text((HEAD[0] + HEAD[1]) / 2, top + 17, count, "middle", "on")
        last = min(scale.end, prompt)
        for start in range(scale.begin // unit * unit, last, unit):
            left, right = scale.x(start), scale.x(min(start + unit, last))
            served = start + unit <= reused or (reused == prompt - 1 and start + unit == prompt)
            yield _rect(left + 1, top, (right - left - 2, CELL_HEIGHT), key if served else "computed")
            words = f"{name} {start // unit + 1:,}" if start + unit <= prompt else "not full"
            yield from _inside(_wider_side(left, right, parting), top + 17, words, "on")
        if prompt > scale.end:
            yield _rect(BAND[1] + 10, top, (TAIL_END - BAND[1] - 10, CELL_HEIGHT), "computed")
            more = -(-(prompt - scale.end) // unit)
            yield _text((BAND[1] + 10 + TAIL_END) / 2, top + 17, f"{more:,} more", "middle", "on")
    chunk = chart["chunk"]
    for border in range(scale.begin // chunk * chunk, scale.end + 1, chunk):
        if border >= scale.begin:
            yield _line(scale.x(border), PROMPTS["first"][0] - 4, BORDERS_AT - 12, "border")
            yield _text(scale.x(border), BORDERS_AT, f"{border:,}", "middle", "soft")
    yield _text(LABELS, BORDERS_AT, "token", "start", "soft")


def _parting(chart: Chart, scale: Scale) -> Iterator[str]:
    shared, prompt = chart["shared"], chart["tokens"]["second"]
    at = scale.x(shared)
    if shared == prompt:
        words = "they do not part: the second ends here"
    else:
        words = f"they part after {shared:,} tokens" if shared else "they part at the first token"
    anchor = "start" if at < 300 else "end" if at > 700 else "middle"
    yield _text(at, 24, words, anchor, "strong")
    yield _line(at, 30, BORDERS_AT - 14, "parting")
    yield _line(at, WORDS_TITLE + 2, HEIGHT - 22, "parting")


def _words(chart: Chart, scale: Scale, prefix: str) -> Iterator[str]:
    at, shared = scale.x(chart["shared"]), chart["shared"]
    yield _text(LABELS, WORDS_TITLE, "The tokens there", "start", "strong")
    for prompt, top in WORDS.items():
        yield _label(top + 12, PROMPTS[prompt][1], "")
        rows = _rows(chart, "token", prompt)
        left = at
        for row in [row for row in reversed(rows) if row[2] < shared]:
            left -= _word_width(row)
            if left < BAND[0]:
                break
            yield from _one_word(row, left, top, chart, prefix)
        right = at
        for row in [row for row in rows if row[2] >= shared]:
            if right + _word_width(row) > TAIL_END:
                break
            yield from _one_word(row, right, top, chart, prefix)
            right += _word_width(row)


def _one_word(row: Row, left: float, top: float, chart: Chart, prefix: str) -> Iterator[str]:
    _, prompt, token, _, _, _, state = row
    width = _word_width(row)
    if prompt == "second":
        served = "engine" if token < chart["reused"]["engine"] else "computed"
        yield _rect(left, top + BAND_HEIGHT, (width, 5), served)
        if state == "equal" and token >= chart["shared"]:
            yield _text(left + width / 2, top + BAND_HEIGHT + 18, "=", "middle", "strong")
    yield _rect(left, top, (width, BAND_HEIGHT), state, prefix)
    yield _text(left + width / 2, top + 18, _shown(row[5]), "middle", "word halo")


def _shown(text: str) -> str:
    """Print a token's text: its spaces seen, nothing that cannot be printed, at most some characters.

    >>> _shown(" more "), _shown("x" * 40)
    ('·more·', 'xxxxxxxxxxxxxxx…')
    """
    plain = "".join(c if c.isprintable() else "�" for c in text.translate(SHOWN_SPACES))
    return plain if len(plain) <= WORD_CHARACTERS else plain[: WORD_CHARACTERS - 1] + "…"


def _word_width(row: Row) -> float:
    return CHARACTER * max(1, len(_shown(row[5]))) + 10


def _rows(chart: Chart, shown_as: str, prompt: str) -> list[Row]:
    return [row for row in chart["rows"] if row[0] == shown_as and row[1] == prompt]


def _wider_side(left: float, right: float, parting: float) -> tuple[float, float]:
    """Return the part of a box on one side of the parting, so that the line crosses no words.

    >>> _wider_side(0, 100, 30), _wider_side(0, 100, 150)
    ((30, 100), (0, 100))
    """
    if not left < parting < right:
        return left, right
    return (left, parting) if parting - left > right - parting else (parting, right)


def _inside(box: tuple[float, float], y: float, words: str, style: str) -> Iterator[str]:
    """Yield a text in the middle of a box if it fits."""
    character = BOLD_CHARACTER if style == "on" else SANS_CHARACTER
    if len(words) * character + 8 <= box[1] - box[0]:
        yield _text(sum(box) / 2, y, words, "middle", style)


def _label(y: float, words: str, more: str) -> str:
    second = _text(LABELS, y + 14, more, "start", "soft") if more else ""
    return _text(LABELS, y + (0 if more else 6), words, "start", "") + second


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def _rect(x: float, y: float, size: tuple[float, float], style: str, prefix: str = "") -> str:
    width, height = size
    fill = f' fill="url(#{prefix}-hatch)"' if style == "differs" else ""
    extent = f'width="{max(width, 0.5):.1f}" height="{height}"'
    return f'<rect x="{x:.1f}" y="{y}" {extent} class="{style}"{fill}/>'


def _line(x: float, top: float, bottom: float, style: str) -> str:
    return f'<path d="M{x:.1f} {top}V{bottom}" class="{style}"/>'


def _hatching(prefix: str) -> Iterator[str]:
    yield (
        f'<defs><pattern id="{prefix}-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path d="M0 0V6" class="hatch"/></pattern></defs>'
    )
