"""What the sandbox objects to, as data: the rules, the catalogue of calls that break them, and the findings.

Whose code the rules apply to (`ownership`) and which exceptions users make (`allowance`) belong here too, because the
analysis of source code and the guard of running code both ask for them. Nothing in this folder reads code or runs it.
"""
