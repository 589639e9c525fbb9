"""What a program is compiled to: kernels, bytes and loops, counted in the text of XLA's optimised program.

Counts repeat to the last one, where clocks do not, and they need no accelerator: see `jaxsoft.bench.chips`. On an H100
a kernel costs about 1.1 µs however little it does. So below some 64 seeds the time of a turn is its kernels, and above
it its bytes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

KERNELS = (
    "fusion", "custom-call", "copy", "dot", "convolution", "sort", "scatter", "gather", "reduce", "dynamic-slice",
    "dynamic-update-slice", "all-reduce", "all-gather", "pad", "concatenate", "select-and-scatter", "reduce-window",
)  # fmt: skip
"""Instructions that each launch one kernel, or one copy by the device."""

NO_KERNELS = ("AllocateBuffer", "Sharding", "annotate_device_placement", "AssumeGatherIndicesInBound")
"""Custom calls that run nothing."""

WIDTHS = {"pred": 1, "s4": 1, "u4": 1} | {f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)}
WIDTHS |= {"bf16": 2, "c64": 8, "c128": 16}


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        name: unique in the program.
        kind: for example `fusion` or `while`.
        size: of its result, bytes.
        operands: names; of a constant its value.
        rest: of the line: attributes.
        is_root: whether its result is the computation's.
    """

    name: str
    kind: str
    size: int
    operands: tuple[str, ...]
    rest: str
    is_root: bool


Computations = Mapping[str, Sequence[Instruction]]


class LoopCost(NamedTuple):
    """A loop inside a turn.

    Attributes:
        depth: 0 for those of the turn itself, 1 for loops in these, ...
        num_rounds: None where the compiler does not know it; the turn's cost then counts one round.
        num_kernels: of one round, inner loops included.
        num_bytes: of one round.
    """

    depth: int
    num_rounds: int | None
    num_kernels: int
    num_bytes: int


class Cost(NamedTuple):
    """What runs once around.

    Attributes:
        kernels: by kind of instruction; `condition` are copies of loop conditions to the host.
        num_bytes: that kernels read and write: operands and results, of those indexed the indexed part only.
        loops: inside, outermost first.
    """

    kernels: Counter[str]
    num_bytes: int
    loops: tuple[LoopCost, ...]

    @property
    def num_kernels(self) -> int:
        return self.kernels.total()


def turn_cost(hlo: str) -> Cost:
    """The cost of one round of a program's outermost loop that costs most, for `Program.advance` one turn.

    Args:
        hlo: the compiled program's text, `compiled.as_text()`.

    Raises:
        ValueError: the program has no loop.
    """
    computations = parse(hlo)
    entry = re.search(r"^ENTRY %?([\w.\-]+) ", hlo, re.MULTILINE)
    bodies = list(_loop_bodies(entry.group(1) if entry else "", computations))
    if not bodies:
        raise ValueError("the program has no loop")
    return max((cost(body, computations) for body in bodies), key=lambda turn: turn.num_kernels)


def program_cost(hlo: str) -> Cost:
    """The cost of a whole program."""
    entry = re.search(r"^ENTRY %?([\w.\-]+) ", hlo, re.MULTILINE)
    return cost(entry.group(1) if entry else "", parse(hlo))


def parse(hlo: str) -> dict[str, list[Instruction]]:
    """The instructions of every computation of a program."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in hlo.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$", line):
            current = found.setdefault(start.group(1), [])
        elif match := re.match(r" +(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)", line):
            root, name, shape, kind, rest = match.groups()
            operands, _, rest = rest.partition(")")
            is_leaf = kind in ("parameter", "constant")
            names = (operands,) if is_leaf else tuple(re.findall(r"%([\w.\-]+)", operands))
            current.append(Instruction(name, kind, shape_bytes(shape), names, rest, bool(root)))
    return found


def shape_bytes(shape: str) -> int:
    """Bytes of a shape as XLA writes it, for example `(f32[8,2]{1,0}, s32[])`."""
    arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return sum(WIDTHS.get(dtype, 0) * math.prod(int(n) for n in sizes.split(",") if n) for dtype, sizes in arrays)


def cost(name: str, computations: Computations, depth: int = 0) -> Cost:
    """The cost of a computation, its loops counted as often as they go round."""
    kernels: Counter[str] = Counter()
    num_bytes, loops = 0, []
    sizes = {instruction.name: instruction.size for instruction in computations[name]}
    for instruction in computations[name]:
        if instruction.kind == "while":
            inner = _loop_cost(instruction, computations, depth)
            num_rounds = inner.loops[0].num_rounds or 1
            kernels.update({kind: n * num_rounds for kind, n in inner.kernels.items()})
            num_bytes += inner.num_bytes * num_rounds
            loops += inner.loops
        elif instruction.kind in ("call", "conditional", "async-start"):
            # of a conditional, the branch that costs most
            branches = [cost(callee, computations, depth) for callee in _callees(instruction) if callee in computations]
            if branches:
                dearest = max(branches, key=lambda branch: (branch.num_kernels, branch.num_bytes))
                kernels += dearest.kernels
                num_bytes += dearest.num_bytes
                loops += dearest.loops
        elif instruction.kind in KERNELS and not any(f'"{target}"' in instruction.rest for target in NO_KERNELS):
            kernels[instruction.kind] += 1
            num_bytes += _moved(instruction, sizes, computations)
    return Cost(kernels, num_bytes, tuple(loops))


def _loop_cost(loop: Instruction, computations: Computations, depth: int) -> Cost:
    """The cost of one round of a loop, which comes first among its `loops`."""
    body, condition = (re.findall(rf"{part}=%?([\w.\-]+)", loop.rest)[0] for part in ("body", "condition"))
    inner = cost(body, computations, depth + 1)
    kernels, num_bytes = inner.kernels, inner.num_bytes
    num_rounds = _num_rounds(loop, computations[condition])
    if num_rounds is None:  # the condition runs, and is copied to the host, in every round
        test = cost(condition, computations, depth + 1)
        kernels, num_bytes = kernels + test.kernels + Counter(condition=1), num_bytes + test.num_bytes
    this = LoopCost(depth, num_rounds, kernels.total(), num_bytes)
    return Cost(kernels, num_bytes, (this, *inner.loops))


def _num_rounds(loop: Instruction, condition: Sequence[Instruction]) -> int | None:
    """How often a loop goes round: as XLA notes it, or the constant that its counter, from 0 on, stays below."""
    if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted.group(1))
    constants = {x.name: x.operands[0] for x in condition if x.kind == "constant"}
    root = next((x for x in condition if x.is_root), None)
    if root is None or root.kind != "compare" or "direction=LT" not in root.rest:
        return None
    limits = [constants[name] for name in root.operands if name in constants]
    return int(limits[0]) if len(limits) == 1 and limits[0].isdigit() else None


def _loop_bodies(name: str, computations: Computations) -> Iterator[str]:
    """Bodies of the loops of a computation and of what it calls."""
    for instruction in computations.get(name, ()):
        if instruction.kind == "while":
            yield re.findall(r"body=%?([\w.\-]+)", instruction.rest)[0]
        elif instruction.kind in ("call", "async-start"):
            for callee in _callees(instruction):
                yield from _loop_bodies(callee, computations)


def _callees(instruction: Instruction) -> list[str]:
    attributes = r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    named = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
    return re.findall(attributes, instruction.rest) + named


def _moved(instruction: Instruction, sizes: Mapping[str, int], computations: Computations) -> int:
    """Bytes that a kernel reads and writes."""
    operands = [sizes.get(operand, 0) for operand in instruction.operands]
    match instruction.kind:
        case "fusion":
            fused = computations.get(next(iter(_callees(instruction)), ""), ())
            return _fusion_bytes(fused, operands, instruction.size)
        case "dynamic-slice" | "gather":
            return 2 * instruction.size
        case "dynamic-update-slice":
            return 2 * operands[1]
        case "scatter":
            return 2 * operands[-1]
        case _:
            return sum(operands) + instruction.size


def _fusion_bytes(fused: Sequence[Instruction], operands: Sequence[int], size: int) -> int:
    """Bytes of a fusion: of operands that are only indexed, and results updated in place, the indexed part."""
    if not fused:
        return sum(operands) + size
    by_name = {instruction.name: instruction for instruction in fused}
    aliases: dict[str, str] = {}  # of reshapes of a parameter: the parameter
    read: dict[str, list[int | None]] = {}  # of a parameter: bytes of each use; None where all of it is used
    for instruction in fused:
        sources = [aliases.get(operand, operand) for operand in instruction.operands]
        if instruction.kind in ("bitcast", "reshape") and sources[0] in by_name:
            aliases[instruction.name] = sources[0]
            continue
        for position, source in enumerate(sources):
            if by_name.get(source, instruction).kind != "parameter":
                continue
            if position == 0 and instruction.kind in ("dynamic-slice", "gather", "slice"):
                read.setdefault(source, []).append(instruction.size)
            elif position == 0 and instruction.kind in ("dynamic-update-slice", "scatter"):
                read.setdefault(source, []).append(0)
            else:
                read.setdefault(source, []).append(None)
    total = 0
    for instruction in fused:
        if instruction.kind == "parameter":
            uses = read.get(instruction.name, [])
            whole = None in uses
            total += instruction.size if whole else sum(use or 0 for use in uses)
    roots = [instruction for instruction in fused if instruction.is_root]
    if roots and roots[0].kind == "tuple":
        roots = [by_name[aliases.get(name, name)] for name in roots[0].operands if aliases.get(name, name) in by_name]
    for root in roots:
        while root.kind in ("bitcast", "reshape") and root.operands[0] in by_name:
            root = by_name[root.operands[0]]
        updates = {"dynamic-update-slice": 1, "scatter": -1}
        in_place = root.kind in updates and root.operands[updates[root.kind]] in by_name
        total += by_name[root.operands[updates[root.kind]]].size if in_place else root.size
    return total


def product_flops(jaxpr: Any) -> int:
    """Floating-point operations of a program's products of matrices and convolutions, 2 for each multiplication.

    Loops of known length count as often as they go round, others once; of conditionals the branch that has most.

    Args:
        jaxpr: of `jax.make_jaxpr(...)(...)`, or of a traced function.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        out = equation.outvars[0].aval
        if name == "dot_general":
            (contracting, _), _ = params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracting)
            total += 2 * depth * math.prod(out.shape)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            numbers = params["dimension_numbers"]
            total += 2 * math.prod(out.shape) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        elif name == "cond":
            total += max(product_flops(branch) for branch in params["branches"])
        else:
            times = params.get("length", 1) if name == "scan" else 1
            total += times * sum(product_flops(inner) for inner in inner_jaxprs(params))
    return total


def inner_jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    """Programs among an equation's parameters."""
    for value in params.values():
        for inner in value if isinstance(value, tuple | list) else (value,):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield inner
