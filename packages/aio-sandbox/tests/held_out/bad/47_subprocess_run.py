"""B47: The version comes from a command."""

# expect: bad: processes

import subprocess
import sys


def version():
    done = subprocess.run([sys.executable, "-c", "print('1.4')"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def workflow(ctx, input):
    return await ctx.call_activity("build", input=version())
