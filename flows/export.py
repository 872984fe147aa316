"""`maasflow export`: a release for other servers than maasflow's own."""

from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.triton import write_repository
from tasks.core.bundle import Bundle
from tasks.core.workspace import Workspace
from tasks.delivery import fetch
from tasks.releases import find_release
from tasks.tracking import Tracking


def export_triton(model: str, folder: Path) -> str:
    """Write a release into a Triton model repository; what to tell. Raises RegistryError, BundleError, MaasflowError."""
    tracking = Tracking.of(Workspace.current())
    release = find_release(tracking, model)
    with TemporaryDirectory() as temporary:
        fetched = Path(temporary) / release.version
        fetch(tracking, release.name, release.version, fetched)
        bundle = Bundle.open(fetched, verify=False)
        written = write_repository(bundle, release.name, release.version, folder)
    return (
        f"{written} is {release.name} version {release.version}, its variant {bundle.manifest.chosen}: tensors in, tensors out\n"
        f"next     tritonserver --model-repository {folder.resolve()}"
    )
