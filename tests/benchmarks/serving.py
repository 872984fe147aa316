"""How the server holds: `python -m tests.benchmarks.serving [--peers FOLDER] [--bundle FOLDER]`.

Beside the peers that `measure.sh` in the folder of `--peers` starts, on one model, and beside ONNX Runtime alone. `--bundle` is one of a
trained `sst2-bert`, with its texts read from `--texts`, a file with one a line. Needs `wrk`. Exits 1 where a limit is missed.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tasks.core.api_keys import create_key
from tasks.core.bundle import Bundle, DatasetVersion, Lineage, Manifest, describe_variant
from tasks.core.dataset import Column
from tasks.core.machine import usable_cores
from tasks.core.predictor import Predictor
from tasks.core.stages import write_text
from tasks.core.transforms import NumberColumn, TableTransform, Tensors, TensorSpec
from tests.benchmarks.load import Answers, closed_loop, open_loop, request

LAYERS = (64, 128, 128, 10)
COLUMNS = TableTransform(
    numbers=tuple(NumberColumn(column=f"c{number}", mean=0.0, std=1.0, nullable=False) for number in range(LAYERS[0])), categories=()
)
CONNECTIONS, SECONDS = 32, 8


def write_small(folder: Path, name: str, seed: int = 0) -> Path:
    """A bundle with a dense network, the one that the peers' measures are quoted for."""
    draw = np.random.default_rng(seed)
    nodes, weights, value = [], [], "x"
    for number, (wide, narrow) in enumerate(pairwise(LAYERS)):
        matrix = draw.normal(scale=0.1, size=(wide, narrow)).astype(np.float32)
        weights += [numpy_helper.from_array(matrix, f"w{number}"), numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{number}")]
        last = number == len(LAYERS) - 2
        nodes.append(helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], ["logits" if last else f"h{number}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{number}"], [f"r{number}"]))
        value = f"r{number}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", LAYERS[0]])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LAYERS[-1]])]
    model = helper.make_model(helper.make_graph(nodes, name, inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    (folder / "variants").mkdir(parents=True)
    onnx.save(model, folder / "variants" / "fp32.onnx")
    manifest = Manifest(
        name=name,
        description="A dense network of random weights.",
        columns={column.column: Column(type="number") for column in COLUMNS.numbers},
        inputs=COLUMNS.inputs,
        outputs=(TensorSpec(name="logits", dtype="FP32", shape=(LAYERS[-1],)),),
        labels=tuple(str(label) for label in range(LAYERS[-1])),
        transform=COLUMNS,
        variants=(describe_variant(folder, "fp32"),),
        chosen="fp32",
        threads=1,
        parity=0.0,
        recipe={},
        lineage=Lineage(dataset=DatasetVersion(name="none", raw="0", digest="0", rows={})),
    )
    Bundle(folder, manifest).write()
    return folder / "variants" / "fp32.onnx"


def point(served: Path, name: str, version: str) -> None:
    write_text(served / name / "current.json", json.dumps({"version": version}))


def row() -> bytes:
    draw = random.Random(0)
    data = [round(draw.random(), 4) for _ in range(LAYERS[0])]
    return json.dumps({"inputs": [{"name": "x", "shape": [1, LAYERS[0]], "datatype": "FP32", "data": data}]}).encode()


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    ready: float
    """Seconds from its start until it said so."""

    @property
    def megabytes(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1e3 if found else float("nan")


@contextmanager
def server(served: Path, *options: str) -> Iterator[Server]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "deploy.serving", "--served", str(served), "--port", "0", "--watch", "0.1", "--drain", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"is ready on http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if not found:
                sys.exit("the server did not start")
            yield Server(process, int(found[1]), time.perf_counter() - start)
        finally:
            process.send_signal(signal.SIGTERM)


def wrk(url: str, bodies: Sequence[bytes], key: str, folder: Path, connections: int = CONNECTIONS) -> tuple[float, float, float]:
    """Requests a second, each with the next body, and the median and the 99th percentile in milliseconds."""
    (folder / "bodies").write_bytes(b"\n".join(bodies))
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    script = folder / "post.lua"
    script.write_text(
        f"""
wrk.method = 'POST'
{"".join(f"wrk.headers['{name}'] = '{value}' " for name, value in headers.items())}
local requests, number = {{}}, 0
function init()
  for body in io.lines('{folder}/bodies') do requests[#requests + 1] = wrk.format(nil, nil, nil, body) end
end
function request()
  number = number % #requests + 1
  return requests[number]
end
"""
    )
    for seconds in (3, SECONDS):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        sys.exit(said)
    rate, median, tail = (re.search(pattern, said) for pattern in (r"Requests/sec:\s+([\d.]+)", r" 50%\s+(\S+)", r" 99%\s+(\S+)"))
    assert rate
    assert median
    assert tail
    return float(rate[1]), _milliseconds(median[1]), _milliseconds(tail[1])


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def verdict(holds: bool, text: str) -> bool:
    print(f"{'holds' if holds else 'FAILS':6} {text}", flush=True)
    return holds


def beside_peers(scratch: Path, peers: Path | None) -> bool:
    served = scratch / "small"
    model = write_small(served / "m" / "1", "m")
    point(served, "m", "1")
    _, key = create_key(scratch / "keys.json", "benchmark", requests_per_second=1e6, units_per_second=1e7)
    # The best of the peers answer from as many processes too, or threads.
    for workers in ("1", str(usable_cores())):
        with server(served, "--keys", str(scratch / "keys.json"), "--workers", workers) as running:
            rate, median, tail = wrk(f"http://127.0.0.1:{running.port}/v2/models/m/infer", [row()], key, scratch)
        name = f"maasflow --workers {workers}, keys, limits and metrics on"
        print(f"{name:50} {rate:10,.0f} requests/s  p50 {median:.2f} ms  p99 {tail:.2f} ms", flush=True)
    if peers is None:
        print("       no --peers: nothing to hold it against", flush=True)
        return True
    said = subprocess.run(["bash", str(peers / "measure.sh"), str(model)], capture_output=True, text=True, check=True).stdout
    print(said, end="", flush=True)
    rates = {line[:24].strip(): float(found[1]) for line in said.splitlines() if (found := re.search(r"([\d.]+) req/s", line))}
    triton = rates.pop("Triton")
    best = max(rates.values())
    return verdict(
        rate >= triton and rate >= 10 * best,
        f"single rows, {CONNECTIONS} connections: {rate / triton:.2f} × Triton (at least 1), {rate / best:.1f} × the best in Python (at least 10)",
    )


def of_ten(scratch: Path) -> bool:
    """One busy model beside nine that wait, and alone."""
    rates: dict[int, float] = {}
    for count in (1, 10, 1, 10):
        served = scratch / f"of-{count}"
        shutil.rmtree(served, ignore_errors=True)
        for number in range(count):
            write_small(served / f"m{number}" / "1", f"m{number}", number)
            point(served, f"m{number}", "1")
        with server(served) as running:
            rate, *_ = wrk(f"http://127.0.0.1:{running.port}/v2/models/m0/infer", [row()], "", scratch)
        rates[count] = max(rate, rates.get(count, 0.0))
    share = rates[10] / rates[1]
    return verdict(share >= 0.95, f"10 models, 1 busy: {share:.2f} × of one model alone (at least 0.95)")


def starting(scratch: Path) -> bool:
    served = scratch / "three"
    for number in range(3):
        write_small(served / f"m{number}" / "1", f"m{number}", number)
        point(served, f"m{number}", "1")
    found = []
    for _ in range(5):
        with server(served) as running:
            found.append((running.ready, running.megabytes))
    ready, memory = sorted(found)[len(found) // 2]
    return verdict(ready <= 2 and memory <= 200, f"3 models ready after {ready:.2f} s (at most 2), {memory:.0f} MB resident (at most 200)")


def reloading(scratch: Path, times: int = 100) -> bool:
    """Versions that are swapped while half of what can be answered is asked for."""
    served = scratch / "reload"
    for version in ("1", "2"):
        write_small(served / "m" / version, "m", int(version))
    point(served, "m", "1")
    asked = [request("/v2/models/m/infer", row())]
    with server(served, "--watch", "0.02") as running:
        most = closed_loop(running.port, asked, CONNECTIONS, 4).rate
        open_loop(running.port, asked, most / 2, 2)
        quiet = open_loop(running.port, asked, most / 2, 8)
        stop = threading.Event()

        def swap() -> None:
            for number in range(times + 20):
                # The memory of the first few is what a swap takes; of the rest it must be none.
                point(served, "m", "21"[number % 2])
                time.sleep(0.5)
                if number == 20:
                    memory.append(running.megabytes)
            memory.append(running.megabytes)
            stop.set()

        memory: list[float] = []
        swapping = threading.Thread(target=swap)
        swapping.start()
        busy = open_loop(running.port, asked, most / 2, (times + 20) * 0.505)
        swapping.join()
        loads = _loads(running.port)
    failed = sum(count for status, count in busy.counts.items() if status != 200)
    tail, growth = busy.percentile(99) / quiet.percentile(99), memory[1] / memory[0] - 1
    return verdict(
        failed == 0 and tail <= 1.2 and abs(growth) <= 0.05 and loads >= times,
        f"{loads} reloads under load: {failed} of {sum(busy.counts.values()):,} requests failed, p99 {tail:.2f} × that without (at most 1.2), "
        f"memory {growth:+.1%} (at most ±5 %)",
    )


def _loads(port: int) -> int:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = re.search(r'maasflow_reloads_total{model="m",outcome="loaded"} (\d+)', text)
    return int(found[1]) if found else 0


def with_texts(scratch: Path, bundle: Path, texts: list[str]) -> bool:
    """Real sentences, one a request, against ONNX Runtime alone on the same rows, sorted by length and in its best batches."""
    served = scratch / "texts"
    shutil.copytree(bundle, served / "m" / "1")
    point(served, "m", "1")
    predictor = Predictor(Bundle.open(bundle))
    alone = onnxruntime.InferenceSession(str(Bundle.open(bundle).file()), providers=["CPUExecutionProvider"])
    rows = [predictor.tensors([text]) for text in texts]
    bodies = [json.dumps({"instances": [text]}).encode() for text in texts]
    asked = [request("/v1/models/m/predict", body) for body in bodies]
    workers = str(usable_cores())
    with server(served, "--max-waiting", "4096") as running, server(served, "--workers", workers) as several:
        one, rates, threads, lanes = list[float](), list[float](), list[float](), list[float]()
        for _ in range(3):
            for found, each in ((one, running), (rates, several)):
                found.append(wrk(f"http://127.0.0.1:{each.port}/v1/models/m/predict", bodies, "", scratch, 16)[0])
            threads.append(best_alone(alone.run, rows))
            lanes.append(best_alone(predictor.run, rows))
        rate, alone_rate = float(np.median(rates)), float(np.median(one))
        share, strict = rate / float(np.median(threads)), rate / float(np.median(lanes))
        reached = [
            verdict(
                share >= 0.9,
                f"sentences, 16 connections: {rate:,.0f}/s with --workers {workers} ({alone_rate:,.0f} with one), "
                f"{share:.2f} × ONNX Runtime alone (at least 0.9), "
                f"{strict:.2f} × ONNX Runtime with a row of the batch for each thread, as the variant has it",
            )
        ]
        half = open_loop(running.port, asked, alone_rate / 2, 10)
        bare = [bare_milliseconds(predictor, rows, percentile) for percentile in (50, 99)]
        taken = [half.percentile(percentile) * 1e3 for percentile in (50, 99)]
        reached.append(
            verdict(
                taken[1] <= 3 * bare[1],
                f"at half of what one does: p50 {taken[0]:.1f} ms, p99 {taken[1]:.1f} ms; the bare inference {bare[0]:.1f} and "
                f"{bare[1]:.1f} ms: {taken[0] / bare[0]:.2f} × and {taken[1] / bare[1]:.2f} × (at most 3)",
            )
        )
        reached.append(overloaded(running, texts, alone_rate))
    plain, same = (mlflow_rate(scratch, bundle, texts, variant) for variant in ("fp32", None))
    reached.append(
        verdict(
            rate >= 3 * plain,
            f"mlflow models serve with the exported model: {plain:,.0f}/s, {rate / plain:.1f} × of it (at least 3); "
            f"given our compressed file: {same:,.0f}/s, {rate / same:.1f} ×",
        )
    )
    return all(reached)


MLFLOW_MODEL = """
import json
import mlflow
import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Sentences(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.tokenizer = Tokenizer.from_file(context.artifacts["tokenizer"])
        self.session = onnxruntime.InferenceSession(context.artifacts["model"], providers=["CPUExecutionProvider"])

    def predict(self, context, model_input):
        encoded = [self.tokenizer.encode(text).ids for text in model_input["text"]]
        longest = max(map(len, encoded))
        ids = np.array([each + [0] * (longest - len(each)) for each in encoded], np.int64)
        mask = np.array([[1] * len(each) + [0] * (longest - len(each)) for each in encoded], np.int64)
        return self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0].tolist()


mlflow.models.set_model(Sentences())
"""


def mlflow_rate(scratch: Path, bundle: Path, texts: list[str], variant: str | None) -> float:
    """Requests a second of MLflow's own server, with a variant and the tokenizer of a bundle."""
    (scratch / "sentences.py").write_text(MLFLOW_MODEL)
    model, port = scratch / f"mlflow-{variant}", "8806"
    save = (
        "import sys, mlflow; mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], "
        "artifacts={'tokenizer': sys.argv[3], 'model': sys.argv[4]}, pip_requirements=[])"
    )
    files = [str(bundle / "tokenizer.json"), str(Bundle.open(bundle).file(variant))]
    subprocess.run([sys.executable, "-c", save, str(model), str(scratch / "sentences.py"), *files], check=True, capture_output=True)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", port, "--env-manager", "local"]
    # It starts uvicorn by that name.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(120):
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/ping")
                    break
                time.sleep(0.5)
            bodies = [json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}}).encode() for text in texts]
            return wrk(f"{url}/invocations", bodies, "", scratch, 16)[0]
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def overloaded(running: Server, texts: list[str], most: float) -> bool:
    """Three times what can be done is asked for, each with half a second."""
    asked = [request("/v1/models/m/predict", json.dumps({"instances": [text]}).encode(), Request_Timeout="0.5") for text in texts]
    # What memory it takes it takes in the first seconds.
    open_loop(running.port, asked, 3 * most, 20)
    before = running.megabytes
    found = open_loop(running.port, asked, 3 * most, 10)
    growth = running.megabytes / before - 1
    refused = found.percentile(99, 503)
    late = found.percentile(99)
    return verdict(
        set(found.counts) <= {200, 503, 504} and late <= 0.5 and refused <= 0.01 and growth <= 0.05,
        f"3 × as much as it can do: {told(found)}; p99 of the answers {late * 1e3:.0f} ms (at most 500), of the refusals {refused * 1e3:.1f} ms "
        f"(at most 10), memory {growth:+.1%}",
    )


def told(found: Answers) -> str:
    return ", ".join(f"{count:,} × {status}" for status, count in sorted(found.counts.items()))


def best_alone(run: Callable[[list[str], Tensors], object], rows: list[Tensors]) -> float:
    """Rows a second, sorted by length, in the best of a few sizes of batches, without the time to read texts."""
    ordered = sorted(rows, key=lambda each: each["input_ids"].shape[1])
    best = 0.0
    for size in (1, 4, 8, 16, 32, 64):
        batches = [_stacked(ordered[start : start + size]) for start in range(0, len(ordered), size)]
        for batch in batches[:20]:
            run(["logits"], batch)
        start = time.perf_counter()
        for batch in batches:
            run(["logits"], batch)
        best = max(best, len(rows) / (time.perf_counter() - start))
    return best


def _stacked(rows: list[Tensors]) -> Tensors:
    longest = max(each["input_ids"].shape[1] for each in rows)
    return {name: np.concatenate([np.pad(each[name], ((0, 0), (0, longest - each[name].shape[1]))) for each in rows]) for name in rows[0]}


def bare_milliseconds(predictor: Predictor, rows: list[Tensors], percentile: float) -> float:
    taken = []
    for each in rows:
        start = time.perf_counter()
        predictor.logits(each)
        taken.append((time.perf_counter() - start) * 1e3)
    return float(np.percentile(taken, percentile))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, metavar="FOLDER")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER")
    parser.add_argument("--texts", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        reached = [starting(scratch), beside_peers(scratch, options.peers), of_ten(scratch), reloading(scratch)]
        if options.bundle and options.texts:
            texts = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
            reached.append(with_texts(scratch, options.bundle.resolve(), texts))
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
