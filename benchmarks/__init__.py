"""Every speed this project claims, against a peer or a floor: ``python -m benchmarks.NAME [--json]``."""
