"""The worker of durabletask-aio; its public import path is ``durabletask.aio.worker``."""
