"""What a person would write without maasflow: one script with the library calls of the recipe digits-mlp.

It keeps nothing between runs, resumes nothing, gates nothing and versions no data. Run as `python bare.py FOLDER`.
"""
# mypy: disable-error-code="attr-defined"

import io
import os
import shutil
import sys
import time
from pathlib import Path

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", GX_ANALYTICS_ENABLED="false")

import great_expectations as gx
import mlflow
import numpy as np
import onnxruntime as ort
import pandas as pd
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

FOLDER = Path(sys.argv[1])
EPOCHS, BATCH = 40, 32


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray((pixels / 16 * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


digits = load_digits()
frame = pd.DataFrame({"image": [png(image) for image in digits.images], "label": digits.target}).drop_duplicates()
frame.to_parquet(FOLDER / "digits.parquet")

context = gx.get_context(mode="ephemeral")
batch = context.data_sources.add_pandas("pandas").add_dataframe_asset("digits").add_batch_definition_whole_dataframe("all")
suite = gx.ExpectationSuite("digits")
for expectation in (
    gx.expectations.ExpectColumnToExist(column="image"),
    gx.expectations.ExpectColumnToExist(column="label"),
    gx.expectations.ExpectColumnValuesToNotBeNull(column="image"),
    gx.expectations.ExpectColumnValuesToNotBeNull(column="label"),
    gx.expectations.ExpectColumnValuesToBeInSet(column="label", value_set=list(range(10))),
    gx.expectations.ExpectTableRowCountToBeBetween(min_value=1000),
    gx.expectations.ExpectColumnValuesToBeUnique(column="image"),
):
    suite.add_expectation(expectation)
assert batch.get_batch({"dataframe": frame}).validate(suite).success

pixels = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in frame["image"]])[:, None].astype(np.float32) / 255
labels = frame["label"].to_numpy()
x, x_test, y, y_test = train_test_split(pixels, labels, test_size=0.2, stratify=labels, random_state=0)
x, x_val, y, y_val = train_test_split(x, y, test_size=0.125, stratify=y, random_state=0)

client_uri = f"sqlite:///{FOLDER / 'mlflow.db'}"
mlflow.set_tracking_uri(client_uri)
client = MlflowClient(client_uri)
experiment = client.get_experiment_by_name("bare")
where = experiment.experiment_id if experiment else client.create_experiment("bare", str(FOLDER / "artifacts"))
run = client.create_run(where)

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
model = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10)
)
steps = EPOCHS * -(-len(x) // BATCH)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
model, optimizer = accelerator.prepare(model, optimizer)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), BATCH, shuffle=True)
best, history = float("inf"), []
for epoch in range(EPOCHS):
    model.train()
    for inputs, targets in loader:
        loss = functional.cross_entropy(model(inputs), targets, label_smoothing=0.05)
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(x_val)).softmax(1).numpy()
    validation = log_loss(y_val, probabilities, labels=range(10))
    history.append(validation)
    accuracy = accuracy_score(y_val, probabilities.argmax(1))
    now = int(time.time() * 1000)
    client.log_batch(
        run.info.run_id, [Metric("validation_log_loss", validation, now, epoch), Metric("validation_accuracy", accuracy, now, epoch)]
    )
    if validation < best:
        best = validation
        torch.save(model.state_dict(), FOLDER / "best.pt")
model.load_state_dict(torch.load(FOLDER / "best.pt"))
model.eval()

with torch.inference_mode():
    probabilities = model(torch.from_numpy(x_test)).softmax(1).numpy()
predicted = probabilities.argmax(1)
draws = np.random.default_rng(0).integers(0, len(y_test), (1000, len(y_test)))
low, high = np.percentile((predicted == y_test)[draws].mean(axis=1), [2.5, 97.5])
precision_recall_fscore_support(y_test, predicted)
for name, value in {
    "accuracy": accuracy_score(y_test, predicted),
    "macro_f1": f1_score(y_test, predicted, average="macro"),
    "log_loss": log_loss(y_test, probabilities),
    "low": low,
    "high": high,
}.items():
    client.log_metric(run.info.run_id, name, value)
pictures = FOLDER / "pictures"
pictures.mkdir(exist_ok=True)
figure = Figure()
figure.add_subplot().imshow(confusion_matrix(y_test, predicted))
figure.savefig(pictures / "confusion.png")
figure = Figure()
figure.add_subplot().plot(history)
figure.savefig(pictures / "curves.png")
figure = Figure()
figure.add_subplot().hist(probabilities.max(axis=1))
figure.savefig(pictures / "confidence.png")
client.log_artifacts(run.info.run_id, str(pictures), "pictures")

bundle = FOLDER / "bundle"
shutil.rmtree(bundle, ignore_errors=True)
bundle.mkdir()
torch.onnx.export(
    model,
    (torch.from_numpy(x_test[:2]),),
    str(bundle / "fp32.onnx"),
    dynamo=False,
    input_names=["x"],
    output_names=["logits"],
    dynamic_axes={"x": {0: "batch"}},
)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches = iter([x[start : start + 32] for start in range(0, 512, 32)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(({"x": batch} for batch in self.batches), None)


quant_pre_process(bundle / "fp32.onnx", FOLDER / "prepared.onnx", skip_symbolic_shape=True)
quantize_dynamic(FOLDER / "prepared.onnx", bundle / "int8_dynamic.onnx", per_channel=True, weight_type=QuantType.QInt8)
quantize_static(
    FOLDER / "prepared.onnx",
    bundle / "int8_static.onnx",
    Reader(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8,
)
for variant in ("fp32", "int8_dynamic", "int8_static"):
    session = ort.InferenceSession(str(bundle / f"{variant}.onnx"), providers=["CPUExecutionProvider"])
    for _ in range(300):
        session.run(None, {"x": x_test[:1]})
    for _ in range(300):
        session.run(None, {"x": x_test[:32]})
    (logits,) = session.run(None, {"x": x_test})
    client.log_metric(run.info.run_id, f"accuracy_{variant}", accuracy_score(y_test, logits.argmax(1)))

client.log_artifacts(run.info.run_id, str(bundle), "bundle")
if not client.search_registered_models("name = 'bare'"):
    client.create_registered_model("bare")
version = client.create_model_version("bare", f"runs:/{run.info.run_id}/bundle", run.info.run_id)
client.set_registered_model_alias("bare", "champion", version.version)
client.set_terminated(run.info.run_id)
print(f"accuracy {accuracy_score(y_test, predicted):.4f}, version {version.version}")
