"""Which lessons did a run leave undecided? Prints them for pytest's -k; fails where anything failed.

``python .ci/undecided.py reports``, after a run that did not end well.
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree


def undecided(folder: Path) -> str:
    """Return the undecided lessons of a run whose only fault they are.

    Raises:
        SystemExit: something else failed, or there is no run.
    """
    try:
        suites = ElementTree.parse(folder / "junit.xml").getroot().iter("testsuite")
        lessons = json.loads((folder / "results.json").read_text())["lessons"]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise SystemExit(f"no whole run in {folder}: {error}") from None
    wrong = sum(int(suite.get(kind, 0)) for suite in suites for kind in ("failures", "errors"))
    found = [lesson["id"] for lesson in lessons if lesson["outcome"] == "undecided"]
    if wrong or not found:
        raise SystemExit(f"{wrong} tests failed, and {len(found)} lessons are undecided")
    return " or ".join(found)


if __name__ == "__main__":
    print(undecided(Path(sys.argv[1])))
