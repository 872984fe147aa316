"""The `maasflow` command. Each command imports what it needs when it is called, so that `--help` is instant."""

import gc
import sys
from pathlib import Path
from typing import Any

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="maasflow")
@click.option("--debug", is_flag=True, help="Show tracebacks and the libraries' own messages.")
def cli(debug: bool) -> None:
    """From a versioned dataset to a gated, compressed model answering over HTTP."""
    from flows.environment import quiet_libraries

    quiet_libraries(debug=debug)


@cli.command()
@click.argument("recipe")
@click.option("--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Differ from the recipe file, as in training.epochs=3.")
@click.option("--force", is_flag=True, help="Do every stage again, also those whose inputs have not changed.")
def run(recipe: str, settings: tuple[str, ...], force: bool) -> None:
    """Run RECIPE: data, training, evaluation, export, compression, gates, release."""
    from flows.run import run_recipe

    click.echo("\n" + run_recipe(recipe, settings, force=force).text())


@cli.command()
@click.argument("recipe")
@click.option("--trials", type=click.IntRange(1), help="Trainings in all, earlier ones included; tuning.trials where not given.")
@click.option("--force", is_flag=True, help="Replace recipes/RECIPE-tuned.yaml also where this command did not write it.")
def tune(recipe: str, trials: int | None, force: bool) -> None:
    """Try values of RECIPE's section `tuning`, and write the best as the recipe RECIPE-tuned."""
    from flows.tune import tune_recipe

    click.echo(tune_recipe(recipe, trials, force=force))


@cli.command()
@click.argument("model")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE", help="Differ from its recipe, as in compression.objective=size."
)
def compress(model: str, settings: tuple[str, ...]) -> None:
    """Search anew for the best variant of a release, and register it as challenger.

    MODEL is NAME, NAME@ALIAS or NAME@VERSION; without either the champion is meant.
    """
    from flows.compress import compress_release

    click.echo("\n" + compress_release(model, settings))


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option(
    "--workers",
    "processes",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that answer, each with a share of the cores.",
)
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Speak gRPC there too; 0 takes any free port.")
@click.option(
    "--follow/--no-follow", default=True, show_default=True, help="Follow the registry: serve what becomes champion while this runs."
)
@click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A certificate chain in PEM: speak TLS.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its private key.")
@click.option("--redis", metavar="URL", help="Where servers share what API keys have left.")
@click.option(
    "--trust", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Public keys in PEM: serve only what one of them signed."
)
@click.option("--insecure", is_flag=True, help="Listen on other addresses than this machine's own without API keys.")
@click.option("--access-log", is_flag=True, help="Log each request as one line of JSON.")
def serve(host: str, port: int, follow: bool, **settings: Any) -> None:
    """Serve every model that has a champion.

    From the first API key on (maasflow keys create), every request needs one.
    """
    from flows.serving import serve_here

    sys.exit(serve_here(host, port, settings, follow=follow))


@cli.group()
def keys() -> None:
    """API keys: who may ask the server, for what, how often; and the key that signs releases."""


@keys.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["infer", "admin"]), help="What it may do; infer where not given.")
@click.option("--model", "models", multiple=True, metavar="PATTERN", help="Models that it may ask, as in sst2-*; all where not given.")
@click.option("--requests", type=click.FloatRange(0, min_open=True), help="Requests a second.")
@click.option("--units", type=click.FloatRange(0, min_open=True), help="Compute units a second: rows, or tokens of texts.")
def keys_create(name: str, scopes: tuple[str, ...], models: tuple[str, ...], requests: float | None, units: float | None) -> None:
    """Make a key for NAME, and print it: this once, as only its digest is kept."""
    from flows.keys import make_key

    key, secret = make_key(name, scopes, models, requests, units)
    click.echo(secret)
    click.echo(f"this is key {key.id} of {name}; it is not kept, so keep it: 'Authorization: Bearer {secret[:12]}…'", err=True)


@keys.command("list")
def keys_list() -> None:
    """Print all keys, without what makes them work."""
    from flows.keys import listed_keys

    click.echo(listed_keys())


@keys.command("revoke")
@click.argument("id")
def keys_revoke(id: str) -> None:  # noqa: A002 - click's name of the argument
    """Revoke the key ID, also for a server that runs."""
    from flows.keys import end_key

    key = end_key(id)
    click.echo(f"key {key.id} of {key.name} is revoked")


@keys.command("signing")
@click.argument("file", type=click.Path(path_type=Path))
def keys_signing(file: Path) -> None:
    """Make a key that signs releases: FILE, to be kept, and FILE.pub, for servers."""
    from flows.keys import make_signing_key

    click.echo(make_signing_key(file))


@cli.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--variant", help="Another variant than the bundle's chosen one, as in fp32.")
def predict(name: str, file: Path, variant: str | None) -> None:
    """Predict with the champion of model NAME, without a server.

    FILE is an image, a .txt, a .csv with a header, or a .json with one input or a list of them. The answer is a line of JSON
    for each input; a language model continues each.
    """
    from flows.predict import predict_file

    for line in predict_file(name, file, variant):
        click.echo(line)


@cli.command()
def demo() -> None:
    """Run the recipe digits-mlp, serve it, send it one held-out image, and stop."""
    from flows.demo import run_demo

    run_demo()


@cli.command()
@click.argument("name")
@click.argument("version")
@click.option("--unmeasured", is_flag=True, help="Go on without measuring VERSION here, where its figures are of another machine.")
def promote(name: str, version: str, unmeasured: bool) -> None:
    """Make VERSION of model NAME the champion, after review.

    On another machine than the one it was measured on, its accuracy and latency are first taken again, and held against its recipe.
    """
    from flows.release import promote_version

    click.echo(promote_version(name, version, unmeasured=unmeasured))


@cli.command()
@click.argument("name")
@click.argument("kind", type=click.Choice(["none", "shadow", "canary"]))
@click.argument("share", required=False, metavar="[SHARE]")
def traffic(name: str, kind: str, share: str | None) -> None:
    """Say what the challenger of model NAME gets of the requests: none, a shadow copy of SHARE of them, or as a canary SHARE to answer.

    SHARE is a percentage, as in 10%. It is written into the tag `traffic` of the challenger's version; servers follow it.
    """
    from flows.release import direct_traffic

    click.echo(direct_traffic(name, f"{kind} {share}" if share else kind))


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path) -> None:
    """Make FOLDER a workspace: DVC's files, data/ with the datasets of the shipped recipes, docs/schema/ for editors."""
    from flows.data import init_workspace

    init_workspace(folder)
    click.echo(f"{folder} is a workspace: put a dataset into data/NAME.yaml and a recipe into recipes/NAME.yaml, then maasflow run NAME")


@cli.group()
def data() -> None:
    """Datasets and their versions."""


@data.command("version")
@click.argument("name")
def data_version(name: str) -> None:
    """Print the digest of dataset NAME, which runs and releases record."""
    from flows.data import version_digest

    click.echo(version_digest(name))


@data.command("build")
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch, validate and prepare again.")
def data_build(name: str, force: bool) -> None:
    """Fetch, validate and prepare dataset NAME; print its digest."""
    from flows.data import build_dataset

    click.echo(build_dataset(name, force=force))


@cli.group()
def export() -> None:
    """Releases for other servers."""


@export.command("triton")
@click.argument("model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_triton(model: str, folder: Path) -> None:
    """Write a release into FOLDER as a model repository of NVIDIA's Triton Inference Server.

    MODEL is NAME, NAME@ALIAS or NAME@VERSION; without either the champion is meant. FOLDER gets NAME/config.pbtxt and
    NAME/1/model.onnx. Triton serves tensors only: raw inputs (a text, an image, a row) need the release's transform, with its
    tokenizer, in front of it, which `maasflow serve` brings along.
    """
    from flows.export import export_triton

    click.echo(export_triton(model, folder))


@cli.command()
@click.argument("noun", type=click.Choice(["recipe", "dataset"]))
def schema(noun: str) -> None:
    """Print the JSON Schema of a recipe or dataset file."""
    from tasks.schema import text

    click.echo(text(noun), nl=False)  # type: ignore[arg-type]


@cli.command()
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(port: int) -> None:
    """Open MLflow's page on this workspace: runs, plots, and the registry."""
    from flows.pages import open_mlflow

    open_mlflow(port)


@cli.command()
def clean() -> None:
    """Remove cached stages. Datasets, MLflow's runs and served bundles stay."""
    from flows.release import clean_stages

    click.echo(clean_stages())


def main() -> None:
    """Run the command; exit 0, 1 for a failure that is explained, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        cli.main(prog_name="maasflow", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the last frame before the shell
        from tasks.core.command import report

        sys.exit(report(error))
    finally:
        # The interpreter would look through every object of every library once more as it ends, which takes longer than
        # many a command.
        gc.freeze()


if __name__ == "__main__":
    main()
