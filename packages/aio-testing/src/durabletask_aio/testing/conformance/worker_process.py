"""A worker in a process of its own, to be killed.

Arguments: the settings, the prefix of names, the shared folder, `sessions` or `replay`, and `module:function` for each
function.  It prints `started`, and ends when its standard input does.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module

from durabletask_aio.testing.conformance.settings import Settings
from durabletask_aio.worker.worker import TaskHubGrpcWorker

FOLDER_VARIABLE = "CONFORMANCE_FOLDER"


def main(arguments: list[str]) -> None:
    """Run a worker until standard input ends.

    Args:
        arguments: Those of the program.
    """
    settings = Settings.from_json(arguments[0])
    prefix, os.environ[FOLDER_VARIABLE], mode = arguments[1:4]
    logging.basicConfig(level=logging.WARNING)
    worker = TaskHubGrpcWorker(**settings.connection(), max_extended_sessions=0 if mode == "replay" else None)
    for reference in arguments[4:]:
        module, _, name = reference.partition(":")
        function = getattr(import_module(module), name)
        function.__name__ = prefix + name
        if name.endswith("_activity"):
            worker.add_activity(function)
        else:
            worker.add_orchestrator(function)
    if settings.filters:
        worker.use_work_item_filters()
    worker.start()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
