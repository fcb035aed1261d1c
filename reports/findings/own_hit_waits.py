"""What an engine's own hit waits for when LMCache is beside it, and what two changes of the connector save.

    python own_hit_waits.py MODEL [--lengths 8192 32768] [--variants asked skip wait] [-- OPTIONS OF VLLM]

MODEL is the folder of any Llama model. Of it only the tokenizer is used, with one narrow layer of random weights, because what
is measured is the way to the first token and not the model; vLLM's own --hf-overrides '{}' after `--` takes the whole model's
shape. Each variant gets an engine, and a LMCache server of its own, on ports from 8200 on:

    asked    LMCache's connector as it comes
    skip     LMCache is not asked where the engine already holds every whole chunk of the prompt
    wait     the scheduler waits up to 10 ms for LMCache's reply, instead of giving up the step
    native   no LMCache; vLLM's native offload (not on a processor)
    alone    no LMCache, nothing else

A prompt is asked once, then `--rounds` times more, by turns. Printed are medians: the time to first token in ms at the
client, and what the connector itself saw: from its first question to LMCache until the scheduler had the answer, in ms, and
how many steps of the engine that took. Exits with 1 where an engine does not start or an own hit is not one.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

NARROW = dict.fromkeys(["num_hidden_layers", "num_attention_heads", "num_key_value_heads"], 1)
NARROW |= dict.fromkeys(["hidden_size", "intermediate_size", "head_dim"], 64) | {"max_position_embeddings": 65536}
VARIANT = os.environ.get("OWN_HIT_VARIANT", "")

if VARIANT:  # inside an engine: this file is the connector's module
    from lmcache.integration.vllm import lmcache_mp_connector as integration

    class OwnHitConnector(integration.LMCacheMPConnector):
        """LMCache's connector with a clock, and with one change or none."""

        def get_num_new_matched_tokens(self, request, num_computed_tokens):
            begin = time.perf_counter()
            asked = self.__dict__.setdefault("_asked", {}).setdefault(request.request_id, [begin, 0])
            asked[1] += 1
            found, load = self._matched(request, num_computed_tokens)
            if found is not None:
                with open(os.environ["OWN_HIT_LOG"], "a") as log:
                    waited = {"tokens": request.num_tokens, "ms": 1e3 * (time.perf_counter() - asked[0]), "steps": asked[1]}
                    log.write(json.dumps(waited) + "\n")
                del self._asked[request.request_id]
            return found, load

        def _matched(self, request, held):
            ask = super().get_num_new_matched_tokens
            if VARIANT == "skip":
                tracker = self._get_or_create_request_tracker(request)
                chunk = self.scheduler_adapter.lmcache_tokens_per_chunk
                whole = (request.num_tokens - 1) // chunk * chunk  # the last token is always computed
                fresh = tracker.state == integration.LMCacheMPRequestState.PREFETCHING and tracker.lookup_started_at is None
                if fresh and held >= whole:
                    tracker.num_vllm_hit_tokens = held // self._hit_alignment_tokens * self._hit_alignment_tokens
                    tracker.num_stored_tokens = whole  # what the engine holds was stored when it was computed or loaded
                    return 0, False
            found, load = ask(request, held)
            limit = time.monotonic() + (0.010 if VARIANT == "wait" else 0)
            while found is None and time.monotonic() < limit:
                time.sleep(0.0001)  # lets the thread run that receives the reply
                found, load = ask(request, held)
            return found, load


def engine(variant, number, options, work):
    """The command and environment of one engine, and the command of its LMCache server, or None."""
    port, cache = 8200 + number, 5700 + number
    log = work / f"{variant}.log"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "PYTHONHASHSEED": "0",
        "OWN_HIT_LOG": str(work / f"{variant}.jsonl"),
    }
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", options.model]
    command += ["--served-model-name", "m", "--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", "65536", "--max-num-batched-tokens", "8192", "--enable-prompt-tokens-details"]
    command += ["--hf-overrides", json.dumps(NARROW)]
    server = None
    if variant == "native":
        command += ["--kv-offloading-backend", "native", "--kv-offloading-size", f"{options.memory_gib:g}"]
    elif variant != "alone":
        environment["OWN_HIT_VARIANT"] = variant
        reach = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": cache}
        connector = {"kv_connector": "OwnHitConnector", "kv_connector_module_path": Path(__file__).stem}
        connector |= {"kv_role": "kv_both", "kv_connector_extra_config": reach}
        command += ["--kv-transfer-config", json.dumps(connector)]
        server = [sys.executable, "-m", "lmcache.cli.main", "server", "--port", str(cache)]
        server += ["--l1-size-gb", f"{options.memory_gib:g}"]
        server += ["--http-host", "127.0.0.1", "--http-port", str(8300 + number), "--prometheus-port", str(9300 + number)]
        server += ["--eviction-policy", "LRU", "--chunk-size", "256", "--supported-transfer-mode", "auto"]
    return port, [*command, *options.vllm], server, environment, log


def first_token(port, prompt):
    """The time to first token of `prompt` (token ids) in s, and how many of its tokens came from a cache."""
    body = {"model": "m", "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True, "stream": True}
    data = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
    where = f"http://127.0.0.1:{port}/v1/completions"
    request = urllib.request.Request(where, data, {"Content-Type": "application/json"})
    begin, first, cached = time.perf_counter(), None, 0
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as lines:
        for line in lines:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("choices") and first is None:
                first = time.perf_counter() - begin
            if event.get("usage"):
                cached = (event["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if first is None:
        sys.exit(f"the engine on port {port} sent no token for {len(prompt)} tokens")
    return first, cached


def wait_for(port, process, log, seconds=300):
    """Until the engine answers; it compiles on its first start."""
    for _ in range(seconds):
        if process.poll() is not None:
            break
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/health", timeout=5)
            return
        except OSError:
            time.sleep(1)
    sys.exit(f"the engine on port {port} did not start within {seconds} s: see {log}")


def measure(ports, work, options):
    print("tokens variant | ttft ms: median, lowest, highest | question to answer ms, steps")
    for length in options.lengths:
        prompt = [random.randrange(1000, 20000) for _ in range(length + 8)]
        for port in ports.values():
            first_token(port, prompt)
        time.sleep(3)  # what was stored is complete
        kept = {variant: (work / f"{variant}.jsonl") for variant in ports}
        before = {variant: len(file.read_text().splitlines()) if file.exists() else 0 for variant, file in kept.items()}
        taken = {variant: [] for variant in ports}
        for number in range(options.rounds):
            turn = list(ports)[number % len(ports) :] + list(ports)[: number % len(ports)]
            for variant in turn:
                seconds, cached = first_token(ports[variant], prompt)
                if cached < length - 256:
                    sys.exit(f"{variant}: {cached} of {length + 8} tokens came from a cache, so this was no hit")
                taken[variant].append(1e3 * seconds)
                time.sleep(0.05)
        for variant, file in kept.items():
            lines = file.read_text().splitlines()[before[variant] :] if file.exists() else []
            asked = [json.loads(line) for line in lines]
            inside = [f"{statistics.median(line[key] for line in asked):.1f}" for key in ("ms", "steps")] if asked else ["-", "-"]
            ttft = taken[variant]
            print(f"{length:6} {variant:7} | {statistics.median(ttft):6.1f} {min(ttft):6.1f} {max(ttft):6.1f} |", *inside, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32768, 60160])
    parser.add_argument("--rounds", type=int, default=15)
    variants = ["asked", "skip", "wait", "native", "alone"]
    parser.add_argument("--variants", nargs="+", default=["asked", "skip", "wait"], choices=variants)
    parser.add_argument("--memory-gib", type=float, default=2, help="of each LMCache, and of native offload")
    parser.add_argument("--work", type=Path, default=Path("own_hit_waits"), help="folder for the logs")
    ours, theirs = sys.argv[1:], []
    if "--" in ours:
        ours, theirs = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    options = parser.parse_args(ours)
    if not (Path(options.model) / "config.json").is_file():
        parser.error(f"{options.model} is no model's folder: it has no config.json")
    options.vllm, options.work = theirs, options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` stops the engines
    started, ports = [], {}
    try:
        for number, variant in enumerate(options.variants, 1):
            port, command, server, environment, log = engine(variant, number, options, options.work)
            (options.work / f"{variant}.jsonl").unlink(missing_ok=True)
            if server:
                with open(options.work / f"{variant}-lmcache.log", "w") as out:
                    started.append(subprocess.Popen(server, stdout=out, stderr=out, env=environment, start_new_session=True))
            with open(log, "w") as out:
                process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
            started.append(process)
            wait_for(port, process, log)  # one after the other: each measures the memory that is free
            ports[variant] = port
        measure(ports, options.work, options)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
