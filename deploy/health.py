"""`python -m deploy.health PORT PATH`: whether a server on this machine answers 200 there, for health checks in images without curl."""

import http.client
import sys


def main() -> int:
    """The exit code: 0 where it does, 1 where it answers otherwise or not at all."""
    port, path = sys.argv[1:]
    server = http.client.HTTPConnection("127.0.0.1", int(port), timeout=2)
    try:
        server.request("GET", path)
        answer = server.getresponse()
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1
    print(answer.status, answer.read(1000).decode(errors="replace"))
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
