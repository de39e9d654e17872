"""Models: what podlab knows by name, and where their files come from."""
