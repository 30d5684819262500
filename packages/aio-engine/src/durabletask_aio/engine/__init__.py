"""The durable engine; its public import path is `durabletask.aio.engine`.

The modules (a test compares this list with the files):

For upstream:
    _upstream: the adapter to `durabletask`.
"""
