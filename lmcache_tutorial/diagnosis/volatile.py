"""Text that changes from request to request: times and identifiers, told from versions and names."""

from __future__ import annotations

import re
from collections.abc import Iterator

WINDOW = 64  # characters on each side of a difference that are looked at
MONTHS = (
    "Jan(?:uary|uar|vier|uari)?|Feb(?:ruary|ruar|ruari)?|Mar(?:ch|s|zo|et)?|Apr(?:il|ile)?|May|Mai|Mei|"
    "June?|Juni|July?|Juli|Aug(?:ust|ustus)?|Sept?(?:ember)?|Oct(?:ober)?|Okt(?:ober)?|Nov(?:ember)?|"
    "Dec(?:ember)?|Dez(?:ember)?|M[aä]rz|M[aä]r|Maart|"
    "f[eé]vrier|avril|juin|juillet|ao[uû]t|septembre|octobre|novembre|d[eé]cembre|"
    "enero|febrero|abril|mayo|junio|julio|agosto|sep?tiembre|octubre|noviembre|diciembre|"
    "gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|"
    "janeiro|fevereiro|mar[cç]o|maio|junho|julho|setembro|outubro|novembro|dezembro"
)
DAYS = (
    "Mon(?:day)?|Tue(?:s(?:day)?)?|Wed(?:nesday)?|Thu(?:r?s(?:day)?)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?|"
    "Montag|Dienstag|Mittwoch|Donnerstag|Freitag|Samstag|Sonntag|"
    "lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche|"
    "lunes|martes|mi[eé]rcoles|jueves|viernes|s[aá]bado|domingo"
)
_MONTH, _DAY, _YEAR = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])", r"(?:19|20)\d{2}"
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
# A date that a model's or a package's name ends in is none.
DATE = re.compile(
    rf"(?<![\w.])(?<!\w-){_YEAR}(?P<s>[-/.]){_MONTH}(?P=s){_DAY}(?:[T ,]*{_CLOCK}{_ZONE})?(?!\d|[.-]\d)"
    rf"|(?<![\w.]){_DAY}(?P<t>[-/.]){_DAY}(?P=t){_YEAR}(?!\d|[.-]\d)"
    rf"|(?<![\w./-]){_DAY}/{_DAY}/\d{{2}}(?![\d/])"
    rf"|(?<!\w)(?<!\w-){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:T\d{{4,6}}Z?)?(?!\w)"
    rf"|{_YEAR} ?[年년] ?{_MONTH} ?[月월](?: ?{_DAY} ?[日일])?"
    rf"|(?i:(?<!\w)(?:(?:{DAYS})\.?,? +)?(?:{MONTHS})\.? +{_DAY}(?:st|nd|rd|th)?(?:,? +{_YEAR})?(?!\w))"
    rf"|(?i:(?<!\w)(?:(?:{DAYS})\.?,? +)?{_DAY}(?:st|nd|rd|th|er)?\.?(?: +de)?[ -]+(?:{MONTHS})\.?"
    rf"(?:(?: +de)?,?[ -]+{_YEAR})?(?!\w))"
    rf"|(?i:(?<!\w)(?:{DAYS})(?!\w))"
)
CLOCK = re.compile(rf"(?<![\w:.]){_CLOCK}(?P<half> ?[AaPp]\.?[Mm]\.?)?(?![:.]?\d)")
# Digits with a colon that are no time of day.
RATIO = re.compile(r"(?:ratio|aspect|scale|score|odds|mix|verse|port|version|v|psalm)\W{0,3}$", re.I)
# A single digit before the colon is a time only beside a word that says so.
TIME_WORD = re.compile(
    r"\b(?:now|time|clock|at|is|today|date|until|since|um|uhr|heure|hora)\b|[0-9]{1,2}(?:st|nd|rd|th)?,? *$",
    re.I,
)
# Seconds since 1970, or milli-, micro- and nanoseconds.
EPOCH = re.compile(r"(?<![\w.])1[5-9]\d{8}(?:(?:\d{3}){1,3}|\.\d+)?(?!\w)")
VERSION = re.compile(r"(?:\bv|version|release|build|rev|python|cuda)[ :=#-]*$", re.I)

WORD = re.compile(r"[0-9A-Za-z_-]+")
NAMED = re.compile(
    r"(?:^|[^A-Za-z])(?:id|uid|uuid|session|request|req|trace|run|ticket|conversation|user|order|nonce|hash|thread|"
    r"correlation|invocation|job|task|seed|token|chk|cch)[ #:=\"'_-]{0,4}$",
    re.I,
)
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.I)


def is_time(first: str, second: str, at: int) -> bool:
    """Tell whether two texts part within a date or a time of day.

    >>> is_time("It is 10:01.", "It is 10:02.", 10), is_time("Server 10.0.0.1", "Server 10.0.0.2", 14)
    (True, False)
    """
    one, other = set(_times_at(first, at)), set(_times_at(second, at))
    return bool(one and other) and one != other


def is_identifier(first: str, second: str, at: int) -> bool:
    """Tell whether two texts part within a random name or a number that only identifies.

    >>> is_identifier("Request 8f3a1c", "Request 77b01d", 8), is_identifier("use gpt-4", "use gpt-5", 8)
    (True, False)
    """
    one, other = _word_at(first, at), _word_at(second, at)
    if not one[0] or not other[0] or one[0] == other[0]:
        return False
    named = bool(NAMED.search(one[1])) and bool(NAMED.search(other[1]))
    random_one, random_other = _random(one[0]), _random(other[0])
    if named and _has_digit(one[0]) and _has_digit(other[0]):
        return True
    if random_one and random_other:
        return True
    # Of two random names of one length, one may look like a word or a number by chance.
    return (random_one or random_other) and len(one[0]) == len(other[0]) and len(one[0]) >= 5


def _times_at(text: str, at: int) -> Iterator[str]:
    """Yield the dates and times of day that a place lies in or ends."""
    start = max(0, at - WINDOW)
    piece = text[start : at + WINDOW]
    for pattern in (DATE, CLOCK, EPOCH):
        for match in pattern.finditer(piece):
            if not match.start() + start <= at <= match.end() + start:
                continue
            before = piece[: match.start()]
            if VERSION.search(before) or (pattern is CLOCK and not _is_clock(match, before)):
                continue
            yield match[0]


def _is_clock(match: re.Match[str], before: str) -> bool:
    if RATIO.search(before):
        return False
    return match[0][1] != ":" or bool(match["half"]) or bool(TIME_WORD.search(before[-24:]))


def _word_at(text: str, at: int) -> tuple[str, str]:
    """Return the word that a place lies in or ends, and the text before it."""
    start = max(0, at - WINDOW)
    for match in WORD.finditer(text[start : at + WINDOW]):
        if match.start() + start <= at <= match.end() + start:
            if match.end() + start == at and WORD.match(text, at):
                continue
            return match[0], text[max(0, start + match.start() - WINDOW) : start + match.start()]
    return "", ""


def _has_digit(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def _random(word: str) -> bool:
    """Tell whether a word looks drawn: no model's name, version or count of a few digits does."""
    if UUID.fullmatch(word):
        return True
    if re.fullmatch(r"\d{5,}|[A-Za-z]{1,6}[_-]?\d{5,}", word):
        return True
    return _has_digit(word) and any(_random_part(part) for part in re.split(r"[_-]", word))


def _random_part(part: str) -> bool:
    digits = len(re.findall(r"\d+", part))
    letters = len(re.findall(r"[A-Za-z]+", part))
    if digits == 0 or letters == 0:
        return False
    if re.fullmatch(r"[0-9a-f]{4,}|[0-9A-F]{4,}", part) and (len(part) >= 5 or digits >= 2):
        return digits >= 2 or letters >= 2 or len(part) >= 6
    if len(part) >= 8 and digits >= 2:
        return True
    cases = part != part.lower() and part != part.upper() and not part.istitle()
    return len(part) >= 8 and cases and letters >= 2
