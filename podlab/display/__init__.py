"""Values as text, tables and HTML. Pure."""
