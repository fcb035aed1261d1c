"""Options that cannot work, and secrets that must not leak."""

import math

import pytest

from lmcache_tutorial.config import (
    PROFILES,
    ConfigError,
    percent,
    redact,
    run_config,
    server_environment,
    without_tracing_variables,
    writable_folder,
)


@pytest.mark.parametrize("value", [-1, 100, 101, 0.9, math.nan, math.inf])
def test_a_bar_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match="--min-hit-rate is"):
        percent("--min-hit-rate", value)


def test_a_fraction_by_mistake_gets_a_hint():
    with pytest.raises(ConfigError, match="Did you mean 90"):
        percent("--min-hit-rate", 0.9)


@pytest.mark.parametrize("value", [0, 1, 99.9])
def test_a_bar_within_range_is_taken(value):
    assert percent("--min-hit-rate", value) == value


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stack": "tpu"}, "one of auto, cpu, gpu"),
        ({"chunk_tokens": 100}, "multiple of the engine's block of 32 tokens.\nTo fix: --chunk-tokens=96"),
        ({"chunk_tokens": 0}, "--chunk-tokens=32"),
        ({"engine_memory_gib": 0.0}, "--engine-memory-gib is 0"),
        ({"model": "no/such/model"}, "neither a model folder nor a hub name"),
        ({"peers": "tuning"}, "settings of a GPU's stack"),
        ({"model": "./missing"}, "neither a model folder nor a hub name"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options, reason):
    with pytest.raises(ConfigError) as error:
        run_config(**{"stack": "cpu", **options})
    assert reason in str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"it lacks tokenizer\.json"):
        run_config(stack="cpu", model=str(tmp_path))


def test_a_report_folder_that_cannot_be_written_is_refused(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        writable_folder(blocker / "reports")


def test_servers_get_no_secret(monkeypatch):
    for name in ("LANGFUSE_SECRET_KEY", "OPENAI_API_KEY", "HF_TOKEN", "DB_PASSWORD"):
        monkeypatch.setenv(name, "hidden-value")
    environment = server_environment(PROFILES["cpu"].stack)
    assert "hidden-value" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["LMCACHE_TRACK_USAGE"] == "false"


def test_a_message_is_redacted(monkeypatch):
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-very-secret")
    assert redact("failed with sk-lf-very-secret in it") == "failed with [LANGFUSE_SECRET_KEY] in it"


def test_tracing_variables_come_back(monkeypatch):
    import os

    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk")
    with without_tracing_variables():
        assert "LANGFUSE_PUBLIC_KEY" not in os.environ
    assert os.environ["LANGFUSE_PUBLIC_KEY"] == "pk"
