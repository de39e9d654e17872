"""podlab: rent GPU machines, serve models on them, and chat with them, from a notebook."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers read it as true; importing it from typing would cost a few milliseconds
if TYPE_CHECKING:
    from typing import Any

    from podlab.errors import PodlabError, show_tracebacks
    from podlab.lab.connection import connection

__version__ = "0.1.0"

# Where each public name lives. Nothing is imported before it is used: `import podlab` costs next to nothing.
_HOMES = {
    "PodlabError": "podlab.errors",
    "connection": "podlab.lab.connection",
    "show_tracebacks": "podlab.errors",
}

__all__ = [
    "PodlabError",
    "__version__",
    "connection",
    "load_ipython_extension",
    "show_tracebacks",
    "unload_ipython_extension",
]


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext podlab` calls."""
    from podlab.notebook import extension

    extension.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext podlab` calls."""
    from podlab.notebook import extension

    extension.unload(shell)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'podlab' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
