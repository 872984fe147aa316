"""Nodes of ONNX Runtime's own taken apart, where the parts run faster or can be quantised on their own."""

from typing import Any, Final

import numpy as np
from onnx import NodeProto
from onnx.helper import make_node

from tasks.graphs import MICROSOFT, Graph, attributes

_PLAIN_ATTENTION: Final = {"num_heads", "unidirectional", "mask_filter_value", "scale"}
_AXIS: Final = np.array([-1], np.int64)


def split_attention(graph: Graph) -> int:
    """Take the projection to queries, keys and values out of each Attention, as a MatMul of its own; how many were.

    Only MatMul has kernels for few bits that do not scale activations over the whole batch.
    """

    def rule(node: NodeProto) -> list[NodeProto] | None:
        inputs = _inputs(node, 6)
        plain = attributes(node).keys() <= _PLAIN_ATTENTION
        if node.op_type != "Attention" or node.domain != MICROSOFT or not plain or inputs[4] or len(node.output) != 1:
            return None
        together, *parts = (graph.name(f"{node.output[0]}_{each}") for each in ("qkv", "q", "k", "v"))
        given = [*parts, inputs[2], inputs[3], inputs[5]]
        while not given[-1]:
            given.pop()
        return [
            make_node("MatMul", inputs[:2], [together]),
            make_node("Split", [together], parts, axis=-1, num_outputs=3),
            make_node("MultiHeadAttention", given, node.output, domain=MICROSOFT, **attributes(node)),
        ]

    return graph.rewrite(rule)


def split_embedding(graph: Graph) -> int:
    """Make each EmbedLayerNormalization a Gather for each table, and a LayerNormalization of their sum; how many were."""
    masks: dict[str, str] = {}

    def rule(node: NodeProto) -> list[NodeProto] | None:
        if node.op_type != "EmbedLayerNormalization":
            return None
        ids, segments, words, positions, segment_table, scale, shift, mask, given_places = _inputs(node, 9)
        _, lengths, whole = (*node.output, "", "")[:3]
        names = ("word", "shape", "length", "place", "position", "placed", "segment", "sum")
        word, shape, length, place, position, placed, segment, total = (graph.name(f"{node.output[0]}_{each}") for each in names)
        if lengths:
            # Attention takes the mask itself as well as the lengths that this node makes of it.
            masks[lengths] = mask
        zero, one = (graph.shared(np.array(value, np.int64), name) for value, name in ((0, "number_0"), (1, "number_1")))
        made = [make_node("Gather", [words, ids], [word])]
        if given_places:
            place = given_places
        else:
            made += [
                make_node("Shape", [ids], [shape], start=1, end=2),
                make_node("Squeeze", [shape], [length]),
                make_node("Range", [zero, length, one], [place]),
            ]
        made += [make_node("Gather", [positions, place], [position]), make_node("Add", [word, position], [placed])]
        if segment_table:
            made += [make_node("Gather", [segment_table, segments], [segment]), make_node("Add", [placed, segment], [total])]
        if whole:
            made[-1].output[0] = whole
        given = [made[-1].output[0], scale, shift]
        epsilon = attributes(node).get("epsilon", 1e-12)
        return [*made, make_node("LayerNormalization", given, node.output[:1], axis=-1, epsilon=epsilon)]

    count = graph.rewrite(rule)
    for node in graph.model.graph.node:
        node.input[:] = [masks.get(name, name) for name in node.input]
    return count


def plain_norms(graph: Graph) -> int:
    """Write layer normalisation as sums and products, which ONNX Runtime vectorises; how many were.

    Its own kernels for it go number by number: on 320 rows of 384 numbers they take three times as long.
    """

    def rule(node: NodeProto) -> list[NodeProto] | None:
        skip = node.op_type == "SkipLayerNormalization"
        _, *statistics, whole = (*node.output, "", "", "")[:4]
        if not (skip or node.op_type == "LayerNormalization") or any(statistics):
            return None
        value, *rest = _inputs(node, 5 if skip else 3)
        beside, gain, shift, bias = rest if skip else ("", *rest, "")
        gains, out = graph.constant(gain), node.output[0]
        if gains is None or not shift or attributes(node).get("axis", -1) != -1:
            return None
        made = []
        for term in filter(None, (bias, beside)):
            made.append(make_node("Add", [value, term], [graph.name(f"{out}_sum")]))
            value = made[-1].output[0]
        if whole:
            made[-1].output[0] = value = whole
        size = gains.size
        epsilon = attributes(node).get("epsilon", 1e-12 if skip else 1e-5) * size
        axis = graph.shared(_AXIS, "last_axis")
        names = ("mean", "centred", "squares", "total", "variance", "deviation", "inverse", "normal", "scaled")
        mean, centred, squares, total, variance, deviation, inverse, normal, scaled = (graph.name(f"{out}_{each}") for each in names)
        return [
            *made,
            make_node("ReduceMean", [value, axis], [mean]),
            make_node("Sub", [value, mean], [centred]),
            # The sum rather than the mean, whose pattern ONNX Runtime would fuse again; ReduceSumSquare is not vectorised either.
            make_node("Mul", [centred, centred], [squares]),
            make_node("ReduceSum", [squares, axis], [total]),
            make_node("Add", [total, graph.add(np.array(epsilon, np.float32), "epsilon")], [variance]),
            make_node("Sqrt", [variance], [deviation]),
            make_node("Reciprocal", [deviation], [inverse]),
            make_node("Mul", [centred, inverse], [normal]),
            make_node("Mul", [normal, graph.add((gains * np.sqrt(size)).astype(np.float32), "gain")], [scaled]),
            make_node("Add", [scaled, shift], [out]),
        ]

    return graph.rewrite(rule)


def plain_gemm(graph: Graph) -> int:
    """Write each Gemm with constant weights as MatMul and Add; how many were."""

    def rule(node: NodeProto) -> list[NodeProto] | None:
        given = attributes(node)
        weights = graph.matrix(node.input[1]) if node.op_type == "Gemm" else None
        if weights is None or given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
            return None
        right = graph.add(weights.T.copy(), node.input[1]) if given.get("transB", 0) else node.input[1]
        if len(node.input) < 3 or not node.input[2]:
            return [make_node("MatMul", [node.input[0], right], node.output)]
        product = graph.name(f"{node.output[0]}_product")
        return [make_node("MatMul", [node.input[0], right], [product]), make_node("Add", [product, node.input[2]], node.output)]

    return graph.rewrite(rule)


def quantize_tables(graph: Graph, bits: int, smallest: int, block: int = 0) -> int:
    """Keep the rows of each table that a Gather reads in so many bits, with a scale for each block of a row; how many were.

    `block` is a power of two from 16, and 0 one scale for a row. A table that something else reads too, as a language
    model's head may, is left, because it would be kept twice.
    """
    readers: dict[str, int] = {}
    for node in graph.model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + (node.op_type != "Gather")

    def rule(node: NodeProto) -> list[NodeProto] | None:
        if node.op_type != "Gather" or attributes(node).get("axis", 0) or readers[node.input[0]]:
            return None
        table = graph.matrix(node.input[0], smallest)
        if table is None:
            return None
        rows, width = table.shape
        size = block or max(16, 1 << (width - 1).bit_length())
        blocks = -(-width // size)
        padded = np.zeros((rows, blocks, size), np.float32)
        padded.reshape(rows, -1)[:, :width] = table
        half = 1 << (bits - 1)
        scales = np.maximum(np.abs(padded).max(axis=2) / (half - 1), np.finfo(np.float32).tiny)
        codes = (np.rint(padded / scales[:, :, None]) + half).astype(np.uint8).reshape(rows, -1)[:, :width]
        if bits == 4:
            codes = np.pad(codes, ((0, 0), (0, width % 2)))
            codes = codes[:, ::2] | codes[:, 1::2] << 4
        given = [graph.add(codes, node.input[0]), node.input[1], graph.add(scales.astype(np.float32), node.input[0])]
        options: dict[str, Any] = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
        return [make_node("GatherBlockQuantized", given, node.output, domain=MICROSOFT, **options)]

    return graph.rewrite(rule)


def _inputs(node: NodeProto, count: int) -> list[str]:
    """A node's inputs, with empty names for those left out at the end."""
    return [*node.input, *[""] * (count - len(node.input))]
