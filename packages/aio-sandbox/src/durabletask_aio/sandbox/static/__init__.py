"""Finding non-determinism without running the workflow: name resolvers, reachability, the analysis and its rules.

One resolver follows the names of source files through import statements, and one scanner goes through functions and
produces findings. For functions of this process, `loaded_resolver` adds what their modules and objects hold.
Registration, `check(...)` and the command use them.
"""
