"""Listening to publishers that are as vLLM's, on ports of loopback."""

import threading
import time
from dataclasses import dataclass

import pytest
import zmq

from lmcache_tutorial.servers.kv_events import LMCACHE, KVEventsError
from lmcache_tutorial.servers.listener import listen
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.servers.vllm import _publisher
from lmcache_tutorial.tests.test_kv_events import BlockRemoved, BlockStored, frames

PROMPT = [1, 2, 3, 4, 5]


@dataclass
class Engine:
    """A publisher that is bound where an engine would be told to bind its own."""

    name: str
    events_endpoint: str | None
    told: str
    socket: zmq.Socket[bytes]
    sequence: int = 0

    def publish(self, *events):
        self.socket.send_multipart(frames(*events, sequence=self.sequence))
        self.sequence += 1

    def restart(self, context):
        self.socket.close(linger=0)
        self.sequence = 0
        self.socket = context.socket(zmq.PUB)
        deadline = time.monotonic() + 5
        while True:
            try:
                self.socket.bind(self.told)
            except zmq.ZMQError:  # the closed socket lets go of its port a moment later
                assert time.monotonic() < deadline
                time.sleep(0.01)
            else:
                return


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def engines(context):
    """Two publishers."""

    def engine(name):
        port, socket = free_port(), context.socket(zmq.PUB)
        told = _publisher(port)["endpoint"]
        socket.bind(told)
        return Engine(name, f"tcp://127.0.0.1:{port}", told, socket)

    return [engine("vllm"), engine("vllm-2")]


def stored(*hashes, parent=None, tokens=(1, 2, 3, 4), medium="GPU"):
    size = len(tokens) // len(hashes)
    return BlockStored(list(hashes), parent, list(tokens), size, None, medium, None)


def test_each_engines_blocks_of_a_prompt_are_heard(engines):
    first, second = engines
    with listen(engines) as heard:
        first.publish(stored(1, 2), stored(9, medium=LMCACHE))
        second.publish(stored(1, tokens=(1, 2)))
        first.publish(BlockRemoved([2], "GPU"))
        first.publish(stored(2, parent=1, tokens=(3, 4)))
        heard.settle()
        assert heard.tokens(PROMPT) == {"vllm": 4, "vllm-2": 2}
        assert heard.tokens(PROMPT, LMCACHE) == {"vllm": 4, "vllm-2": 0}
        assert [block.hash for block in heard.blocks(PROMPT)["vllm"]] == [1, 2]
        assert heard.hashes() == {"vllm": {1, 2}, "vllm-2": {1}}
    assert "kv-events" not in [thread.name for thread in threading.enumerate()]


def test_an_engine_binds_loopback_alone_and_several_may_listen(engines):
    bound = engines[0].socket.getsockopt_string(zmq.LAST_ENDPOINT)
    assert bound == engines[0].events_endpoint
    with listen(engines[:1]) as one, listen(engines[:1]) as other:
        engines[0].publish(stored(1, 2))
        one.settle()
        other.settle()
        assert one.tokens(PROMPT) == other.tokens(PROMPT) == {"vllm": 4}


def test_a_restarted_engine_is_heard_again_and_has_forgotten(engines, context):
    with listen(engines) as heard:
        for engine in engines:
            engine.publish(stored(1, 2))
        heard.settle()
        engines[0].restart(context)
        deadline = time.monotonic() + 5
        while heard.restarts["vllm"] == 0:  # until the listener is back, a message goes to nobody
            engines[0].sequence = 0
            engines[0].publish()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        heard.settle()
        assert heard.tokens(PROMPT) == {"vllm": 0, "vllm-2": 4}


def test_what_was_missed_or_cannot_be_read_is_told_when_it_settles(engines):
    first, second = engines
    with listen([first]) as heard:
        first.publish(stored(1, 2), ["BlockMoved"])
        heard.settle()
        assert heard.unknown == {"vllm": {"BlockMoved": 1}}
        first.sequence += 2
        first.publish()
        with pytest.raises(KVEventsError, match=r"vllm's KV events 1 to 2 were missed"):
            heard.settle()
    with listen([second]) as heard:
        second.socket.send_multipart((b"", b"", b""))
        with pytest.raises(KVEventsError, match="could not be read"):
            heard.settle()


def test_events_that_never_cease_are_one_error(engines):
    with listen(engines) as heard:
        stop = threading.Event()

        def publish():
            while not stop.wait(0.01):
                engines[0].publish()

        thread = threading.Thread(target=publish)
        thread.start()
        with pytest.raises(KVEventsError, match=r"still came in after 0\.3 s"):
            heard.settle(limit_s=0.3)
        stop.set()
        thread.join()


def test_an_engine_that_is_not_there_or_publishes_nothing_is_one_error(engines):
    engines[1].events_endpoint = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(KVEventsError, match=r"vllm-2 was not heard within 0\.2 s"), listen(engines, 0.2):
        pass
    engines[1].events_endpoint = None
    with pytest.raises(KVEventsError, match="vllm-2 publishes no KV events"), listen(engines):
        pass
