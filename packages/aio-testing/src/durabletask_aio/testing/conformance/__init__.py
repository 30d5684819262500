"""Conformance: named scenarios that ask an engine whether it does what workflows rely on.

The modules:

    command: the sub-command `durabletask-aio conformance`.
    report: its table, as text, Markdown or JSON.
    registry: the decorator `scenario`, and the list of scenarios.
    outcomes: what can become of a scenario, and the checks that it makes.
    scenario_run: `ScenarioRun`, what a scenario is given.
    supervisor: runs each scenario in a process of its own, with a time limit.
    scenario_process: the program of such a process.
    worker_process: a worker in a process of its own, to be killed.
    engine_process: the engine, started by a command, to be killed.
    settings: what these processes have to know.
    scenarios: the scenarios, one module for each subject.
"""
