"""Everything that parses bytes of others, given bytes that nobody would write: `python -m tests.fuzz`.

What it has seen is in docs/security.md.
"""
