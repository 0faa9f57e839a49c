#!/usr/bin/env python3
"""`infer` on the digits through the daemon, with clients in processes of their own, against a bare loop without edged.

Alternates bare and daemon in one run and prints medians and ratios as JSON, and the CPU time that an answer costs each
of the processes, which says more than the ratios on a box that is busy with other work. Four kinds of work:
  image: the bytes of a PNG to the best label; bare: Pillow, numpy, one InferenceSession.run, arg max
  tensor: one prepared row to the scores; bare: InferenceSession.run alone
  rows: 32 prepared rows in one request, and in one run of the bare loop; an answer holds 32 scores
  dense: the same with a made-up model of 25 MB that takes milliseconds a row (needs the extra "synthetic")

    tools/bench_infer.py                                  # 8 clients, one request in flight each: `Client`
    tools/bench_infer.py --clients 8 --in-flight 8        # each keeps eight in flight: `AsyncClient`
    tools/bench_infer.py --clients 8 --asyncio            # one in flight each, `AsyncClient` all the same
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MODEL = ROOT / "models" / "digits"
WARM_UP_S = 0.5
KINDS = ("image", "tensor", "rows", "dense")
ROWS = 32
WIDTH, LAYERS = 1024, 6
SHAPES = {"image": (1, 1, 8, 8), "tensor": (1, 1, 8, 8), "rows": (ROWS, 1, 8, 8), "dense": (1, WIDTH)}
MICRO = 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process or several did. `cpu_s`: their CPU time an answer; `answers`: with those of the warm-up."""

    answers_per_s: float
    cpu_s: float
    answers: int


def main() -> int:
    """Exit code 0; the figures are for reading, not for passing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=1, help="requests each client keeps in flight")
    parser.add_argument("--asyncio", action="store_true", help="AsyncClient also for one request in flight")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=KINDS, help="this kind of work alone")
    parser.add_argument("--child", choices=("bare", "client"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, default=MODEL, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "bare":
        print(json.dumps(asdict(bare(options.model, options.kind, options.seconds))))
    elif options.child == "client":
        if options.in_flight > 1 or options.asyncio:
            measured = asyncio.run(client(options.endpoint, options.kind, options.seconds, options.in_flight))
        else:
            measured = blocking_client(options.endpoint, options.kind, options.seconds)
        print(json.dumps(asdict(measured)))
    else:
        print(json.dumps(compare(options), indent=2))
    return 0


def sample() -> bytes:
    """A PNG of one digit, 80 x 80."""
    return (ROOT / "tests" / "data" / "digits" / "7-0.png").read_bytes()


def bare(model: Path, kind: str, seconds: float) -> Measured:
    """A loop that a program without edged would have."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort
    from PIL import Image

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model / "model.onnx"), options)
    data, row = sample(), np.zeros(SHAPES[kind], np.float32)

    name = session.get_inputs()[0].name

    def image() -> int:
        small = Image.open(io.BytesIO(data)).convert("L").resize((8, 8), Image.Resampling.BOX)
        pixels = (255 - np.asarray(small, np.float32))[None, None] / 255
        scores = session.run(None, {"pixels": pixels})[0][0]
        powers = np.exp(scores - scores.max())
        return int((powers / powers.sum()).argmax())

    def tensor() -> Any:
        return session.run(None, {name: row})

    work = image if kind == "image" else tensor
    for until_s in (WARM_UP_S, seconds):
        count, cpu_s, started_s = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - started_s < until_s:
            work()
            count += 1
    return Measured(count / (time.perf_counter() - started_s), (time.process_time() - cpu_s) / count, count)


def request_of(kind: str) -> dict[str, Any]:
    """What `infer` is called with."""
    from edged.client import Tensor

    if kind == "image":
        return {"image": sample()}
    name = "x" if kind == "dense" else "pixels"
    return {"inputs": {name: Tensor("float32", SHAPES[kind], bytes(4 * math.prod(SHAPES[kind])))}}


def blocking_client(endpoint: str, kind: str, seconds: float) -> Measured:
    """One client that asks one after the other."""
    from edged.client import Client

    request, counted_in_all = request_of(kind), 0
    with Client(endpoint) as connection:
        for length_s in (WARM_UP_S, seconds):
            counted, cpu_s, started_s = 0, time.process_time(), time.perf_counter()
            while time.perf_counter() < started_s + length_s:
                connection.infer(**request)
                counted += 1
            counted_in_all += counted
        rate = counted / (time.perf_counter() - started_s)
        return Measured(rate, (time.process_time() - cpu_s) / counted, counted_in_all)


async def client(endpoint: str, kind: str, seconds: float, in_flight: int) -> Measured:
    """One client that keeps several in flight."""
    from edged.client import AsyncClient

    request = request_of(kind)
    counted = counted_in_all = 0

    async with AsyncClient(endpoint) as connection:

        async def one_after_the_other(until_s: float) -> None:
            nonlocal counted
            while time.perf_counter() < until_s:
                await connection.infer(**request)
                counted += 1

        for length_s in (WARM_UP_S, seconds):
            counted, cpu_s, started_s = 0, time.process_time(), time.perf_counter()
            await asyncio.gather(*(one_after_the_other(started_s + length_s) for _ in range(in_flight)))
            counted_in_all += counted
        rate = counted / (time.perf_counter() - started_s)
        return Measured(rate, (time.process_time() - cpu_s) / counted, counted_in_all)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, alternating."""
    kinds = (options.only,) if options.only else KINDS
    rates: dict[str, list[float]] = {}
    cpu: dict[str, dict[str, list[float]]] = {}
    rows_per_run: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="edged-bench-", dir="/tmp") as folder:
        for model, here in ((MODEL, [kind for kind in kinds if kind != "dense"]), (Path(folder) / "dense", ["dense"])):
            if not set(here) & set(kinds):
                continue
            if here == ["dense"]:
                _write_dense(model)
            with _daemon(Path(folder), model) as (endpoint, front, engine):
                for _ in range(options.rounds):
                    for kind in here:
                        alone = _children(1, "bare", kind, options, "", model)
                        before_s = _cpu_s(front), _cpu_s(engine)
                        together = _children(options.clients, "client", kind, options, endpoint, model)
                        front_s, engine_s = _cpu_s(front) - before_s[0], _cpu_s(engine) - before_s[1]
                        rates.setdefault(f"{kind} bare", []).append(alone.answers_per_s)
                        rates.setdefault(f"{kind} daemon", []).append(together.answers_per_s)
                        spent = {"bare": alone.cpu_s, "client": together.cpu_s}
                        spent |= {"front": front_s / together.answers, "engine": engine_s / together.answers}
                        for process, spent_s in spent.items():
                            cpu.setdefault(kind, {}).setdefault(process, []).append(spent_s)
                rows_per_run[model.name] = _rows_per_run(endpoint)
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    return {
        "clients": options.clients,
        "in_flight": options.in_flight,
        "answers_per_s": medians,
        "daemon_to_bare": {kind: round(medians[f"{kind} daemon"] / medians[f"{kind} bare"], 3) for kind in kinds},
        "cpu_us_per_answer": {
            kind: {process: round(statistics.median(spent) * MICRO) for process, spent in found.items()}
            for kind, found in cpu.items()
        },
        "rows_per_run": rows_per_run,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _cpu_s(pid: int) -> float:
    """CPU time of all threads of a process so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _daemon(folder: Path, model: Path) -> Iterator[tuple[str, int, int]]:
    """A daemon with this model: its endpoint, the pids of front and engine; one thread, as the bare loop."""
    endpoint = f"ipc://{folder}/s/edged.sock"
    settings = f'endpoint = "{endpoint}"\nmodel = "{model}"\nprovider = "cpu"\nthreads = 1\nstate_dir = "{folder}"\n'
    (folder / "edged.toml").write_text(settings + 'log_level = "error"\n')
    serve = [sys.executable, "-m", "edged", "serve", "--config", str(folder / "edged.toml")]
    with subprocess.Popen(serve, cwd=ROOT) as daemon:
        try:
            _wait_for(endpoint)
            engine = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()[0]
            yield endpoint, daemon.pid, int(engine)
        finally:
            daemon.terminate()


def _write_dense(folder: Path) -> None:
    """LAYERS square matrices, one after the other."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    generator = np.random.default_rng(1)
    names = ["x", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]) for layer in range(LAYERS)]
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.03, (WIDTH, WIDTH)).astype(np.float32), f"w{layer}")
        for layer in range(LAYERS)
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "dense", *ends, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.save(made, folder / "model.onnx")
    (folder / "edged.toml").write_text("batch_tensors = true\n")


def _children(count: int, child: str, kind: str, options: argparse.Namespace, endpoint: str, model: Path) -> Measured:
    """So many processes at once, taken together."""
    command = [sys.executable, __file__, "--child", child, "--kind", kind, "--seconds", str(options.seconds)]
    command += ["--in-flight", str(options.in_flight), "--endpoint", endpoint, "--model", str(model)]
    command += ["--asyncio"] * options.asyncio
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(count)]
    told = [Measured(**json.loads(process.communicate()[0])) for process in running]
    answers = sum(each.answers for each in told)
    cpu_s = sum(each.cpu_s * each.answers for each in told) / answers
    return Measured(sum(each.answers_per_s for each in told), cpu_s, answers)


def _wait_for(endpoint: str) -> None:
    from edged.client import Client, DaemonNotFound

    for _ in range(600):
        try:
            with Client(endpoint) as client_:
                if client_.models()[0].state == "ready":
                    return
        except DaemonNotFound:
            pass
        time.sleep(0.1)
    raise SystemExit("the daemon did not start")


def _rows_per_run(endpoint: str) -> float:
    from edged.client import Client

    with Client(endpoint) as client_:
        return float(client_.status().models[0].raw["engine"].get("rows_per_run", 0.0))


if __name__ == "__main__":
    sys.exit(main())
