"""Finding non-determinism without running the workflow: resolvers of names, reachability, the analysis and its rules.

A function that is imported is resolved through its objects, a source file through its import statements. Both feed
the same analysis, which produces findings. It is used by registration, by `check(...)` and by the command.
"""
