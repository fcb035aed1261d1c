"""Do the pinned packages still fit the command lines, and each other? No GPU, no CUDA and no server needed.

python .ci/pins.py [FOLDER]: every profile's command lines, and those of every peer, go through the pinned
vLLM's, LMCache's and vllm-router's own argument parsers: the installed ones for the CPU; for the GPU those
of the wheels that the extra `gpu` pins, which are fetched into FOLDER (a temporary one by default) and
unpacked without their compiled parts. Then the extra must resolve for Python 3.12 on Linux x86-64.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from lmcache_tutorial.models.model import CHAT_TEMPLATE, Model
from lmcache_tutorial.peers.catalogue import PEERS, TUNING
from lmcache_tutorial.servers import vllm_router
from lmcache_tutorial.servers.lmcache import CachePlan, cache_command
from lmcache_tutorial.servers.vllm import Plan, engine_command
from lmcache_tutorial.servers.vllm_router import router_command
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import Policy, RouterConfig

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34, 35)]
GPU_PYTHON = "3.12"
RESOLVED_FOR = "x86_64-manylinux_2_31"
# In a process of its own: the parsers import half of their package. vLLM's asks which device there is, and
# LMCache's imports a compiled module that a wheel for another Python cannot give: both are answered here.
PARSE = """
import json, sys
from unittest import mock
lines = json.load(sys.stdin)
if sys.argv[1] == "vllm":
    import vllm.platforms as platforms
    from vllm.platforms.cpu import CpuPlatform
    platforms.current_platform = platforms._current_platform = CpuPlatform()
    try:
        from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
    except ImportError:  # vLLM 0.32 moved it
        from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    for line in lines:
        validate_parsed_serve_args(make_arg_parser(FlexibleArgumentParser()).parse_args(line))
elif sys.argv[1] == "vllm_router":
    import argparse
    from vllm_router.router_args import RouterArgs
    for line in lines:
        parser = argparse.ArgumentParser()
        RouterArgs.add_cli_args(parser)
        RouterArgs.from_cli_args(parser.parse_args(line))
else:
    import argparse
    if sys.argv[2] == "unpacked":
        native = sys.modules["lmcache.lmcache_native"] = mock.MagicMock()
        native.TransferDirection.__members__ = {}
    from lmcache.cli.commands.server import ServerCommand
    for line in lines:
        parser = argparse.ArgumentParser()
        ServerCommand().add_arguments(parser)
        parser.parse_args(line)
module = sys.modules[sys.argv[1]]
print(f"{len(lines)} command lines accepted by {sys.argv[1]} in {module.__file__}")
"""


def command_lines(profile: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (program, arguments) of every server that this profile's stack and peers may start."""
    plain = PROFILES[profile].stack
    model = Model(Path("/model"), "m", "", CHAT_TEMPLATE, random_weights=profile == "gpu")
    peers = [peer.config(plain) for peer in (*PEERS, *TUNING) if profile == "gpu" or not peer.gpu_only]
    bounded = plain.with_engines(blocks=100, prefix_cache=False, kv_events=True)
    spread = [plain.with_engines(tensor_parallel=2, memory_gib=8)] if profile == "gpu" else []
    for config in [plain, plain.with_engines(memory_gib=4), bounded, *spread, *peers]:
        for engine in config.engines:
            events_port = 3 if engine.kv_events else None
            plan = Plan(config, engine, model, "vllm", 1, Path("vllm.log"), events_port)
            yield "vllm", engine_command(plan, None if engine.cache is None else 2)[3:]
        for cache in config.caches:
            planned = CachePlan(config, "lmcache", 2, 3, Path("lmcache.log"), "s")
            yield "lmcache", cache_command(planned, cache)[4:]
    for policy in get_args(Policy):
        front = RouterConfig("vllm_router", policy)
        workers, events = {"vllm": "http://127.0.0.1:4"}, {"vllm": "tcp://127.0.0.1:5"}
        log = Path("vllm_router.log")
        routed = vllm_router.Plan(plain, front, "m", "vllm_router", 6, 7, log, workers, events)
        yield "vllm_router", router_command(routed)[3:]


def parse(profile: str, packages: Path | None) -> bool:
    """Hand the command lines to the parsers; tell whether all were accepted."""
    lines = list(command_lines(profile))
    fine = True
    for program in ("vllm", "lmcache", "vllm_router"):
        mine = [arguments for name, arguments in lines if name == program]
        where = {"PYTHONPATH": str(packages)} if packages else {}
        wheel = "unpacked" if packages else "installed"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PARSE, program, wheel],
            input=json.dumps(mine),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, **where},
        )
        shown = done.stdout if done.returncode == 0 else done.stderr
        print(f"{profile}: {shown.strip().splitlines()[-1]}")
        fine &= done.returncode == 0
    return fine


def fetch(pins: list[str], folder: Path) -> Path:
    """Fetch wheels without what they need, and unpack them without compiled parts."""
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", GPU_PYTHON, "--implementation", "cp", *platforms]
    subprocess.run([*command, "-d", str(folder), *pins], check=True, timeout=900)
    unpacked = folder / "unpacked"
    for pin in pins:
        (wheel,) = folder.glob(pin.replace("-", "_").replace("==", "-") + "-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if not name.endswith(".so")])
    return unpacked


def resolves() -> bool:
    """Ask uv for a set of versions that satisfies the extra."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", str(PROJECT), "--extra", "gpu"]
    command += ["--only-binary", ":all:", "--python-version", GPU_PYTHON, "--python-platform", RESOLVED_FOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = [line for line in done.stdout.splitlines() if "==" in line]
    print(
        f"gpu: the extra resolves to {len(found)} packages" if done.returncode == 0 else done.stderr.strip()
    )
    return done.returncode == 0


def main(folder: Path) -> int:
    """Run all checks; 0 if all hold."""
    extra = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["gpu"]
    pins = [pin for pin in extra if pin.startswith(("vllm==", "lmcache==", "vllm-router=="))]
    fine = [parse("cpu", None), parse("gpu", fetch(pins, folder)), resolves()]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
