"""LMCache's request spans, sent by OpenTelemetry's own exporter as LMCache sends them."""

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from lmcache_tutorial.quantities.records import LookedUp
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.traces.look_ups import LookUps

FOUND = {"hit_tokens": 960, "l1_hit_tokens": 320, "l2_hit_tokens": 640, "hit_rate": 0.9}


@pytest.fixture
def listening():
    """Who listens, and a function that exports a span to it."""
    address = f"127.0.0.1:{free_port()}"
    look_ups, provider = LookUps(address), TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"http://{address}", insecure=True, timeout=10)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def export(name, **attributes):
        provider.get_tracer("lmcache_mp.server").start_span(name, attributes=attributes).end()

    yield look_ups, export, address
    provider.shutdown()
    look_ups.close()


def test_what_was_found_is_kept_by_the_answers_id(listening):
    look_ups, export, _ = listening
    export("request", session_id="chatcmpl-1-5f0c11aa", **FOUND)
    export("request", session_id="chatcmpl-2-0c11aa5f", **(FOUND | {"hit_tokens": 0, "l1_hit_tokens": 0}))
    assert look_ups.of("chatcmpl-1", 10) == LookedUp(960, 320, 640)
    assert look_ups.of("chatcmpl-2", 10) == LookedUp(0, 0, 640)


def test_a_span_that_tells_no_hits_and_one_that_is_no_requests_are_left_out(listening):
    look_ups, export, _ = listening
    export("mp.store", session_id="chatcmpl-1-5f0c11aa", **FOUND)
    export("request", session_id="chatcmpl-1-5f0c11aa")
    export("request", session_id="chatcmpl-2-0c11aa5f", **FOUND)
    assert look_ups.of("chatcmpl-2", 10)
    assert look_ups.of("chatcmpl-1", 0) is look_ups.of("", 0) is None


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no such host:1"])
def test_where_nothing_can_listen_is_told(address):
    with pytest.raises(ConfigError) as caught:
        LookUps(address)
    assert "nothing can listen there" in caught.value.words(lambda name, *_: name)


def test_two_runs_do_not_listen_at_one_port(listening):
    with pytest.raises(ConfigError, match="nothing can listen there"):
        LookUps(listening[2])


def test_the_port_is_free_again_when_it_is_closed(listening):
    look_ups, _, address = listening
    look_ups.close()
    LookUps(address).close()
