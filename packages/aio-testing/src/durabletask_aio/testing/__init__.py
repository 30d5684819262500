"""The test kit of durabletask-aio.

===================  =======================================================================
``environment``      ``WorkflowEnvironment``: workflows in process, on a virtual clock
``handle``           one instance in it
``stubs``            activities that a test answers itself
``runner``           the engine of an environment, driven in process
``event_types``      types of history events, and how to infer them
``activities``       activities without a worker
``turns``            turns without a worker
``functions``        what a test registers
``waiting``          what an instance waits for, in words
``history``          ``History``: recorded histories, to files and back
``history_codec``    events as plain data
``replayer``         recorded histories against today's code
``verify``           the same history in other circumstances
``divergence``       where code and history part, and why, in words
``steps``            what a workflow does, in the words of its author
``orchestrators``    finding the orchestrators of a program
``replay_command``   ``durabletask-aio replay``
``timeline``         an instance as rows of bars
``timeline_text``    ... for the terminal
``timeline_json``    ... for programs
``timeline_html``    ... as a page, whose style sheet is ``timeline_style``
``timeline_command`` ``durabletask-aio timeline``
``local``            the local engine behind gRPC, loopback only: ``local_backend``
``loopback``         ports of this machine
``dev``              ``durabletask-aio dev``
``dev_ui``           its page of instances: who is answered, and with what
``dev_page``         the HTML, style and scripts of that page
``pytest_plugin``    fixtures, recorded histories, reports of failures
``frames``           tracebacks without the frames of libraries
``engine``           upstream's in-memory state machine, on a clock of our choice
``handouts``         work items on their way, and how they come back
``wire``             turns as bytes, of which the history is serialised once
``threads``          the threads of the local server
``clock``            the machine's clock, and one that is moved by hand
``_upstream``        every private name of ``durabletask`` used here
===================  =======================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durabletask_aio.testing.divergence import ReplayError
    from durabletask_aio.testing.environment import WorkflowEnvironment
    from durabletask_aio.testing.handle import WorkflowHandle, WorkflowTerminatedError
    from durabletask_aio.testing.history import History
    from durabletask_aio.testing.history_codec import HistoryFormatError
    from durabletask_aio.testing.local import LocalBackend, local_backend
    from durabletask_aio.testing.replayer import ReplayReport, replay
    from durabletask_aio.testing.stubs import NEVER, ActivityCall, Stub, StubExhaustedError
    from durabletask_aio.testing.verify import verify_deterministic
    from durabletask_aio.testing.waiting import WorkflowStuckError

__all__ = [
    "NEVER",
    "ActivityCall",
    "History",
    "HistoryFormatError",
    "LocalBackend",
    "ReplayError",
    "ReplayReport",
    "Stub",
    "StubExhaustedError",
    "WorkflowEnvironment",
    "WorkflowHandle",
    "WorkflowStuckError",
    "WorkflowTerminatedError",
    "local_backend",
    "replay",
    "verify_deterministic",
]

# Late, because pytest loads our plugin, and with it this package, in every run of an environment that has it.
_HOMES = {
    "NEVER": "stubs",
    "ActivityCall": "stubs",
    "History": "history",
    "HistoryFormatError": "history_codec",
    "LocalBackend": "local",
    "ReplayError": "divergence",
    "ReplayReport": "replayer",
    "Stub": "stubs",
    "StubExhaustedError": "stubs",
    "WorkflowEnvironment": "environment",
    "WorkflowHandle": "handle",
    "WorkflowStuckError": "waiting",
    "WorkflowTerminatedError": "handle",
    "local_backend": "local",
    "replay": "replayer",
    "verify_deterministic": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if callable(value):
        # Pickles, tracebacks and documentation show the public path.
        value.__module__ = "durabletask.aio.testing"
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
