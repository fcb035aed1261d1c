"""A second receiver that others wrote takes our traces: Arize Phoenix, in an environment of its own.

On request alone, for installing it takes minutes: `pytest lmcache_tutorial -m phoenix`.
"""

import json
import os
import subprocess
import time
import venv

import httpx
import pytest

from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.tests.test_record import graph
from lmcache_tutorial.tests.test_wheel import NOT_REACHED, clean_environment, install
from lmcache_tutorial.traces.ledger import Ledger
from lmcache_tutorial.traces.otlp import walk_spans
from lmcache_tutorial.traces.record import Traces
from lmcache_tutorial.traces.sender import Receiver, send

pytestmark = [pytest.mark.phoenix, pytest.mark.xdist_group("phoenix")]
PHOENIX = "arize-phoenix==20.26.0"
READY_LIMIT_S, STOP_LIMIT_S, TAKEN_LIMIT_S = 180, 15, 60
CLOCK_NS = 2_000  # it keeps microseconds
FIGURES = (
    "langfuse.observation.type",
    "langfuse.observation.usage_details",
    "langfuse.observation.completion_start_time",
)
TIMES = {"start_time_unix_nano": "startTimeUnixNano", "end_time_unix_nano": "endTimeUnixNano"}
TURNS = 3


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment that has Phoenix."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    done = install(folder / "bin" / "python", PHOENIX)
    if NOT_REACHED in done.stdout and not os.environ.get("CI"):
        pytest.skip("the package index cannot be reached, so Phoenix cannot be installed")
    assert done.returncode == 0, done.stdout
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def phoenix(python, tmp_path_factory):
    """The address of a Phoenix that runs: its HTTP side on loopback, its data in a temporary folder."""
    folder, port = tmp_path_factory.mktemp("phoenix"), free_port()
    settings = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [python, "-m", "phoenix.server.main", "serve"],
            env=clean_environment() | settings,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: server.poll() is not None or answers(url), READY_LIMIT_S)
        assert server.poll() is None, log.read_text()
        assert answers(url), log.read_text()
        yield url
    finally:
        server.terminate()
        try:
            server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(STOP_LIMIT_S)


def answers(url):
    try:
        return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def wait_until(holds, limit_s):
    deadline = time.monotonic() + limit_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.2)


def kept(url):
    """Return the spans that it has; a project that nothing was sent to is not there yet."""
    page = httpx.get(f"{url}/v1/projects/default/spans/otlpv1?limit=1000", timeout=10, trust_env=False)
    return page.json()["data"] if page.is_success else []


def spool(folder, run_id):
    """A file of traces, as Langfuse's SDK records runs that tell usage and runs that are streamed."""
    traces, asked = Traces(folder, run_id), {"text": "Where?"}
    for _ in range(TURNS):
        _, handler = traces.handler()
        graph().invoke(asked, config={"callbacks": [handler]})
        _, handler = traces.handler()
        list(graph().stream(asked, config={"callbacks": [handler]}, stream_mode="messages"))
    traces.close()
    return traces.path


def recorded(path):
    documents = map(json.loads, path.read_text().splitlines())
    return {span["spanId"]: span for document in documents for span in walk_spans(document)}


def sent(path, url):
    """Send a file, and wait until all of it can be read back."""
    receiver = Receiver.at(f"{url}/v1/traces")
    with receiver.client:
        done = send([path], receiver, 30)
    assert (done.left, done.trouble, done.refused) == (0, "", ())
    wait_until(lambda: recorded(path).keys() <= {one["span_id"] for one in kept(url)}, TAKEN_LIMIT_S)


def figures(attributes, text):
    """Return the attributes that TTFT and hit rate are read from; ``text`` names the field of a text."""
    values = {one["key"]: one["value"].get(text) for one in attributes}
    return {name: values[name] for name in FIGURES if name in values}


def test_every_span_can_be_read_back_as_it_was_recorded_and_is_there_once(phoenix, tmp_path):
    path, later = spool(tmp_path, "run"), spool(tmp_path, "later")
    ours = recorded(path)
    assert len(ours) == 2 * 3 * TURNS  # each time the graph, its node, and the call
    sent(path, phoenix)
    Ledger(path).path.unlink()  # so that all is sent once more
    sent(path, phoenix)
    sent(later, phoenix)  # what is read back now was taken after the second time
    found = [one for one in kept(phoenix) if one["span_id"] not in recorded(later)]
    assert len(found) == len(ours)
    for one in found:
        span = ours[one["span_id"]]
        assert (one["trace_id"], one["name"]) == (span["traceId"], span["name"])
        assert (one["parent_span_id"] or "") == span.get("parentSpanId", "")
        for their_name, name in TIMES.items():
            assert abs(int(one[their_name]) - int(span[name])) <= CLOCK_NS
        assert figures(one["attributes"], "string_value") == figures(span["attributes"], "stringValue")
    named = [name for span in ours.values() for name in figures(span["attributes"], "stringValue")]
    assert [named.count(name) for name in FIGURES] == [len(ours), TURNS, TURNS]  # what was compared was there
