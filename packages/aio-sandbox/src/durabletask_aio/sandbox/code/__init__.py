"""Reading Python code: bytecode, source files and syntax trees, scopes, and the values an expression may have.

These modules know nothing of workflows. They answer questions about code; the analysis in `static` and the guard in
`runtime` draw the conclusions.
"""
