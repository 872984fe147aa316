"""The bundle: what is written is what is read, and nothing altered is opened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.bundle import Bundle, describe_variant
from tasks.core.errors import BundleError
from tasks.core.tokenizing import TOKENIZER
from tests.texts import write_classifier


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return caught.value.what


def edit(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> Path:
    path = bundle.folder / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return bundle.folder


def test_a_bundle_is_read_as_it_was_written(bundle: Bundle) -> None:
    assert Bundle.open(bundle.folder) == bundle


def test_a_bundle_from_before_rows_were_checked_against_each_other_takes_any(bundle: Bundle) -> None:
    folder = edit(bundle, lambda values: values["variants"][0].pop("batch"))
    assert Bundle.open(folder).manifest.variant().batch == "any"


def test_measurements_from_before_all_were_taken_are_read(bundle: Bundle) -> None:
    machine = {"system": "Linux", "processor": "x", "instructions": [], "cores": 2}
    figures = {"metrics": {"test": {"accuracy": 0.9}}, "latency_ms": {"1": {"p50": 1.0, "p99": 2.0}}, "agreement": 1.0, "machine": machine}
    found = Bundle.open(edit(bundle, lambda values: values["variants"][0].update(measurements=figures))).manifest.variant().measurements
    assert found
    assert (found.memory_mb, found.load_ms, found.test_difference, found.invariance, found.runtime) == (None,) * 5


def test_a_bundle_may_be_moved(bundle: Bundle, tmp_path: Path) -> None:
    moved = bundle.folder.rename(tmp_path / "moved")
    assert Bundle.open(moved).file() == moved / "variants" / "fp32.onnx"


def test_one_flipped_bit_is_found(bundle: Bundle) -> None:
    content = bytearray(bundle.file().read_bytes())
    content[len(content) // 2] ^= 1
    bundle.file().write_bytes(content)
    assert refused(bundle.folder) == "bundle 'tiny': variants/fp32.onnx differs from its digest"


def test_a_missing_file_is_found(bundle: Bundle) -> None:
    bundle.file().unlink()
    assert refused(bundle.folder) == "bundle 'tiny': variants/fp32.onnx is missing"


@pytest.mark.parametrize("file", ["../outside.onnx", "variants/../../outside.onnx", "/etc/passwd"])
def test_a_file_outside_of_the_bundle_is_refused(file: str, bundle: Bundle) -> None:
    (bundle.folder.parent / "outside.onnx").write_bytes(bundle.file().read_bytes())
    folder = edit(bundle, lambda values: values["variants"][0].update(file=file))
    assert refused(folder) == f"bundle 'tiny': the file {file} lies outside of the bundle"


def test_a_link_out_of_the_bundle_is_refused(bundle: Bundle) -> None:
    outside = bundle.file().rename(bundle.folder.parent / "outside.onnx")
    (bundle.folder / "variants" / "fp32.onnx").symlink_to(outside)
    assert "lies outside of the bundle" in refused(bundle.folder)


@pytest.mark.parametrize("version", [2, "1", None])
def test_another_format_is_refused(version: object, bundle: Bundle) -> None:
    folder = edit(bundle, lambda values: values.update(format=version))
    assert refused(folder).endswith(f"has the format {version!r}, this version of maasflow reads 1")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"format": 1}', b'{"format": 1, "name": 3}'])
def test_a_manifest_that_cannot_be_read_is_refused(content: bytes, bundle: Bundle) -> None:
    (bundle.folder / "bundle.json").write_bytes(content)
    assert "bundle.json" in refused(bundle.folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path} is not a bundle: it has no bundle.json"
    assert "is not a bundle" in refused(tmp_path / "nowhere")


def test_a_chosen_variant_that_is_not_there_is_refused(bundle: Bundle) -> None:
    folder = edit(bundle, lambda values: values.update(chosen="int8"))
    assert refused(folder) == "bundle 'tiny' has no variant 'int8'"


def test_files_that_were_verified_before_are_not_read_again(bundle: Bundle) -> None:
    bundle.file().write_bytes(b"altered")
    assert Bundle.open(bundle.folder, verify=False).manifest == bundle.manifest


def test_replacing_leaves_the_original_alone(bundle: Bundle) -> None:
    assert bundle.manifest.replace(name="other").name == "other"
    assert bundle.manifest.name == "tiny"


def test_a_texts_bundle_is_read_with_its_tokenizer(tmp_path: Path) -> None:
    written = write_classifier(tmp_path / "bundle")
    found = Bundle.open(written.folder)
    assert set(found.manifest.files) == {"variants/fp32.onnx", TOKENIZER}
    words = {"text": ["what a good day"]}
    assert found.manifest.transform.encode(words)["ids"].values.tolist() == written.manifest.transform.encode(words)["ids"].values.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(("damage", "said"), [("gone", f"{TOKENIZER} is missing"), ("altered", f"{TOKENIZER} differs from its digest")])
def test_a_tokenizer_that_is_not_the_one_of_the_training_is_refused(damage: str, said: str, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "bundle").folder / TOKENIZER
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"good"', '"goof"'))
    assert refused(path.parent) == f"bundle 'moods': {said}"


@pytest.mark.parametrize(("damage", "said"), [("gone", "is missing"), ("altered", "differs from its digest")])
def test_weights_beside_the_model_are_verified_with_it(damage: str, said: str, bundle: Bundle) -> None:
    data = bundle.file().with_name("fp32.onnx.data")
    data.write_bytes(b"weights")
    Bundle(bundle.folder, bundle.manifest.replace(variants=(describe_variant(bundle.folder, "fp32"),))).write()
    found = Bundle.open(bundle.folder)
    assert found.manifest.variant().bytes == bundle.file().stat().st_size + 7
    if damage == "gone":
        data.unlink()
    else:
        data.write_bytes(b"Weights")
    assert refused(bundle.folder) == f"bundle 'tiny': variants/fp32.onnx.data {said}"
