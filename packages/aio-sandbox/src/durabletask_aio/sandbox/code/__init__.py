"""Reading Python code: bytecode, source files and syntax trees, scopes, and the values an expression may have.

These modules answer questions about code and apply no rules; `static` and `runtime` do.
"""
