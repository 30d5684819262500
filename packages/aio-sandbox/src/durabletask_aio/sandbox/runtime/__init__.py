"""Watching workflow code while it runs: the guard that the core calls, its hooks into CPython, and the replacements.

Depending on the mode and the Python version, calls are redirected to proxies, seen by a profile hook (3.10, 3.11) or
by `sys.monitoring` (3.12 and later); a call that the rules object to is replaced, warned about or refused.
"""
