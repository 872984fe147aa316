"""Bundles that are broken, or made to harm, over a running server: the version before goes on, and who asks is told why."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tasks.core.bundle import GOLDEN, Bundle, describe_variant
from tasks.core.file_digests import sha256
from tasks.core.golden import Golden, answer
from tasks.core.predictor import Predictor
from tasks.core.stages import write_text
from tasks.core.tokenizing import TOKENIZER
from tests.serving.conftest import TABLE, Running, Served, end, start_server, until, write_onnx
from tests.texts import write_classifier

ROW = {"age": 40, "height": 1.7, "color": "blue"}
MODEL = "variants/fp32.onnx"
(WIDTH,) = TABLE.inputs[0].shape


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("faults") / "served")


@pytest.fixture(scope="module")
def running(served: Served) -> Iterator[Running]:
    served.folder.mkdir()
    started = start_server(served.folder, served.folder.parent / "server.log")
    yield started
    end(started)


def add_golden(folder: Path, rows: tuple[Any, ...]) -> Path:
    bundle = Bundle.open(folder)
    golden = Golden(rows=rows, answers={"fp32": tuple(answer(Predictor(bundle), row) for row in rows)})
    write_text(folder / GOLDEN, golden.model_dump_json())
    Bundle(folder, bundle.manifest.replace(golden=sha256(folder / GOLDEN))).write()
    return folder


def describe_anew(folder: Path) -> None:
    """Write the digests of what lies in the bundle into its manifest."""
    bundle = Bundle.open(folder, verify=False)
    Bundle(folder, bundle.manifest.replace(variants=(describe_variant(folder, "fp32"),))).write()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate_the_manifest(folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def link_outside(folder: Path) -> None:
    outside = shutil.move(folder / MODEL, folder.parent / "outside.onnx")
    (folder / MODEL).symlink_to(outside)


def name_a_file_above(folder: Path) -> None:
    bundle = Bundle.open(folder)
    variant = bundle.manifest.variant().model_copy(update={"file": "../1/variants/fp32.onnx"})
    Bundle(folder, bundle.manifest.replace(variants=(variant,))).write()


def write_nothing(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"")
    describe_anew(folder)


def write_graph(folder: Path, nodes: list[onnx.NodeProto], *constants: TensorProto) -> None:
    """Another model, with its right digest."""
    graph = helper.make_graph(
        nodes,
        "fault",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "labels"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / MODEL).write_bytes(model.SerializeToString())
    describe_anew(folder)


def constant(name: str, values: Any) -> TensorProto:
    return numpy_helper.from_array(np.array(values), name)


def weights_from(location: str, **more: int) -> TensorProto:
    """A matrix whose values lie in another file."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WIDTH, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, str(value)
    return weights


def read_weights_from(location: str, file: str = "", **more: int) -> Callable[[Path], None]:
    """A model with weights elsewhere; what lies there are right ones, if that is below the model's folder."""

    def damage(folder: Path) -> None:
        path = Path(os.path.normpath(folder / "variants" / (file or location)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(np.ones((WIDTH, 2), np.float32).tobytes())
        wanted = location.replace("{absolute}", str(path))
        write_graph(folder, [helper.make_node("MatMul", ["x", "w"], ["logits"])], weights_from(wanted, **more))

    return damage


def fail_at_run(folder: Path) -> None:
    write_graph(folder, [helper.make_node("Gather", ["x", "ninth"], ["logits"], axis=1)], constant("ninth", [2 * WIDTH]))


def answer_nan(folder: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores"]), helper.make_node("Div", ["scores", "zero"], ["logits"])]
    write_graph(folder, nodes, constant("w", np.zeros((WIDTH, 2), np.float32)), constant("zero", np.float32(0)))


def answer_three_labels(folder: Path) -> None:
    write_graph(folder, [helper.make_node("MatMul", ["x", "w"], ["logits"])], constant("w", np.ones((WIDTH, 3), np.float32)))


def declare_a_huge_constant(folder: Path) -> None:
    write_graph(
        folder,
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WIDTH, 2**50]),
    )


def compute_a_huge_tensor(folder: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["one"]),
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Add", ["scores", "one"], ["logits"]),
    ]
    write_graph(folder, nodes, constant("shape", [2**50]), constant("w", np.ones((WIDTH, 2), np.float32)))


def answer_otherwise(folder: Path) -> None:
    shutil.rmtree(folder / "variants")
    write_onnx(folder / MODEL, TABLE, -1.0)
    describe_anew(folder)


CANNOT = "ONNX Runtime cannot load and run its variant 'fp32'"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped-variant": (lambda folder: flip_a_byte(folder / MODEL), f"{MODEL} differs from its digest"),
    "flipped-golden": (lambda folder: flip_a_byte(folder / GOLDEN), f"{GOLDEN} differs from its digest"),
    "missing-golden": (lambda folder: (folder / GOLDEN).unlink(), f"{GOLDEN} is missing"),
    "unnamed-file": (lambda folder: (folder / "variants" / "more.bin").write_bytes(b"1"), "says nothing of the file variants/more.bin"),
    "truncated-manifest": (truncate_the_manifest, "bundle.json cannot be read"),
    "file-above": (name_a_file_above, "the file ../1/variants/fp32.onnx lies outside of the bundle"),
    "link-outside": (link_outside, f"the file {MODEL} lies outside of the bundle"),
    "no-bytes": (write_nothing, CANNOT),
    "weights-at-an-absolute-path": (read_weights_from("{absolute}", "../../weights.bin"), CANNOT),
    "weights-above": (read_weights_from("../../weights.bin"), CANNOT),
    "weights-above-in-a-detour": (read_weights_from("../variants/../../weights.bin"), CANNOT),
    "weights-without-a-digest": (read_weights_from("weights.bin"), "says nothing of the file variants/weights.bin"),
    "weights-without-a-digest-below": (read_weights_from("more/weights.bin"), "says nothing of the file variants/more/weights.bin"),
    "weights-at-an-address": (read_weights_from("*/_ORT_MEM_ADDR_/*", "fp32.onnx.data", offset=4096, length=8 * WIDTH), CANNOT),
    "weights-beyond-their-file": (read_weights_from("fp32.onnx.data", offset=2**60), CANNOT),
    "fails-at-run": (fail_at_run, CANNOT),
    "nan": (answer_nan, "its output 'logits' is not finite"),
    "three-labels": (answer_three_labels, "its output 'logits' has the shape [1, 3], expected [1, 2]"),
    "huge-constant": (declare_a_huge_constant, CANNOT),
    "huge-tensor": (compute_a_huge_tensor, CANNOT),
    "other-answers": (answer_otherwise, "it answers 1 of 1 golden rows otherwise than when it was released"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_bundle_is_refused_and_the_version_before_goes_on(name: str, served: Served, running: Running) -> None:
    damage, says = FAULTS[name]
    served.serve(name, "1")
    until(running, name, lambda reply: reply.status_code == 200)
    damage(add_golden(served.add(name, "2"), (ROW,)))
    served.point(name, "2")
    told = until(running, name, lambda reply: "problem" in reply.json()["properties"])
    assert told["versions"] == ["1"]
    assert told["properties"]["problem"].startswith("version 2 cannot be served: ")
    assert says in told["properties"]["problem"]
    assert str(served.folder) not in told["properties"]["problem"]
    assert f'maasflow_reloads_total{{model="{name}",outcome="failed"}}' in running.client.get("/metrics").text
    assert running.client.post(f"/v1/models/{name}/predict", json={"instances": [ROW]}).json()["version"] == "1"


@pytest.mark.parametrize(("damage", "says"), [(flip_a_byte, "differs from its digest"), (Path.unlink, "is missing")])
def test_a_tokenizer_that_is_another_or_gone_is_refused(
    damage: Callable[[Path], object], says: str, served: Served, running: Running
) -> None:
    name = says.replace(" ", "-")
    write_classifier(served.folder / name / "1", name)
    served.point(name, "1")
    until(running, name, lambda reply: reply.status_code == 200)
    write_classifier(served.folder / name / "2", name)
    damage(served.folder / name / "2" / TOKENIZER)
    served.point(name, "2")
    told = until(running, name, lambda reply: "problem" in reply.json()["properties"])
    assert told["properties"]["problem"] == f"version 2 cannot be served: bundle '{name}': {TOKENIZER} {says}"
    assert running.client.post(f"/v1/models/{name}/predict", json={"instances": ["a good day"]}).json()["version"] == "1"


def test_what_could_not_be_read_for_a_while_is_served_by_itself(served: Served, running: Running) -> None:
    served.serve("healing", "1")
    until(running, "healing", lambda reply: reply.status_code == 200)
    folder = served.add("healing", "2")
    shutil.move(folder, away := folder.with_name("away"))
    served.point("healing", "2")
    until(running, "healing", lambda reply: "problem" in reply.json()["properties"])
    shutil.move(away, folder)
    told = until(running, "healing", lambda reply: reply.json()["versions"] == ["2"])
    assert "problem" not in told["properties"]


def test_weights_beside_a_model_that_have_a_digest_are_read(served: Served, running: Running) -> None:
    read_weights_from("fp32.onnx.data")(served.add("apart", "1"))
    served.point("apart", "1")
    assert until(running, "apart", lambda reply: reply.status_code == 200)["versions"] == ["1"]


def test_golden_rows_that_hold_are_no_hindrance(served: Served, running: Running) -> None:
    add_golden(served.add("held", "1"), (ROW, {**ROW, "height": None}))
    served.point("held", "1")
    assert until(running, "held", lambda reply: reply.status_code == 200)["versions"] == ["1"]
