"""What one notebook holds while the extension is loaded: its shell, its settings, its workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podlab.notebook.config import Podlab

if TYPE_CHECKING:  # loading the extension opens no files: the first magic does
    from IPython.core.interactiveshell import InteractiveShell

    from podlab.lab.workspace import Workspace


class Session:
    """The workspace opens at the first magic (or completion) and stays until the extension is unloaded."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.config = Podlab(parent=shell)
        self.config.on_change(self._changed)
        self._workspace: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        """The workspace, with what `%config Podlab` set."""
        if self._workspace is None:
            from podlab.lab.workspace import Workspace

            self._workspace = Workspace.open()
            for name, value in self.config.overrides().items():
                self._workspace.override(name, value)
        return self._workspace

    @property
    def in_kernel(self) -> bool:
        """Whether a Jupyter kernel runs this, rather than IPython in a terminal."""
        return getattr(self.shell, "kernel", None) is not None

    def close(self) -> None:
        """Let go of the workspace."""
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None

    def _changed(self, setting: str, value: Any) -> None:
        if self._workspace is not None:
            self._workspace.override(setting, value)
