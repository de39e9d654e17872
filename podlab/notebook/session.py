"""What one notebook holds while the extension is loaded: its shell, its settings, its workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podlab.notebook.config import Podlab

if TYPE_CHECKING:  # loading the extension opens no files: the first magic does
    from IPython.core.interactiveshell import InteractiveShell

    from podlab.commands.rent_results import RentalPanel
    from podlab.lab.workspace import Workspace
    from podlab.notebook.panel import PanelValue, PodsPanel


class Session:
    """The workspace opens at the first magic (or completion) and stays until the extension is unloaded."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.config = Podlab(parent=shell)
        self.config.on_change(self._changed)
        self._workspace: Workspace | None = None
        self._panel: PodsPanel | None = None

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

    def panel(self, found: RentalPanel) -> PanelValue:
        """A panel of the rented pods. The one before is live no longer: two would ask the same questions."""
        from podlab.notebook.panel import PanelValue, PodsPanel

        self._end_panel()
        self._panel = PodsPanel(found, lambda: self.workspace)
        return PanelValue(found, self._panel)

    def _end_panel(self) -> None:
        if self._panel is not None:
            self._panel.close()
            self._panel = None

    def close(self) -> None:
        """Let go of the workspace."""
        self._end_panel()
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None

    def _changed(self, setting: str, value: Any) -> None:
        if self._workspace is not None:
            self._workspace.override(setting, value)
