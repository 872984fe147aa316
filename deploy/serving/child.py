"""`python -m deploy.serving.child FD`: one of several processes that answer on a port. `deploy.serving.supervisor` starts it."""

import asyncio
import logging
import socket
import sys

import uvloop

from deploy.serving.channel import Channel
from deploy.serving.guard import Guard
from deploy.serving.listener import tls_context
from deploy.serving.models import Models
from deploy.serving.orders import Orders
from deploy.serving.parent import Parent
from deploy.serving.process import run
from deploy.serving.workers import Workers
from tasks.core.errors import MaasflowError


def main() -> int:
    """The exit code. The parent is at the other end of the open socket that the argument names."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(socket.socket(fileno=int(sys.argv[1]))))


async def _live(end: socket.socket) -> int:
    channel = await Channel.open(end)
    message = await channel.receive()
    if message is None:
        return 0
    try:
        return await _serve(Orders.read(message.value), Parent(channel))
    except MaasflowError as error:
        channel.send("failed", [error.what, error.do])
        await channel.close()
        return error.exit_code


async def _serve(orders: Orders, parent: Parent) -> int:
    logging.basicConfig(level=orders.log_level, format=f"%(asctime)s %(levelname)s worker {orders.number}: %(message)s")
    settings = orders.settings
    models, guard = Models(orders.served, Workers(settings)), Guard(settings.keys, settings.redis, parent)
    with socket.socket(fileno=orders.listener) as listener:
        return await run(listener, models, guard, settings, tls_context(settings), parent)


if __name__ == "__main__":
    sys.exit(main())
