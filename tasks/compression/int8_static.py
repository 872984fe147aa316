"""int8 weights and activations, with scales calibrated on training rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from pydantic import Field

from tasks.compression import Compressor, Subject, calibration_batches, weights_beside
from tasks.core.transforms import Tensors

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class Int8Static(Compressor):
    """ONNX Runtime's static quantisation in QDQ form: a row's answer does not depend on its neighbours in the batch."""

    rows: Annotated[int, Field(ge=8)] = 512
    """Training rows to calibrate on."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True

    def unfit(self, subject: Subject) -> str | None:
        return "it cannot be calibrated on a language model's state" if subject.task == "language_modelling" else None

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        quantize_static(
            source,
            target,
            _Reader(calibration_batches(subject.train, self.rows)),
            quant_format=QuantFormat.QDQ,
            per_channel=self.per_channel,
            # U8S8 is the pair that has a fast kernel on x86 with and without VNNI.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[self.method],
            use_external_data_format=weights_beside(source).is_file(),
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterator[Tensors]) -> None:
        self._batches = batches

    def get_next(self) -> Tensors | None:
        return next(self._batches, None)
