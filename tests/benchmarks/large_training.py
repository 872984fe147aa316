"""One stage of the workspace's recipe `large`, as `large_table` runs it: `python -m tests.benchmarks.large_training STAGE`.

With the libraries of all stages loaded, as in `maasflow run`.
"""

import sys

from tasks.compress import compress
from tasks.core.bundle import DatasetVersion
from tasks.core.encoded import Encoded
from tasks.core.workspace import Workspace
from tasks.encode import encode
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.plan import Plan
from tasks.train import TrainResult, train


def main() -> None:
    stage, root = sys.argv[1], Workspace.current().root
    plan = Plan.open("large", root=root)
    recipe, dataset, encoded = plan.recipe, plan.dataset, Encoded(root / "encoded")
    trained, exported, out = root / "train", root / "export", root / stage
    out.mkdir()
    if stage == "encode":
        encoded.folder.mkdir()
        encode(recipe, dataset, plan.workspace.prepared(recipe.dataset), encoded.folder)
    elif stage == "train":
        result = train(recipe, len(dataset.classes), encoded, out)
        (out / "result.json").write_text(result.model_dump_json())
    elif stage == "evaluate":
        training = TrainResult.model_validate_json((trained / "result.json").read_bytes())
        evaluate(recipe, dataset.class_names, encoded, trained, training, out)
    elif stage == "export":
        export(recipe, plan.name, dataset, DatasetVersion(name=recipe.dataset, raw="0", digest="0", rows={}), encoded, trained, out)
    else:
        compress(recipe, encoded, exported, out)


if __name__ == "__main__":
    main()
