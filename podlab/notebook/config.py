"""`%config Podlab`: settings of this notebook, which win over the environment and config.toml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import Bool, Float, HasTraits, Int, TraitType, Unicode
from traitlets.config import Configurable

SETTING_OF = {
    "pod": "pod",
    "system": "chat.system",
    "temperature": "chat.temperature",
    "max_tokens": "chat.max_tokens",
    "deadline_s": "deadline_s",
    "start_deadline_s": "start_deadline_s",
    "tracebacks": "tracebacks",
}
"""Trait -> the setting it overrides. `stages` and `buttons` are the notebook's own."""

_UNSET = "None leaves it to the environment, config.toml and the default (see: %podlab config show)."


def _in_force(name: str) -> str:
    from podlab import settings  # at first use: loading the extension must not pay for it
    from podlab.errors import BadSettings, StateDamaged

    try:
        value, source = settings.value(name)
    except (BadSettings, StateDamaged) as error:
        return f"not known ({error.message})"
    return f"{value!r} ({'config.toml' if source == 'file' else source})"


class Podlab(Configurable):
    """Settings of podlab in this notebook."""

    pod = Unicode(None, allow_none=True, help=f"The pod that magics without --on mean. {_UNSET}").tag(config=True)
    system = Unicode(None, allow_none=True, help=f"The system prompt of new conversations. {_UNSET}").tag(config=True)
    temperature = Float(
        None, min=0.0, max=2.0, allow_none=True,
        help=f"How freely a model chooses its words; 0 takes the likeliest. {_UNSET}",
    ).tag(config=True)  # fmt: skip
    max_tokens = Int(None, min=1, allow_none=True, help=f"The longest answer, in tokens. {_UNSET}").tag(config=True)
    deadline_s = Float(
        None, min=0.0, allow_none=True,
        help=f"Seconds a pod may take to answer before it is shown as unreachable. {_UNSET}",
    ).tag(config=True)  # fmt: skip
    start_deadline_s = Float(
        None, min=0.0, allow_none=True, help=f"Seconds a model may take to get ready. {_UNSET}"
    ).tag(config=True)
    tracebacks = Bool(None, allow_none=True, help=f"Show whole tracebacks instead of short errors. {_UNSET}").tag(
        config=True
    )
    stages = Bool(True, help="Show how far long work has come while it runs.").tag(config=True)
    buttons = Bool(
        True, help="Answer questions with buttons where the page can have them; False leaves the prompt."
    ).tag(config=True)

    @classmethod
    def class_get_trait_help(
        cls, trait: TraitType[Any, Any], inst: HasTraits | None = None, helptext: str | None = None
    ) -> str:
        """What `%config Podlab` says of one setting: for an unset one, what holds instead and where that is from."""
        said = super().class_get_trait_help(trait, inst, helptext)
        if inst is None or trait.name not in SETTING_OF or getattr(inst, trait.name) is not None:
            return said
        return said.replace("Current: None", f"Current: {_in_force(SETTING_OF[trait.name])}")

    def overrides(self) -> dict[str, Any]:
        """Settings that were given a value here."""
        given = {SETTING_OF[name]: getattr(self, name) for name in SETTING_OF}
        return {name: value for name, value in given.items() if value is not None}

    def on_change(self, tell: Callable[[str, Any], None]) -> None:
        """Call `tell(setting, value)` at each assignment; None means that it is taken back."""
        self.observe(lambda change: tell(SETTING_OF[change["name"]], change["new"]), names=list(SETTING_OF))
