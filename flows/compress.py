"""`maasflow compress`: the compression flow, here and now."""

from flows.run import interrupt_deferred
from flows.server import prefect_server
from tasks.core.imports import quick_imports
from tasks.core.workspace import Workspace


def compress_release(model: str, settings: tuple[str, ...] = ()) -> str:
    """Search for the best variant of a release and register it as challenger; what to tell. Raises MaasflowError."""
    workspace = Workspace.current()
    with prefect_server(workspace) as server:
        with interrupt_deferred(), quick_imports():
            from flows.check import check_release
            from flows.compression import Again, compression

        check_release(Again.of(model, settings, root=workspace.root).recipe)
        with server.answering():
            return compression(model, list(settings), workspace=workspace.root)
