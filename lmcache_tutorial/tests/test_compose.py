"""The compose file of a Langfuse to try: read, not run; there are no containers here."""

from pathlib import Path

import yaml

EXAMPLES = Path(__file__).parent / "examples"
COMPOSE = yaml.safe_load((EXAMPLES / "langfuse" / "compose.yaml").read_text())
README = (Path(__file__).parents[2] / "README.md").read_text()


def test_images_are_named_without_a_host():
    for service in COMPOSE["services"].values():
        first, *_ = service["image"].split("/")
        assert "." not in first
        assert service["image"].count("/") <= 1
        assert ":" in service["image"]


def test_nothing_but_this_machine_reaches_it():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:3000:3000"]


def test_what_langfuse_waits_for_is_a_service_that_tells_when_it_is_well():
    for name in ("web", "worker"):
        for store, when in COMPOSE["services"][name]["depends_on"].items():
            assert when == {"condition": "service_healthy"}
            assert COMPOSE["services"][store]["healthcheck"]["test"]


def test_up_waits_for_langfuse_itself():
    assert "/api/public/health" in COMPOSE["services"]["web"]["healthcheck"]["test"][1]
    assert COMPOSE["services"]["web"]["healthcheck"]["interval"] == "5s"


def test_the_readme_has_the_keys_of_its_project():
    settings = COMPOSE["services"]["web"]["environment"]
    assert f"LANGFUSE_PUBLIC_KEY={settings['LANGFUSE_INIT_PROJECT_PUBLIC_KEY']}" in README
    assert f"LANGFUSE_SECRET_KEY={settings['LANGFUSE_INIT_PROJECT_SECRET_KEY']}" in README
