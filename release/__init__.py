"""Makes a release: `python -m release 0.2.0 --dry-run` (CONTRIBUTING.md, "Releases")."""
