"""The use cases: the only place where the rooms of floor 3 meet."""
