"""What an account keeps besides pods: network volumes, templates, registry logins, SSH keys."""

from __future__ import annotations

import random
import string
from dataclasses import replace

from podlab.sandbox.catalogue import PUBLIC_TEMPLATES, TemplateEntry
from podlab.sandbox.records import Problem, RegistryRecord, VolumeRecord

LETTERS = string.ascii_lowercase + string.digits


def new_id(rng: random.Random, length: int = 14) -> str:
    """An id as the company makes them."""
    return "".join(rng.choices(LETTERS, k=length))


class Assets:
    """The account's other things. Not safe from several threads: the company's lock is held."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.volumes: dict[str, VolumeRecord] = {}
        self.own_templates: dict[str, TemplateEntry] = {}
        self.registries: dict[str, RegistryRecord] = {}
        self.ssh_keys: tuple[str, ...] = ()

    def volume(self, id: str) -> VolumeRecord:
        """A network volume. Raises Problem 404."""
        if id not in self.volumes:
            raise Problem(404, "network volume not found")
        return self.volumes[id]

    def add_volume(self, name: str, size_gb: int, data_center: str, tier: str, now: float) -> VolumeRecord:
        """A new network volume."""
        made = VolumeRecord(new_id(self._rng, 10), name, size_gb, data_center, tier, now)
        self.volumes[made.id] = made
        return made

    def change_volume(self, id: str, *, name: str | None, size_gb: int | None) -> VolumeRecord:
        """Rename or grow one. Raises Problem: 404, or 400 for a smaller size."""
        old = self.volume(id)
        if size_gb is not None and size_gb < old.size_gb:
            raise Problem(400, "size may only increase")
        self.volumes[id] = replace(old, name=name or old.name, size_gb=size_gb or old.size_gb)
        return self.volumes[id]

    def template(self, id: str) -> TemplateEntry:
        """One's own template or a public one. Raises Problem 404."""
        public = {entry.id: entry for entry in PUBLIC_TEMPLATES}
        found = self.own_templates.get(id) or public.get(id)
        if found is None:
            raise Problem(404, "template not found")
        return found

    def add_template(self, entry: TemplateEntry) -> TemplateEntry:
        """Keep a template, under an id of its own. Raises Problem 400 for a name that is taken."""
        if any(other.name == entry.name for other in self.own_templates.values()):
            raise Problem(400, "Template name must be unique")
        made = replace(entry, id=new_id(self._rng, 10))
        self.own_templates[made.id] = made
        return made

    def drop_template(self, id: str) -> None:
        """Forget one's own template. Raises Problem 404."""
        if self.own_templates.pop(id, None) is None:
            raise Problem(404, "template not found")

    def registry(self, id: str) -> RegistryRecord:
        """A registry login. Raises Problem 404."""
        if id not in self.registries:
            raise Problem(404, "registry not found")
        return self.registries[id]

    def add_registry(self, name: str) -> RegistryRecord:
        """Keep a registry login. Raises Problem 400 for a name that is taken."""
        if any(other.name == name for other in self.registries.values()):
            raise Problem(400, "registry name must be unique")
        made = RegistryRecord(new_id(self._rng, 25), name)
        self.registries[made.id] = made
        return made
