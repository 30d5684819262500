"""The command `durabletask-aio check`: its options, its settings in `pyproject.toml`, and its report formats."""
