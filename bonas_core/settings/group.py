"""Groups of settings, and how a name in a tree of settings finds the class of the group that it stands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from bonas_core.errors import BonasError
from bonas_core.registry import names, resolve


class Group(BaseModel):
    """A group of settings: unknown names are refused, and nothing changes once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_recipe: ClassVar[frozenset[str]] = frozenset()
    """Settings whose default a form must not send back, since another setting decides on it."""


def offer_names(kind: str, *others: str) -> Callable[[dict[str, Any]], None]:
    """Lets a form offer the registered names of a kind beside a field for `module:object`."""

    def offer(schema: dict[str, Any]) -> None:
        offered = {"title": "one of", "type": "string", "enum": [*names(kind), *others]}
        own = {"title": "module:object", "type": "string"}
        nothing = [option for option in schema.get("anyOf", ()) if option.get("type") == "null"]
        schema.pop("type", None)
        schema["anyOf"] = [offered, own, *nothing]

    return offer


@dataclass(frozen=True)
class Named:
    """Marks a field of settings whose class is that of the plug-in which the tree names.

    A plug-in is what the registry finds under a name: its settings are `plugin.Settings`, or the plug-in itself where
    that is a class of settings. One that declares none has the settings of `default`.

    Args:
        kind: of the registry.
        tag: the setting of the group that holds the name.
        default_name: the plug-in that is meant where the tree names none.
        default: the class of settings of plug-ins that declare none.
        fill: called with the tree of the group and with the groups before it; returns the tree that is validated, or
            None where there is no such group.
    """

    kind: str
    tag: str
    default_name: str
    default: type[Group]
    fill: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any] | None] = lambda tree, before: tree

    def settings_class(self, name: str) -> type[Group]:
        """The class of settings of a plug-in.

        A `module:object` is not loaded for it: settings may come from anywhere, and reading them must run no code.

        Raises:
            SettingsError: there is no plug-in of that name.
        """
        if ":" in name:
            return self.default
        plugin = resolve(self.kind, name)
        found = getattr(plugin, "Settings", plugin)
        return found if isinstance(found, type) and issubclass(found, Group) else self.default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Validates a group with the class that its name chooses."""
        return core_schema.with_info_plain_validator_function(self._validate)

    def _validate(self, value: object, info: ValidationInfo) -> Group | None:
        tree = value.model_dump() if isinstance(value, Group) else {} if value is None else value
        if not isinstance(tree, Mapping):
            raise PydanticCustomError("model_type", "it is a group of settings")
        # None leaves a setting open; a name that is none is refused
        given = {name: leaf for name, leaf in tree.items() if leaf is not None or name == self.tag}
        filled = self.fill({self.tag: self.default_name, **given}, info.data)
        if filled is None:
            return None
        name = filled[self.tag]
        try:
            chosen = self.settings_class(name) if isinstance(name, str) else self.default
        except BonasError as error:
            raise ValueError(str(error)) from None
        return chosen.model_validate(filled)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Offers a form the settings of every registered plug-in, and of one's own."""
        known = [self.default_name, *names(self.kind)]
        offered = []
        for chosen in dict.fromkeys([*map(self.settings_class, known), self.default]):
            offered.append(handler(chosen.__pydantic_core_schema__))
            shown = handler.resolve_ref_schema(offered[-1])
            tag = chosen.model_fields[self.tag]
            shown["title"] = "your own" if tag.is_required() else tag.default
            for name in chosen.by_recipe:
                shown["properties"][name].pop("default")
                shown["properties"][name]["description"] += "; by default what the recipe says"
        return {"anyOf": offered}
