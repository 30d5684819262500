"""Finding non-determinism without running the workflow: name resolvers, reachability, the analysis and its rules.

The names of an imported function are resolved through live objects, those of a source file through its import
statements. The same analysis works on both and produces findings. Registration, `check(...)` and the command use it.
"""
