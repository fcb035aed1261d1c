"""Options that cannot work, and secrets that must not leak."""

import math
from pathlib import Path

import pytest

from lmcache_tutorial.settings.bars import percent
from lmcache_tutorial.settings.environment import server_environment, without_tracing_variables
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.paths import writable_folder
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.secrets import redact


@pytest.mark.parametrize("value", [-1, 100, 101, 0.9, math.nan, math.inf])
def test_a_bar_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match="--min-hit-rate is"):
        percent("min_hit_rate", value)


def test_a_fraction_by_mistake_gets_a_hint():
    with pytest.raises(ConfigError, match="Did you mean 90"):
        percent("min_hit_rate", 0.9)


@pytest.mark.parametrize("value", [0, 1, 99.9])
def test_a_bar_within_range_is_taken(value):
    assert percent("min_hit_rate", value) == value


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stack": "tpu"}, "one of auto, cpu, gpu"),
        ({"chunk_tokens": 100}, "multiple of the engine's block of 32 tokens.\nTo fix: --chunk-tokens=96"),
        ({"chunk_tokens": 0}, "--chunk-tokens=32"),
        ({"engine_memory_gib": 0.0}, "--engine-memory-gib is 0"),
        ({"model": "no/such/model"}, "neither a model folder nor a hub name"),
        ({"peers": "tuning"}, "settings of a GPU's stack"),
        (
            {"peers": "peers", "lmcache_memory_gib": 4.0},
            "leave --engine-memory-gib and --lmcache-memory-gib out",
        ),
        ({"model": "./missing"}, "neither a model folder nor a hub name"),
        ({"model": "~nobody-of-that-name/model"}, "no user of that name has a home here"),
        ({"report_dir": Path("~nobody-of-that-name/reports")}, "no user of that name has a home here"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(options, reason):
    with pytest.raises(ConfigError) as error:
        run_config(RunOptions(**{"stack": "cpu", **options}))
    assert reason in str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"it lacks tokenizer\.json"):
        run_config(RunOptions(stack="cpu", model=str(tmp_path)))


def test_a_report_folder_that_cannot_be_written_is_refused(tmp_path):
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        writable_folder(blocker / "reports")


SECRET_NAMES = [
    "LANGFUSE_SECRET_KEY",
    "LANGFUSE_HOST",
    "OPENAI_API_KEY",
    "OPENAI_KEY",
    "OPENAIKEY",
    "ANTHROPIC_API_KEY_2",
    "HF_TOKEN",
    "DB_PASSWORD",
    "PGPASSWORD",
    "MYSQL_PWD",
    "DB_PASS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "SSH_PRIVATE_KEY",
    "SSH_AUTH_SOCK",
    "GITHUB_PAT",
    "GITHUB_TOKEN",
    "GITHUBTOKEN",
    "NPM_AUTH",
    "SENTRY_DSN",
    "SLACK_WEBHOOK_URL",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "VLLM_API_KEY",
    "LMCACHE_RESP_PASSWORD",
    "ALL_TOKENS",
    "my_token",
]
SECRET_VALUES = (
    "postgresql://me:hunter22@db.example/lessons",
    "redis://:hunter22@127.0.0.1:6379/0",
    "https://0123456789abcdef@errors.example/1",
    "https://files.example/x?sig=0123456789abcdef",
    "AccountName=me;AccountKey=0123456789abcdef==",
    "host=db password=hunter22",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "sk-proj-0123456789abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
)
NEEDED = {
    "VLLM_USE_FASTOKENS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_MULTI_STREAM_GEMM_TOKEN_THRESHOLD": "1024",
    "VLLM_MAX_BAD_WORDS_TOTAL_TOKENS": "4096",
    "VLLM_PATTERN_MATCH_DEBUG": "x",
    "CUDA_VISIBLE_DEVICES": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "LD_LIBRARY_PATH": "/usr/local/cuda/lib64:/opt/lib",
    "PATH": "/usr/local/bin:/usr/bin",
    "PWD": "/home/me/work",
    "PYTHONPATH": "/home/me/work",
    "HF_HOME": "/home/me/.cache/huggingface",
    "HF_ENDPOINT": "https://hub.example:8443/mirror",
    "LS_COLORS": "rs=0:di=01;34:*.tar=01;31:*.key=00",
}


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_is_known_by_its_name(name, monkeypatch):
    monkeypatch.setenv(name, "hidden-value")
    assert "hidden-value" not in server_environment(PROFILES["cpu"].stack).values()
    assert redact("it is hidden-value.") == f"it is [{name}]."


@pytest.mark.parametrize("value", SECRET_VALUES)
def test_a_secret_is_known_by_its_value(value, monkeypatch):
    monkeypatch.setenv("SOMETHING", value)
    assert "SOMETHING" not in server_environment(PROFILES["cpu"].stack)
    assert redact(f"it is {value}.") == "it is [SOMETHING]."


@pytest.mark.parametrize("name", NEEDED)
def test_what_servers_need_reaches_them(name, monkeypatch):
    monkeypatch.setenv(name, NEEDED[name])
    assert server_environment(PROFILES["cpu"].stack)[name] == NEEDED[name]


def test_servers_are_told_to_stay_offline_and_to_report_nothing():
    environment = server_environment(PROFILES["cpu"].stack)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["LMCACHE_TRACK_USAGE"] == "false"


def test_servers_do_not_compile_what_they_import_at_each_start(monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert not server_environment(PROFILES["cpu"].stack)["PYTHONDONTWRITEBYTECODE"]


def test_a_message_is_redacted(monkeypatch):
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-very-secret")
    assert redact("failed with sk-lf-very-secret in it") == "failed with [LANGFUSE_SECRET_KEY] in it"


def test_a_message_is_redacted_of_parts_and_of_what_xml_makes_of_a_secret(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter22@db/x?a=1&b=2")
    monkeypatch.setenv("DEPLOY_KEY", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n")
    assert redact("no hunter22 here") == "no [DATABASE_URL] here"
    assert redact("<p>postgresql://me:hunter22@db/x?a=1&amp;b=2</p>") == "<p>[DATABASE_URL]</p>"
    assert "MIIEvQIBADANBgkqhkiG9w0" not in redact("line 2 is MIIEvQIBADANBgkqhkiG9w0")


def test_tracing_variables_come_back(monkeypatch):
    import os

    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk")
    with without_tracing_variables():
        assert "LANGFUSE_PUBLIC_KEY" not in os.environ
    assert os.environ["LANGFUSE_PUBLIC_KEY"] == "pk"
