"""Every verb, declared once: its arguments, help, examples and handler."""
