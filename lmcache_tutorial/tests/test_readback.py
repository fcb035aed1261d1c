"""What was recorded is compared with what Langfuse shows; with a stand-in for its API."""

import json
import time

import httpx
import pytest

from lmcache_tutorial.plugin.sending import check_langfuse
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.tests.test_sender import document
from lmcache_tutorial.traces import readback
from lmcache_tutorial.traces.readback import differences, recorded


class Langfuse(httpx.BaseTransport):
    """Shows traces after they were asked for a few times; some it never shows, or only a part of them."""

    def __init__(self, shown, after=0):
        self.shown, self.after, self.asked = shown, after, 0

    def handle_request(self, request):
        self.asked += 1
        name = request.url.path.rsplit("/", 1)[1]
        if self.asked <= self.after or name not in self.shown:
            return httpx.Response(404, json={})
        return httpx.Response(
            200, json={"id": name, "observations": [{"id": one} for one in self.shown[name]]}
        )


@pytest.fixture
def wanted(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(document(number)) + "\n" for number in (1, 2)))
    return recorded(path)


def client(*arguments):
    return httpx.Client(base_url="http://langfuse", transport=Langfuse(*arguments))


def test_what_is_there_is_no_difference(wanted):
    assert {name: len(spans) for name, spans in wanted.items()} == {f"{1:032x}": 1, f"{2:032x}": 1}
    assert differences(client(wanted), wanted, 1) == []


def test_what_becomes_visible_later_is_waited_for(wanted, monkeypatch):
    monkeypatch.setattr(readback, "PAUSE_S", 0.01)
    assert differences(client(wanted, 5), wanted, 5) == []


def test_a_server_that_is_silent_takes_the_limit_once_and_not_for_each_trace():
    class Silent(httpx.BaseTransport):
        def handle_request(self, request):
            time.sleep(min(5, request.extensions["timeout"]["read"]))
            raise httpx.ReadTimeout("silent", request=request)

    many = {f"{number:032x}": frozenset("a") for number in range(20)}
    began = time.monotonic()
    missing = differences(httpx.Client(base_url="http://langfuse", transport=Silent()), many, 0.4)
    assert time.monotonic() - began < 2
    assert missing == [f"trace {name} is not there" for name in many]


def test_what_is_missing_is_said_within_the_limit(wanted, monkeypatch):
    monkeypatch.setattr(readback, "PAUSE_S", 0.05)
    one, other = wanted
    began = time.monotonic()
    missing = differences(client({one: ["another"]}), wanted, 0.3)
    assert time.monotonic() - began < 1
    assert missing == [f"trace {one} has 0 of its 1 observations", f"trace {other} is not there"]


def test_a_server_must_be_named(monkeypatch):
    for name in ("LANGFUSE_BASE_URL", "LANGFUSE_HOST", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    check_langfuse(RunOptions())
    with pytest.raises(pytest.UsageError, match="LANGFUSE_BASE_URL and LANGFUSE_PUBLIC_KEY"):
        check_langfuse(RunOptions(langfuse=True))
    with pytest.raises(pytest.UsageError, match="--kv-langfuse too"):
        check_langfuse(RunOptions(require_langfuse=True))
