"""The scenarios: each module is a subject, each decorated function a scenario, each docstring its line in the table."""
