"""Which packages a distribution brought, written down where Python looks for it first.

``python -m lmcache_tutorial.machine.top_level``, in set-up, for the environment that runs it. transformers
and google.api_core each ask ``importlib.metadata.packages_distributions`` when they are imported. Half of the
wheels do not say what they hold (``top_level.txt``): of those Python looks at each file, 33,000 in this lock,
in every process of every server that starts. On two cores an engine started in 27 s instead of 32.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

NAME = "top_level.txt"


def write_top_levels(site: Path) -> int:
    """Write down what Python infers from the files of each distribution that does not say it.

    The new file is added to the distribution's list of files, so that pip removes it with the rest.

    Args:
        site: the folder that packages are installed into.

    Returns:
        How many distributions did not say it.
    """
    written = 0
    for distribution in metadata.distributions(path=[str(site)]):
        files = distribution.files or []
        record = next((file for file in files if file.name == "RECORD" and len(file.parts) == 2), None)
        if record is None or distribution.read_text(NAME):
            continue
        code = [file for file in files if file.suffix == ".py"]
        names = {file.parts[0] if len(file.parts) > 1 else file.stem for file in code}
        if not names:
            continue
        folder = Path(str(record.locate())).parent
        (folder / NAME).write_text("".join(f"{name}\n" for name in sorted(names)))
        with (folder / record.name).open("a") as listed:
            listed.write(f"{folder.name}/{NAME},,\n")
        written += 1
    return written


if __name__ == "__main__":
    import sysconfig

    write_top_levels(Path(sysconfig.get_path("purelib")))
