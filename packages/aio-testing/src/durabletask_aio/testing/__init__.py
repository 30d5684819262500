"""The test kit of durabletask-aio; its public import path is `durabletask.aio.testing`.

The modules, from what tests use to what they never see (a test compares this list with the files):

Workflows in a test:
    environment: `WorkflowEnvironment`, workflows in process on a virtual clock.
    handle: `WorkflowHandle`, one instance in it.
    environment_client, environment_channel: the async client of workflows, on the engine of an environment.
    stubs: stubs of activities, and the record of activity calls.
    runner: drives the engine of an environment on the event loop of the test.
    virtual_time: the clock of an environment, with all that is due on it.
    turns, executor: run the turns of workflows.
    activities, step_functions: run activities and steps.
    functions, registry: registration of the functions of a test.
    waiting: what an instance waits for.

Recorded histories:
    history: `History`, which can be fetched, saved, loaded, compared and redacted.
    history_codec, event_types: conversion of events to plain data and back.
    history_files: reads the files, with a limit of their size.
    replayer: `replay`, today's code over a recorded history.
    verify: `verify_deterministic`, the same under different conditions.
    session_verify: the same for the histories of a pytest session.
    divergence: `ReplayError`, where code and history differ.
    steps: one durable operation, read from a history event or from an action.
    orchestrators: loads the orchestrators of a program.

Timelines:
    timeline: the operations of an instance as rows of bars.
    timeline_text, timeline_json: as text and for programs.
    timeline_html, timeline_svg, timeline_axis: as a page, its drawing, and the horizontal scale of the drawing.
    markup, package_data: HTML elements, and the files of the package.

The local engine:
    local: `local_backend`, the engine of `durabletask-aio-engine` behind gRPC.

Commands and plugins:
    replay_command, timeline_command, dev, new_command: sub-commands of `durabletask-aio`; another one is in the folder
    `conformance`.
    applications, application_process: load an application for `dev`, and ask it what its instances wait for.
    pytest_plugin: fixtures, recorded histories, failure reports.
    frames: removes the frames of libraries from tracebacks.

For upstream:
    _upstream: the adapter to `durabletask`.
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

# Imported on first use: pytest loads the plugin, and with it this package, in every run where it is installed.
_MODULES = {
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
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    if callable(value):
        # Pickles, tracebacks and the documentation show the public import path.
        value.__module__ = "durabletask.aio.testing"
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
