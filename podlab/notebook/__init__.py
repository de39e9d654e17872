"""Magics, panels and completion: parse, drive, show."""
