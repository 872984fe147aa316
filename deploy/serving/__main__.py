"""`python -m deploy.serving --served FOLDER`: the server alone, where nothing else of maasflow is installed."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from deploy.serving.server import serve
from deploy.serving.settings import Settings
from tasks.core.errors import MaasflowError


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 after SIGTERM, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m deploy.serving", description="Serve verified bundles over HTTP.")
    parser.add_argument("--served", type=Path, required=True, help="the folder with <model>/current.json and <model>/<version>/")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--workers",
        dest="processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that answer, each with a share of the cores; limits hold for each, save those of API keys (default: %(default)s)",
    )
    parser.add_argument("--grpc-port", type=int, metavar="PORT", help="port for gRPC, 0 for a free one; without, gRPC is not spoken")
    defaults = Settings()
    for name, what in (
        ("max_body_bytes", "largest request body"),
        ("max_rows", "most instances, or rows of a tensor, in one request"),
        ("max_characters", "most characters of the texts in one request, or of one prompt"),
        ("max_pixels", "most pixels of the images in one request"),
        ("max_waiting", "most rows that wait for one model"),
        ("max_waiting_bytes", "most bytes of tensors that wait for one model"),
        ("deadline", "seconds in which a request is answered once it was read"),
        ("max_tokens", "most tokens that one generation may be asked for"),
        ("max_generations", "most generations at once"),
        ("payload_bytes", "most bytes that are kept of one model's requests"),
        ("read", "seconds in which a request must be sent whole"),
        ("keep_alive", "seconds for which a connection waits for another request"),
        ("watch", "seconds between looks at the pointers"),
        ("drain", "seconds after SIGTERM in which new connections are still answered"),
        ("grace", "seconds after SIGTERM in which requests in flight may finish"),
    ):
        default = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{what} (default: %(default)s)")
    parser.add_argument(
        "--keys", type=Path, help="a file with API keys, from maasflow keys; from the first key on, every request needs one"
    )
    parser.add_argument("--redis", metavar="URL", help="where servers share what keys have left, as redis://host:6379/0")
    parser.add_argument("--payloads", type=Path, metavar="FOLDER", help="where a sample of requests is kept, for recipes that ask for it")
    parser.add_argument("--comparisons", type=Path, metavar="FOLDER", help="where is kept how challengers did beside their champions")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="a certificate chain in PEM: speak TLS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="public keys in PEM: serve only what one of them signed")
    parser.add_argument("--insecure", action="store_true", help="listen on other addresses than this machine's own without API keys")
    parser.add_argument("--access-log", action="store_true", help="log each request as one line of JSON")
    options = vars(parser.parse_args(arguments))
    settings = Settings(**{field.name: options.pop(field.name) for field in fields(Settings)})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        return serve(**options, settings=settings)
    except MaasflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
