"""A secret from a person, typed without being shown, or from standard input."""

from __future__ import annotations

import getpass
import sys

from podlab.errors import BadSecret
from podlab.secrets import Secret


def read(name: str) -> Secret:
    """Ask for a secret's value. In a notebook the front end hides it; without anybody to ask, standard input is read.

    Raises BadSecret when nothing was given.
    """
    try:
        typed = sys.stdin.readline() if _piped() else getpass.getpass(f"{name}: ")
    except (EOFError, OSError, NotImplementedError) as error:  # the last is ipykernel's, where nobody can be asked
        raise BadSecret(
            f"Nobody is there to type {name}.", hint=f"Set the environment variable {name} instead."
        ) from error
    if not typed.strip():
        raise BadSecret(f"Nothing was given for {name}.", hint="Try again, and type or paste its value.")
    return Secret(typed.strip())


def _piped() -> bool:
    """Whether standard input is a pipe or a file. A kernel puts its own getpass in place; its stdin is no terminal."""
    return getpass.getpass.__module__ == "getpass" and not sys.stdin.isatty()
