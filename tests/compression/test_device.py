"""The search on a CUDA device, and where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.compress import compress
from tasks.compression import COMPRESSORS, Subject
from tasks.compression.memory import session_memory
from tasks.core.bundle import Bundle
from tasks.core.errors import MaasflowError
from tasks.core.machine import cuda_device
from tasks.export import BUNDLE
from tests.tiny import Stages, recipe

with_device = pytest.mark.skipif(cuda_device() is None, reason="needs a CUDA device")
without_device = pytest.mark.skipif(cuda_device() is not None, reason="there is a CUDA device")


def searched(stages: Stages, out: Path, **sections: Any) -> Any:
    out.mkdir()
    return compress(recipe(**sections), stages.encoded, stages.folder("exported"), out)


@without_device
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_a_device_fp16_is_not_applicable_and_the_table_says_so(device: str, stages: Stages, tmp_path: Path) -> None:
    chains = [{"kind": "fp16"}, [{"kind": "fp16"}, {"kind": "int8_weights"}]]
    found = searched(stages, tmp_path / "out", compression={"compressors": chains}, serving={"device": device})
    reason = "not applicable here: there is no CUDA device"
    assert found.failed == {"fp16": reason, "fp16.int8_weights": reason}
    assert found.table().count(reason) == 2


@without_device
def test_without_a_device_a_search_for_one_is_an_error_and_chooses_nothing(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(MaasflowError, match=r"serving\.device asks for a CUDA device"):
        searched(stages, tmp_path / "out", serving={"device": "cuda"})
    assert not (tmp_path / "out" / BUNDLE / "bundle.json").exists()


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_what_has_no_kernel_on_cuda_is_not_tried_there(kind: str, stages: Stages) -> None:
    wanted = recipe(serving={"device": "cuda"})
    reason = COMPRESSORS.build({"kind": kind}).unfit(Subject(wanted, stages.encoded, 3, stages.folder("trained"))) or ""
    assert ("CUDA" in reason) == (kind in {"graph", "int8_dynamic", "int8_rows", "int8_static"})


def test_the_bundle_is_served_as_the_search_measured_it(stages: Stages, tmp_path: Path) -> None:
    searched(stages, tmp_path / "out", compression={"compressors": []}, serving={"threads": 2, "device": "cpu"})
    manifest = Bundle.open(tmp_path / "out" / BUNDLE).manifest
    assert (manifest.threads, manifest.device) == (2, "cpu")


# On a device.


@with_device
def test_on_a_device_fp16_is_measured_beside_fp32(stages: Stages, tmp_path: Path) -> None:
    found = searched(stages, tmp_path / "out", compression={"compressors": [{"kind": "fp16"}]}, serving={"device": "cuda"})
    assert [candidate.name for candidate in found.candidates] == ["fp32", "fp16"]
    assert found.candidates[1].agreement >= 0.99
    measured = Bundle.open(tmp_path / "out" / BUNDLE).manifest.variant("fp16").measurements
    assert measured
    assert measured.runtime
    assert (measured.runtime.provider, measured.machine.cuda) == ("CUDAExecutionProvider", cuda_device())


@with_device
def test_on_a_device_its_own_memory_is_measured(stages: Stages) -> None:
    model = Bundle.open(stages.folder("exported") / BUNDLE).file()
    assert session_memory(model, 1, [stages.encoded.split("test").tensors(np.arange(32))], "cuda") >= 0
