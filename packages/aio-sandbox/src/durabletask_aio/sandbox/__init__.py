"""The sandbox of durabletask-aio; its public import path is ``durabletask.aio.sandbox``."""
