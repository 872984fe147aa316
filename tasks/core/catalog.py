"""Lazy tables of plug-ins: a name in a recipe leads to a component, imported only when it is used."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from tasks.core.config import Config, Origin
from tasks.core.errors import did_you_mean

ComponentT = TypeVar("ComponentT", bound=Config)


class Catalog(Mapping[str, str], Generic[ComponentT]):
    """Name to "module:attribute". A component is a Config whose keys are its options and whose methods do the work.

    `noun` is what errors call an entry; `key` is the recipe's key that holds the name, as in `{kind: csv, path: …}`.
    """

    def __init__(self, noun: str, entries: Mapping[str, str], key: str = "kind") -> None:
        self.noun = noun
        self.key = key
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> type[ComponentT]:
        """The component's class. Raises KeyError for an unknown name."""
        module, _, attribute = self._entries[name].partition(":")
        component: type[ComponentT] = getattr(importlib.import_module(module), attribute)
        return component

    def build(self, spec: Mapping[str, Any], origin: Origin | None = None) -> ComponentT:
        """The component that `{key: name, option: value, …}` describes. Raises ConfigError."""
        origin = origin or Origin()
        name = spec.get(self.key)
        if name is None:
            raise origin.error((), f"'{self.key}' is missing: it says which {self.noun} to use ({', '.join(self)})")
        if not isinstance(name, str) or name not in self:
            raise origin.error((self.key,), f"unknown {self.noun} '{name}'{did_you_mean(name, self)}", f"known: {', '.join(self)}")
        return self.load(name).parse({key: value for key, value in spec.items() if key != self.key}, origin)
