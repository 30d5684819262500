"""B45: A socket probes whether a service is up."""

# expect: bad: network

import socket


def is_up(host, port):
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((host, port)) == 0


async def workflow(ctx, input):
    target = "primary" if is_up("127.0.0.1", 9) else "backup"
    return await ctx.call_activity(target, input=input["order"])
