"""int8 weights, with activations scaled anew at each call."""

from pathlib import Path

from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from tasks.compression import Compressor, Subject, weights_beside


class Int8Dynamic(Compressor):
    """ONNX Runtime's dynamic quantisation. It needs no calibration, but scales activations over the whole batch."""

    per_channel: bool = True

    def compress(self, source: Path, target: Path, subject: Subject) -> None:  # noqa: ARG002 - dynamic
        quantize_dynamic(
            source,
            target,
            per_channel=self.per_channel,
            weight_type=QuantType.QInt8,
            use_external_data_format=weights_beside(source).is_file(),
            # Fused nodes are of no standard operator set, so that types beyond them are not inferred.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
