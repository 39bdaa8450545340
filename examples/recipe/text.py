"""YAML and ``key=value`` pairs as settings by dotted key. Scalars stay text; the schema converts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

NULL = ("", "~", "null")  # unless quoted
MOST = 50_000  # characters, and a hundredth of it levels: PyYAML's time grows with the square of the depth
Settings = dict[str, Any]  # dotted key: text, None, or a list of them


def path(text: str) -> Path:
    """A path from the command line, ``~`` expanded."""
    return Path(os.path.expanduser(text))


def read(text: str, where: str) -> Settings:
    """The settings in a YAML text. Tags are ignored and aliases refused, so it cannot run code or expand.

    Raises:
        SystemExit: naming ``where``, if the text is not YAML or not a mapping, repeats a key, or contains an alias.
    """
    if len(text) > MOST or sum(map(text.count, "[{")) > MOST // 100:
        raise SystemExit(f"{where} is not YAML of a recipe: it is too long or too deep, {len(text)} characters")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise SystemExit(f"{where}: aliases (*name) are not allowed, write the value out")
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise SystemExit(f"{where} must be a mapping of settings, got {text.strip()[:40]!r}")
        return {} if node is None else dict(_leaves(node, "", where, set()))
    except (yaml.YAMLError, RecursionError) as error:
        raise SystemExit(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def assignments(pairs: Sequence[str]) -> Settings:
    """The settings in ``key=value`` pairs: a list or section in YAML's flow style, ``null``, or plain text.

    Raises:
        SystemExit: if an argument is not such a pair, or a key is given twice.
    """
    settings: Settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise SystemExit(f"an override must be key=value, got {pair!r}")
        flow = text.startswith(("[", "{"))
        new = read(f"{key}: {text}", f"override {pair!r}") if flow else {key: None if text == "null" else text}
        for twice in settings.keys() & new.keys():
            raise SystemExit(f"{twice} is given twice, the second time by {pair!r}")
        settings |= new
    return settings


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key as a tree of sections.

    Raises:
        SystemExit: if a key is both a setting and a section.
    """
    tree: dict[str, Any] = {}
    for key in sorted(settings):  # a section before its keys
        *sections, name = key.split(".")
        if len(sections) > 9:
            raise SystemExit(f"unknown key {key[:200]}")
        node = tree
        for depth, section in enumerate(sections, start=1):
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                value = "null" if node is None else repr(node)
                raise SystemExit(f"{key} cannot be set: {'.'.join(sections[:depth])} is set to {value}")
        node[name] = settings[key]
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> Settings:
    """The inverse of `nested`."""
    settings: Settings = {}
    for key, value in tree.items():
        settings |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return settings


def _leaves(node: yaml.MappingNode, prefix: str, where: str, seen: set[str]) -> Iterator[tuple[str, Any]]:
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise SystemExit(f"{where}: a key must be a word, got a {name.id} under {prefix[:-1] or 'the top'}")
        key = f"{prefix}{name.value}"
        if key in seen:
            raise SystemExit(f"{where}: {key} is given twice")
        seen.add(key)
        if isinstance(value, yaml.MappingNode):
            yield from _leaves(value, f"{key}.", where, seen)
        else:
            yield key, _value(value)


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return None if node.style is None and node.value in NULL else node.value
    return [_value(x) for x in node.value] if isinstance(node, yaml.SequenceNode) else "{…}"
