"""The pages of the tools that maasflow stands on, opened on this workspace."""

import os
import sys

from tasks.core.errors import MaasflowError
from tasks.core.workspace import Workspace


def open_mlflow(port: int) -> None:
    """Become MLflow's server on the embedded store. Raises MaasflowError where a server is configured, or nothing is stored."""
    workspace = Workspace.current()
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    if configured and not configured.startswith("sqlite"):
        raise MaasflowError(f"MLFLOW_TRACKING_URI is {configured}: its page is there", "unset it for the embedded store's page")
    if not configured and not (workspace.mlruns / "mlflow.db").is_file():
        raise MaasflowError(f"nothing is in {workspace.mlruns} yet", "run a recipe first, as in: maasflow run digits-mlp")
    store = configured or f"sqlite:///{workspace.mlruns / 'mlflow.db'}"
    print(f"MLflow's page is http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    arguments = ["--backend-store-uri", store, "--default-artifact-root", str(workspace.mlruns / "artifacts")]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *arguments, "--port", str(port), "--workers", "1"])
