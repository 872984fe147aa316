"""ONNX graphs that are being changed: what is constant in them, nodes written anew, and everything in few bytes."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

MICROSOFT: Final = "com.microsoft"
"""The domain of the nodes that ONNX Runtime adds to the standard's."""

_SHARED: Final = 2**14
"""Bytes of a constant up to which an equal one is looked for."""

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float32]
Rule = Callable[[NodeProto], list[NodeProto] | None]
"""What stands in for a node, whose outputs it makes under the same names; None to leave the node."""


class Graph:
    """The graph of one ONNX file."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._taken = set(self._constants).union(*(node.output for node in model.graph.node), *(node.input for node in model.graph.node))

    @classmethod
    def read(cls, path: Path) -> "Graph":
        return cls(onnx.load(path))

    def write(self, path: Path, *, beside: bool) -> None:
        """Compacted, and with the weights in a file beside it where the model is too large for one."""
        compact(self.model)
        if beside:
            location = f"{path.name}.data"
            onnx.save_model(self.model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=location)
        else:
            onnx.save_model(self.model, path)

    def constant(self, name: str) -> Array | None:
        """The values of a tensor that every call shares."""
        found = self._constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def matrix(self, name: str, smallest: int = 0) -> Weights | None:
        """The values of a constant float32 matrix, if it has so many elements."""
        found = self._constants.get(name)
        if found is None or found.data_type != TensorProto.FLOAT or len(found.dims) != 2 or np.prod(found.dims) < smallest:
            return None
        return numpy_helper.to_array(found)

    def producer(self, name: str) -> str:
        """The kind of node that makes a tensor; empty for an input and a constant."""
        return next((node.op_type for node in self.model.graph.node if name in node.output), "")

    def add(self, values: Array, name: str) -> str:
        """A new constant, under a name like this."""
        free = self.name(name)
        tensor = numpy_helper.from_array(values, free)
        self._constants[free] = tensor
        self.model.graph.initializer.append(tensor)
        return free

    def name(self, like: str) -> str:
        """A name for a tensor that is not taken."""
        found, number = like, 0
        while found in self._taken:
            number += 1
            found = f"{like}_{number}"
        self._taken.add(found)
        return found

    def shared(self, values: Array, name: str) -> str:
        """The constant with this name and these values, which a small one needs only once."""
        return name if name in self._constants else self.add(values, name)

    def rewrite(self, rule: Rule) -> int:
        """Apply the rule to every node; to how many it applied."""
        nodes: list[NodeProto] = []
        applied = 0
        for node in self.model.graph.node:
            instead = rule(node)
            applied += instead is not None
            nodes.extend([node] if instead is None else instead)
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        if any(node.domain == MICROSOFT for node in nodes) and MICROSOFT not in {each.domain for each in self.model.opset_import}:
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return applied


def attributes(node: NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def compact(model: onnx.ModelProto) -> None:
    """Remove what no answer needs, and give every tensor that is neither input nor output a name of a letter or three.

    A net of a few kB is names and descriptions for the most part.
    """
    graph = model.graph
    _remove_unused(graph)
    _share_equal(graph)
    for field in ("doc_string", "value_info", "metadata_props", "quantization_annotation"):
        graph.ClearField(field)
        if field in ("doc_string", "metadata_props"):
            model.ClearField(field)
    named = any(each.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for node in graph.node for each in node.attribute)
    kept = {value.name for value in (*graph.input, *graph.output)}
    # The most frequent names are the shortest. The body of a loop may mean a tensor outside of it by its name.
    count = Counter(name for node in graph.node for name in (*node.input, *node.output) if name and name not in kept)
    short = {} if named else dict(zip(sorted(count, key=lambda name: -count[name]), _short_names(kept), strict=False))
    for node in graph.node:
        for field in ("doc_string", "metadata_props", "name"):
            node.ClearField(field)
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.name = short.get(tensor.name, tensor.name)
    domains = {node.domain for node in graph.node}
    used = [each for each in model.opset_import if each.domain in domains or each.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(used)


def _remove_unused(graph: onnx.GraphProto) -> None:
    wanted = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if wanted.intersection(filter(None, node.output)):
            nodes.append(node)
            wanted.update(node.input)
            for each in node.attribute:
                for body in (*each.graphs, *([each.g] if each.HasField("g") else [])):
                    wanted.update(name for inner in body.node for name in inner.input)
                    wanted.update(value.name for value in body.output)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _share_equal(graph: onnx.GraphProto) -> None:
    """Keep one of several small constants that are equal, such as the zero points of symmetric codes."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    tensors = []
    for tensor in graph.initializer:
        if tensor.ByteSize() <= _SHARED:
            nameless = onnx.TensorProto()
            nameless.CopyFrom(tensor)
            nameless.ClearField("name")
            found = first.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
            if found != tensor.name:
                same[tensor.name] = found
                continue
        tensors.append(tensor)
    outputs = {value.name for value in graph.output}
    inner = any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)
    if inner or outputs & same.keys():
        return
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _short_names(taken: set[str]) -> Iterator[str]:
    """a, b, … z, aa, ab, …"""
    number = 0
    while True:
        name, rest = "", number
        while True:
            name = ascii_lowercase[rest % 26] + name
            rest = rest // 26 - 1
            if rest < 0:
                break
        number += 1
        if name not in taken:
            yield name
