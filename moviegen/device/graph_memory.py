"""The most that the tensors of a compiled graph take at once, read from the text that MindSpore dumps.

Operators run in MindSpore's default order (`exec_order` bfs): what has all its inputs is next in turn. On CPU the peak
so found is that of the order in which the runtime's own log says that they ran.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Nodes = dict[str, "Node"]  # by name
Buffer = tuple[str, int]  # the operator that made it, and which of its results it is
BYTES = {"Float32": 4, "Int32": 4, "Int64": 8, "Bool": 1, "UInt8": 1, "Float16": 2, "BFloat16": 2}
SAME_BUFFER = ("Reshape", "Load", "Depend", "ExpandDims", "Squeeze", "Flatten", "StopGradient")
IN_PLACE = ("Assign", "AssignAdd", "AssignSub", "AdamWeightDecay")
NO_TENSORS = ("MakeTuple", "TupleGetItem", "UpdateState")  # of their own; like the others above they are never run
NODE = re.compile(r"  (%\d+)\(.*?\) = (?:PrimFunc_)?([\w:]+)(.*)")
TUPLE = re.compile(r"<Tuple\[(.*?)\], TupleShape\((.*)\)")


@dataclass
class Node:
    """One operator: its name, what it reads, and the bytes of each tensor that it gives."""

    operator: str
    inputs: list[str]
    place: int
    outputs: tuple[int, ...] = ()


def read_graph(path: Path) -> tuple[Nodes, str]:
    """Name -> node, and the name of what the graph returns."""
    nodes: Nodes = {}
    last, returned = None, ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := NODE.match(line):
            arguments = within_parentheses(found[3])
            place = re.search(r"I64\((\d+)\)", arguments)
            last = nodes[found[1]] = Node(found[2], re.findall(r"%\d+", arguments), int(place[1]) if place else 0)
        elif found := re.match(r"      : \(.*\) -> \((.*)\)$", line):
            if last and not last.outputs and last.operator not in NO_TENSORS:
                last.outputs = tuple(tensor_bytes(found[1]))
        elif found := re.match(r"  Return\((%\d+)", line):
            returned = found[1]
    return nodes, returned


def within_parentheses(text: str) -> str:
    """What stands between the first parenthesis and its partner, or the line's end: constants may go over lines."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter == ")":
            return text[1:place]
    return text


def tensor_bytes(described: str) -> Iterator[int]:
    """Of each tensor in the text of a node's result."""
    if found := TUPLE.match(described):
        types = [t for t, n in re.findall(r"Tensor\[(\w+)\]>?(?:\*(\d+))?", found[1]) for _ in range(int(n or 1))]
        shapes = re.findall(r"\(([\d, ]*)\)", found[2])
    else:
        pairs = re.findall(r"Tensor\[(\w+)\][>\]]*, \(([\d, ]*)\)", described)
        types, shapes = [t for t, _ in pairs], [s for _, s in pairs]
    for dtype, shape in zip(types, shapes, strict=True):
        yield BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n.strip())


def breadth_first(nodes: Nodes, returned: str) -> list[str]:
    """The names of what leads to the result, in MindSpore's order."""
    waiting_for, readers, ready = Counter[str](), defaultdict[str, list[str]](list), deque[str]()
    seen, found = {returned}, deque([returned])
    while found:
        name = found.popleft()
        if not nodes[name].inputs:
            ready.append(name)
        for source in nodes[name].inputs:
            readers[source].append(name)
            waiting_for[name] += 1
            if source not in seen:
                seen.add(source)
                found.append(source)
    order: list[str] = []
    while ready:  # one by one: what follows of the first comes before the second
        turn = deque([ready.popleft()])
        while turn:
            order.append(turn.popleft())
            for reader in readers[order[-1]]:
                waiting_for[reader] -= 1
                if not waiting_for[reader]:
                    turn.append(reader)
    return order


def buffers(nodes: Nodes, name: str, known: dict[str, list[Buffer]]) -> list[Buffer]:
    """The tensors behind a name."""
    if name not in known:
        node = nodes[name]
        if node.operator == "MakeTuple":
            known[name] = [one for source in node.inputs for one in buffers(nodes, source, known)]
        elif node.operator == "TupleGetItem":
            known[name] = buffers(nodes, node.inputs[0], known)[node.place : node.place + 1]
        elif node.operator in SAME_BUFFER:
            known[name] = buffers(nodes, node.inputs[0], known) if node.inputs else []
        else:
            known[name] = [(name, place) for place in range(len(node.outputs))]
    return known[name]


def peak(path: Path) -> int:
    """Bytes of the tensors that are alive at once, at most; a tensor ends with its last reader."""
    nodes, returned = read_graph(path)
    order = breadth_first(nodes, returned)
    known, last = dict[str, list[Buffer]](), dict[Buffer, int]()
    for moment, name in enumerate(order):
        for source in nodes[name].inputs if nodes[name].operator not in (*SAME_BUFFER, *NO_TENSORS) else ():
            last |= dict.fromkeys(buffers(nodes, source, known), moment)
    last |= dict.fromkeys(buffers(nodes, returned, known), len(order))
    alive, most, ends = 0, 0, defaultdict[int, int](int)
    for moment, name in enumerate(order):
        node = nodes[name]
        if node.operator not in (*SAME_BUFFER, *IN_PLACE):
            for place, size in enumerate(node.outputs):
                alive += size
                ends[last.get((name, place), moment)] += size
        most = max(most, alive)
        alive -= ends[moment]
    return most
