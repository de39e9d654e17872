"""A real IPython in this process, and a real kernel in another one, each with the extension loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from podlab.notebook import extension
from tests.notebook import standin
from tests.notebook.kernel import Kernel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell of its own; no kernel, so it behaves as a terminal does."""
    InteractiveShell.clear_instance()
    # Its history in memory: the file would lie in this test's HOME, which is gone when IPython closes it at exit.
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
    standin.install()
    extension.load(shell)
    yield shell
    extension.unload(shell)
    standin.remove()
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel for the tests of one file, with the extension and the stand-in verbs."""
    home = tmp_path_factory.mktemp("kernel")
    environment = {**os.environ, "PODLAB_HOME": str(home / "podlab"), "HOME": str(home), "PYTHONPATH": str(ROOT)}
    with Kernel(cwd=str(ROOT), env=environment) as kernel:
        assert kernel.run("%load_ext podlab\nfrom tests.notebook import standin; standin.install()").error is None
        yield kernel
