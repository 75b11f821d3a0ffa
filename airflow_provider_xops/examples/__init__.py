"""The code of the reference DAGs: importable, so that tasks on any worker find it."""
