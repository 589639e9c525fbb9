"""The cost of a compiled program: kernels, bytes and loops, counted in the text of XLA's optimised program.

Counts repeat to the last one, where clocks do not, and they need no accelerator: see `jaxsoft.bench.chips`. On an H100
a kernel costs about 1.1 µs however little it does. So below some 64 seeds the time of a turn is its kernels, and above
it its bytes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from jax.extend.core import jaxprs_in_params
from jax.interpreters.partial_eval import dce_jaxpr

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
        is_integer: whether its result is a number of 32 or 64 bits without a fraction.
        operands: names; of a constant its value.
        rest: of the line: attributes.
        is_root: whether its result is the computation's.
    """

    name: str
    kind: str
    size: int
    is_integer: bool
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
    """The cost of one round of a loop, or of a whole program.

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
        """All of them, whatever they are."""
        return self.kernels.total()


def turn_cost(hlo: str, *, counts_turns: bool = False) -> Cost:
    """The cost of one turn of all members, for the program of `Program.advance`.

    How many turns it takes is an argument, so the loops over turns are those whose rounds the compiler does not know,
    outermost ones or within known loops. There are several where members are trained in blocks: each counts as often as
    it is started. In a program without such a loop one round of the dearest outermost loop is a turn.

    Args:
        hlo: the compiled program's text, `compiled.as_text()`.
        counts_turns: whether a call takes a number of turns of its own, as `Program.report` does. Then a turn is one
            round of the dearest outermost loop in any case: an open one within it is a part of the turn.

    Raises:
        ValueError: the program has no loop.
    """
    computations = parse(hlo)
    loops = list(_outermost_loops(_entry(hlo), computations))
    turns = [] if counts_turns else [turn for loop in loops for turn in _loops_over_turns(loop, computations)]
    if turns:
        return reduce(_add, turns)
    if not loops:
        raise ValueError("the program has no loop")
    return max((cost(_part(loop, "body"), computations) for loop in loops), key=lambda turn: turn.num_kernels)


def _loops_over_turns(loop: Instruction, computations: Computations) -> Iterator[Cost]:
    """The cost of a round of every loop over turns that this one is or contains."""
    num_rounds, body = _num_rounds(loop, computations[_part(loop, "condition")]), _part(loop, "body")
    if num_rounds is None:
        yield cost(body, computations)
        return
    for inner in _outermost_loops(body, computations):
        for turn in _loops_over_turns(inner, computations):
            kernels = Counter({kind: n * num_rounds for kind, n in turn.kernels.items()})
            yield Cost(kernels, turn.num_bytes * num_rounds, turn.loops)


def _add(first: Cost, second: Cost) -> Cost:
    return Cost(first.kernels + second.kernels, first.num_bytes + second.num_bytes, first.loops + second.loops)


def _entry(hlo: str) -> str:
    """The name of a program's own computation."""
    found = re.search(r"^ENTRY %?([\w.\-]+) ", hlo, re.MULTILINE)
    return found.group(1) if found else ""


def program_cost(hlo: str) -> Cost:
    """The cost of a whole program."""
    return cost(_entry(hlo), parse(hlo))


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
            is_integer = re.match(r"[su](32|64)\[\]", shape) is not None
            current.append(Instruction(name, kind, shape_bytes(shape), is_integer, names, rest, bool(root)))
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
    condition = _part(loop, "condition")
    inner = cost(_part(loop, "body"), computations, depth + 1)
    kernels, num_bytes = inner.kernels, inner.num_bytes
    num_rounds = _num_rounds(loop, computations[condition])
    if num_rounds is None:  # the condition runs, and is copied to the host, in every round
        test = cost(condition, computations, depth + 1)
        kernels, num_bytes = kernels + test.kernels + Counter(condition=1), num_bytes + test.num_bytes
    this = LoopCost(depth, num_rounds, kernels.total(), num_bytes)
    return Cost(kernels, num_bytes, (this, *inner.loops))


def _part(loop: Instruction, part: str) -> str:
    """The name of a loop's `body` or `condition`."""
    return re.findall(rf"{part}=%?([\w.\-]+)", loop.rest)[0]


def _num_rounds(loop: Instruction, condition: Sequence[Instruction]) -> int | None:
    """How often a loop goes round: as XLA notes it, or the integer that its counter, from 0 on, stays below.

    JAX compares so in the loops that it counts, `scan` and `fori_loop`; that the counter starts at 0 is assumed.
    """
    if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted.group(1))
    constants = {x.name: x.operands[0] for x in condition if x.kind == "constant" and x.is_integer}
    root = next((x for x in condition if x.is_root), None)
    if root is None or root.kind != "compare" or "direction=LT" not in root.rest:
        return None
    limit = constants.get(root.operands[1], "")
    return int(limit) if limit.isdigit() else None


def _outermost_loops(name: str, computations: Computations) -> Iterator[Instruction]:
    """The loops of a computation and of what it calls."""
    for instruction in computations.get(name, ()):
        if instruction.kind == "while":
            yield instruction
        elif instruction.kind in ("call", "async-start"):
            for callee in _callees(instruction):
                yield from _outermost_loops(callee, computations)


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

    Loops of known length count as often as they go round, others once; of conditionals the branch that has most. What
    nobody uses is not counted, for example gradients that a loss does not ask for.

    Args:
        jaxpr: of `jax.make_jaxpr(...)(...)`, or of a traced function.
    """
    total, jaxpr = 0, getattr(jaxpr, "jaxpr", jaxpr)
    used: Any = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]
    for equation in used.eqns:
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
            total += times * sum(product_flops(inner) for inner in jaxprs_in_params(params))
    return total
