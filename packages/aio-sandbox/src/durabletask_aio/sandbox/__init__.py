"""The sandbox of durabletask-aio; its public import path is `durabletask.aio.sandbox`.

- `rules`: what is reported, in whose code, and with which exceptions.
- `code`: reading Python code.
- `static`: finding violations without running a workflow.
- `runtime`: watching a workflow while it runs.
- `cli`: the command `durabletask-aio check`.

Each folder may import those before it; none imports one after it.
"""
