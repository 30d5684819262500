"""Watching workflow code while it runs: the guard that the core calls, its hooks into CPython, and the replacements.

Calls are redirected to proxies. In strict mode they are also seen by a profile hook (Python 3.10 and 3.11) or by
`sys.monitoring` (3.12 and later). A call that breaks a rule is replaced, warned about or refused.
"""
