"""``durabletask-aio dev``: the local engine for a worker in another terminal."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from types import FrameType

from durabletask_aio.testing.dev_ui import DevUi
from durabletask_aio.testing.local import LocalBackend, local_backend

DEFAULT_PORT = 4001
"""Where upstream's workers and clients look if they are told nothing."""

DEFAULT_UI_PORT = 4002

_EXAMPLES = """\
examples:
  durabletask-aio dev --ui         then start a worker and a client in another terminal: nothing to set
  durabletask-aio dev --port 0     on a free port, which it prints

For development: one process, nothing durable, no authentication, and nobody but this machine can connect.
"""


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


class DevCommand:
    """Keeps one engine running until Ctrl-C or SIGTERM, then ends with status 0: that is how it is meant to end.

    Status 2 if a port is taken.
    """

    help = "run the local engine until Ctrl-C (in memory, this machine only)"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = _EXAMPLES
        parser.add_argument(
            "--port",
            type=_port,
            default=DEFAULT_PORT,
            help="port to listen on, 0 for a free one (default: %(default)s, where workers and clients look)",
        )
        parser.add_argument("--ui", action="store_true", help="show instances and their timelines on a local page")
        parser.add_argument(
            "--ui-port",
            type=_port,
            metavar="PORT",
            help=f"port of that page, 0 for a free one; implies --ui (default: {DEFAULT_UI_PORT})",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        backend = local_backend(arguments.port)
        ui: DevUi | None = None
        if arguments.ui or arguments.ui_port is not None:
            ui = DevUi(backend, DEFAULT_UI_PORT if arguments.ui_port is None else arguments.ui_port)
        try:
            option = "--port"
            try:
                backend.start()
                option = "--ui-port"
                if ui is not None:
                    ui.start()
            except OSError as error:
                print(
                    f"durabletask-aio dev: {error.strerror}.\nFor example: durabletask-aio dev {option} 0",
                    file=sys.stderr,
                )
                return 2
            self._serve(backend, ui)
        finally:
            if ui is not None:
                ui.stop()
            backend.stop()
        return 0

    def _serve(self, backend: LocalBackend, ui: DevUi | None) -> None:
        stop = threading.Event()

        def on_signal(number: int, frame: FrameType | None) -> None:
            stop.set()

        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            print(f"Local engine listening on {backend.address} (this machine only).")
            if backend.port == DEFAULT_PORT:
                print("Workers and clients find it without any setting.")
            else:
                print(f'Connect with TaskHubGrpcWorker(host_address="{backend.address}"), and the client likewise.')
            if ui is not None:
                print(f"Instances and their timelines: {ui.url}")
            print("It keeps everything in memory and forgets it on exit. Ctrl-C stops it.", flush=True)
            # A timeout, because on Windows a wait without one cannot be interrupted.
            while not stop.wait(1.0):
                pass
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        count = len(backend.instances())
        print(f"\nStopped; {count} instance{'' if count == 1 else 's'} forgotten.", flush=True)


COMMAND = DevCommand()
