"""A bundle as a Triton model repository. No Triton runs here: its schema reads the configuration, and ONNX Runtime the model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from deploy.serving.settings import Settings
from deploy.serving.waiting import MOST_ROWS
from deploy.triton import config, write_repository
from tasks.core.bundle import Bundle, describe_variant
from tasks.core.errors import MaasflowError
from tests.deploy.conftest import Tool
from tests.serving.conftest import IMAGE, Served
from tests.texts import write_classifier, write_language_model

# The package around the schema needs gRPC, the schema itself does not.
PARSE = """
import importlib.util, sys
from pathlib import Path
from google.protobuf import json_format, text_format
(package,) = importlib.util.find_spec("tritonclient").submodule_search_locations
spec = importlib.util.spec_from_file_location("model_config_pb2", Path(package) / "grpc" / "model_config_pb2.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
parsed = text_format.Parse(Path(sys.argv[1]).read_text(), module.ModelConfig())
print(json_format.MessageToJson(parsed, preserving_proto_field_name=True))
"""


@pytest.fixture
def bundle(served: Served) -> Bundle:
    return Bundle.open(served.add("marks", "3", IMAGE))


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "served")


def changed(bundle: Bundle, **changes: Any) -> Bundle:
    return Bundle(bundle.folder, bundle.manifest.replace(**changes))


def one_at_a_time(bundle: Bundle) -> Bundle:
    return changed(bundle, variants=tuple(variant.model_copy(update={"batch": "one"}) for variant in bundle.manifest.variants))


def parsed(tool: Tool, tmp_path: Path, bundle: Bundle, name: str = "marks") -> dict[str, Any]:
    """The configuration as Triton's schema reads it."""
    model = write_repository(bundle, name, "3", tmp_path / "triton")
    done = tool("python", "-c", PARSE, model / "config.pbtxt")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_configuration_says_what_our_server_does(tool: Tool, tmp_path: Path, bundle: Bundle) -> None:
    found = parsed(tool, tmp_path, bundle)
    assert (found["name"], found["platform"], found["backend"]) == ("marks", "onnxruntime_onnx", "onnxruntime")
    assert found["max_batch_size"] == MOST_ROWS
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["1", "4", "4"]}]
    assert found["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["2"], "label_filename": "labels.txt"}]
    assert found["version_policy"] == {"latest": {"num_versions": 1}}
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]
    policy = found["dynamic_batching"]["default_queue_policy"]
    assert int(policy["default_timeout_microseconds"]) == Settings().deadline * 1e6
    assert policy["max_queue_size"] == Settings().max_waiting
    assert found["parameters"]["intra_op_thread_count"] == {"string_value": "1"}
    assert found["parameters"]["maasflow.version"] == {"string_value": "3"}


@pytest.mark.slow
def test_rows_that_disturb_each_other_are_never_together(tool: Tool, tmp_path: Path, bundle: Bundle) -> None:
    found = parsed(tool, tmp_path, one_at_a_time(bundle))
    assert not {"max_batch_size", "dynamic_batching"} & found.keys()
    assert found["input"][0]["dims"] == ["1", "1", "4", "4"]
    assert found["output"][0]["dims"] == ["1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(("device", "kind"), [("cpu", "KIND_CPU"), ("cuda", "KIND_GPU"), ("auto", "KIND_AUTO")])
def test_it_runs_where_the_recipe_said(device: str, kind: str, tool: Tool, tmp_path: Path, bundle: Bundle) -> None:
    # A message leaves its default out.
    assert parsed(tool, tmp_path, changed(bundle, device=device))["instance_group"][0].get("kind", "KIND_AUTO") == kind


@pytest.mark.slow
def test_a_texts_length_is_open(tool: Tool, tmp_path: Path) -> None:
    found = parsed(tool, tmp_path, write_classifier(tmp_path / "moods"))
    assert {each["name"]: (each["data_type"], each["dims"]) for each in found["input"]} == {
        "input_ids": ("TYPE_INT64", ["-1"]),
        "attention_mask": ("TYPE_INT64", ["-1"]),
    }


@pytest.mark.slow
def test_a_language_models_state_is_among_its_tensors(tool: Tool, tmp_path: Path) -> None:
    found = parsed(tool, tmp_path, write_language_model(tmp_path / "writer"))
    assert {"hidden", "cell"} < {each["name"] for each in found["input"]}
    assert {"next_hidden", "next_cell"} < {each["name"] for each in found["output"]}
    assert not any("label_filename" in each for each in found["output"])


def test_a_name_with_quotes_stays_a_string(bundle: Bundle) -> None:
    output = bundle.manifest.outputs[0].model_copy(update={"name": 'a "b" \\ c'})
    assert r'name: "a \"b\" \\ c"' in config(bundle.manifest.replace(outputs=(output,)), "marks", "3")


def test_it_holds_the_model_and_the_classes(tmp_path: Path, bundle: Bundle) -> None:
    model = write_repository(bundle, "marks", "3", tmp_path / "new" / "triton")
    assert sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    assert (model / "1" / "model.onnx").read_bytes() == bundle.file().read_bytes()
    assert (model / "labels.txt").read_text() == "high\nlow\n"


def test_weights_in_files_of_their_own_come_along(tmp_path: Path, bundle: Bundle) -> None:
    onnx.save(onnx.load(bundle.file()), bundle.file(), save_as_external_data=True, location=f"{bundle.file().name}.data", size_threshold=0)
    external = changed(bundle, variants=(describe_variant(bundle.folder, "fp32"),))
    assert external.manifest.variant().external
    model = write_repository(external, "marks", "3", tmp_path / "triton")
    pixels = np.ones((1, 1, 4, 4), np.float32)
    (logits,) = ort.InferenceSession(str(model / "1" / "model.onnx" / "model.onnx")).run(None, {"x": pixels})
    assert logits[0].tolist() == [15.5, -15.5]


def test_what_was_written_before_is_replaced_as_a_whole(tmp_path: Path, bundle: Bundle) -> None:
    model = write_repository(bundle, "marks", "3", tmp_path / "triton")
    (model / "2").mkdir()
    write_repository(bundle, "marks", "4", tmp_path / "triton")
    assert "version 4" in (model / "config.pbtxt").read_text()
    assert not (model / "2").exists()
    assert [path.name for path in (tmp_path / "triton").iterdir()] == ["marks"]


def test_an_empty_folder_is_filled(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "triton" / "marks").mkdir(parents=True)
    assert (write_repository(bundle, "marks", "3", tmp_path / "triton") / "config.pbtxt").exists()


@pytest.mark.parametrize("file", ["config.pbtxt", "1/model.onnx"])
def test_somebody_elses_model_is_left_alone(file: str, tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "triton" / "marks" / file
    path.parent.mkdir(parents=True)
    path.write_text('name: "marks"')
    with pytest.raises(MaasflowError, match="maasflow did not write it"):
        write_repository(bundle, "marks", "3", tmp_path / "triton")
    assert path.read_text() == 'name: "marks"'


def test_a_failure_leaves_what_was_there(tmp_path: Path, bundle: Bundle) -> None:
    model = write_repository(bundle, "marks", "3", tmp_path / "triton")
    bundle.file().unlink()
    with pytest.raises(FileNotFoundError):
        write_repository(bundle, "marks", "4", tmp_path / "triton")
    assert "version 3" in (model / "config.pbtxt").read_text()
    assert [path.name for path in (tmp_path / "triton").iterdir()] == ["marks"]


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("../marks", {}, "its name has other signs"),
        ("marks", {"labels": ("high", "lo\nw")}, r"the class 'lo\\nw' is not one line"),
        ("marks", {"labels": ("high", "")}, "the class '' is not one line"),
    ],
)
def test_what_cannot_be_expressed_is_told_in_a_line(name: str, changes: dict[str, Any], why: str, tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(MaasflowError, match=why) as caught:
        write_repository(changed(bundle, **changes), name, "3", tmp_path / "triton")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "triton").exists()


def test_a_tensor_of_rows_alone_cannot_be_expressed(tmp_path: Path, bundle: Bundle) -> None:
    scalar = bundle.manifest.inputs[0].model_copy(update={"shape": ()})
    with pytest.raises(MaasflowError, match="'x' has no dimension beside the rows"):
        write_repository(changed(bundle, inputs=(scalar,)), "marks", "3", tmp_path / "triton")
