"""The machine that a figure was taken on, and in what it is another than this one."""

import pytest

from tasks.core.machine import Machine, Place, Runtime

HERE = Place(
    machine=Machine(system="Linux x86_64", processor="A", instructions=("avx2", "avx512f"), cores=2),
    runtime=Runtime(threads=2, provider="CPUExecutionProvider", onnxruntime="1.31.1"),
)


def changed(**changes: object) -> Place:
    parts = {
        name: getattr(HERE, name).model_copy(
            update={key: value for key, value in changes.items() if key in type(getattr(HERE, name)).model_fields}
        )
        for name in ("machine", "runtime")
    }
    return Place(**parts)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"system": "Darwin arm64"}, "system Linux x86_64, not Darwin arm64"),
        ({"processor": "B"}, "processor A, not B"),
        ({"instructions": ("avx2",)}, "instructions avx2 avx512f, not avx2"),
        ({"cores": 8}, "cores 2, not 8"),
        ({"threads": 1}, "threads 2, not 1"),
        ({"provider": "CUDAExecutionProvider"}, "provider CPUExecutionProvider, not CUDAExecutionProvider"),
        ({"onnxruntime": "1.30.0"}, "onnxruntime 1.31.1, not 1.30.0"),
        ({"cores": 8, "threads": 8}, "cores 2, not 8; threads 2, not 8"),
    ],
)
def test_whatever_differs_makes_another_place_and_is_told(change: dict[str, object], told: str) -> None:
    other = changed(**change)
    assert other.fingerprint != HERE.fingerprint
    assert HERE.unlike(other) == told


def test_equal_places_have_one_fingerprint() -> None:
    same = Place.model_validate_json(HERE.model_dump_json())
    assert same.fingerprint == HERE.fingerprint
    assert HERE.unlike(same) == ""


def test_a_place_that_was_not_written_down_is_told_so() -> None:
    assert HERE.unlike(None) == "which is not known"
