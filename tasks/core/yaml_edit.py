"""Values set in a YAML file's text, with every other character of it, comments and order included, left as it was.

A library that writes YAML anew (ruamel.yaml) keeps the comments but not the spacing, so that a diff would show more than what
was changed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z][a-z0-9_-]*", re.IGNORECASE)


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """The text of a mapping with the value at each dotted key path replaced, or added as the last of its section.

    Whoever calls this reads the result and compares: an alias, or a key of which there are two, it does not see.
    """
    for path, value in values.items():
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise TypeError("expected keys and values")
        text = _with(text, node, path.split("."), flow(value))
    return text


def flow(value: Any) -> str:
    """A value on one line, as a person would write it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    if isinstance(value, float):
        # YAML 1.1 takes 1e-05 for a text.
        mantissa, exponent, power = repr(value).partition("e")
        return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _with(text: str, node: yaml.MappingNode, path: Sequence[str], value: str) -> str:
    """The text with the value at the path below the node."""
    found: yaml.Node = node
    key: yaml.Node | None = None
    for place, step in enumerate(path):
        below, child = _child(found, step)
        if child is None:
            added = _nested(path[place:], value)
            return _added(text, found, added) if isinstance(found, yaml.MappingNode) else _replaced(text, key, found, f"{{{added}}}")
        key, found = below, child
    return _replaced(text, key, found, value)


def _child(node: yaml.Node, step: str) -> tuple[yaml.Node | None, yaml.Node | None]:
    """The node of the key, where there are keys, and that of its value; None twice where it has no such child."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), (None, None))
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        return None, node.value[int(step)]
    return None, None


def _nested(path: Sequence[str], value: str) -> str:
    """`a: {b: value}` for the path a, b."""
    *outer, last = path
    inner = f"{flow(last)}: {value}"
    for key in reversed(outer):
        inner = f"{flow(key)}: {{{inner}}}"
    return inner


def _replaced(text: str, key: yaml.Node | None, node: yaml.Node, value: str) -> str:
    start, end = node.start_mark.index, _end(text, node)
    is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if key is None or (start < end and not is_block):
        return f"{text[:start]}{value}{text[end:]}"
    # Nothing stands there, or lines below the key do: the value comes onto the key's line, before a comment.
    colon = text.index(":", key.end_mark.index) + 1
    if start >= end:
        return f"{text[:colon]} {value}{text[colon:]}"
    return f"{text[:colon]} {value}{text[colon : _line_end(text, colon)]}{text[end:]}"


def _added(text: str, node: yaml.MappingNode, entry: str) -> str:
    if not node.value:
        start = node.start_mark.index + 1
        return f"{text[:start]}{entry}{text[start:]}"
    last = _end(text, node.value[-1][1])
    if node.flow_style:
        return f"{text[:last]}, {entry}{text[last:]}"
    line = _line_end(text, last)
    return f"{text[:line]}\n{' ' * node.start_mark.column}{entry}{text[line:]}"


def _end(text: str, node: yaml.Node) -> int:
    """Where the node's last character was; a block's own mark lies after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end = int(node.end_mark.index)
    return len(text[:end].rstrip()) if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">") else end


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
