"""Set everything up, kill the process of an order in the middle, start it again: `python3 scripts/quickstart.py`."""

import os
import subprocess
import sys
import tempfile

import _setup

PROGRAM = os.path.join(_setup.ROOT, "examples", "order.py")


def demo(python, folder):
    """Run examples/order.py in `folder` with --crash, then without; return 0 if it has charged once."""
    charges = 0
    for arguments in (["--crash"], []):
        print("$ python %s" % " ".join(["examples/order.py"] + arguments))
        # Upstream logs connections and turns to standard error.
        with open(os.path.join(folder, "log.txt"), "w+") as log:
            ended = subprocess.run([python, PROGRAM] + arguments, cwd=folder, stdout=subprocess.PIPE, stderr=log)
            output = ended.stdout.decode()
            print(output, end="")
            charges += output.count("charging")
            if arguments:
                print("(killed: exit code %d)\n" % ended.returncode)
            elif ended.returncode:
                log.seek(0)
                print(log.read())
                return 1
    print("\n%d charge, two processes, one file." % charges)
    return int(charges != 1)


def main():
    python = _setup.prepare()
    folder = tempfile.mkdtemp(prefix="durabletask-aio-")
    failed = demo(python, folder)
    if not failed:
        command = os.path.relpath(os.path.join(os.path.dirname(python), "durabletask-aio"))
        database = os.path.join(folder, "orders.db")
        print("\nLook at it in the browser (then open http://localhost:4002/):\n")
        print("    %s serve --db %s --ui" % (command, database))
    return failed


if __name__ == "__main__":
    sys.exit(main())
