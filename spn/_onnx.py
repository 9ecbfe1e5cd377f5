r"""Translation of the operator to ONNX nodes: preparation of whole maps, then one Scan over the lines per direction.

.. math:: h(t,j) = d(t,j) + \sum_{k \in V} p_k\, h(t-1, j+k), \qquad
    d = \Big(1 - \sum_{k \in V} p_k\Big)\, x \ \text{ or }\ \lambda\, x

The weights of taps outside V are zero, and the body of the Scan pads each line with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import reference

# Values and dtypes of an exported graph are types of onnx_ir, which is imported only during an export.
Value = Any
Dtype = Any

# Maps are (N, D, G, C / G, H, W) and gates (N, D, 3, G, H, W); a sweep has D = 1.
DIRECTION_AXIS, TAP_AXIS, HEIGHT_AXIS, WIDTH_AXIS = 1, 2, 4, 5
END = 2**62  # end of a slice, beyond any last element


def propagate(
    x: Value,
    gates: Value,
    source: Value,
    direction: str,
    normalize: str,
    merge: str,
    save_winner: bool,
    save_checkpoints: bool,
    restart_every: int = 0,
) -> Sequence[Value]:
    """Translate spn::propagate. The results saved for the backward pass are empty: exported models have none."""
    write = _Writer(x, gates)
    taps = write.existing_taps(reference.sweeps_of(direction), restart_every)
    p = write.normalized_gates(taps, normalize)
    hidden = write.sweeps(write.driven(p, source), p, reference.sweeps_of(direction), restart_every)
    nothing = write.zeros([0])
    return write.merged(hidden, merge), nothing, nothing


class _Writer:
    """Writes nodes into the graph that is being exported, with one method per part of the equation.

    All values between the inputs and the result have the dtype of the running state.
    """

    def __init__(self, x: Value, gates: Value) -> None:
        import onnxscript

        self.op: Any = onnxscript.opset18
        self.ir: Any = onnxscript.ir
        types = self.ir.DataType
        self.narrow, self.dtype = x.dtype, types.DOUBLE if x.dtype == types.DOUBLE else types.FLOAT
        self.x, self.gates = self.widened(x), self.widened(gates)

    def existing_taps(self, directions: Sequence[str], restart_every: int) -> Value:
        """Compute V(t, j) of each direction, (D, 3, 1, H, W)."""
        op = self.op
        height, width = (op.Shape(self.x, start=axis, end=axis + 1) for axis in (2, 3))
        rows, columns = op.Unsqueeze(self.count(height), [1]), op.Unsqueeze(self.count(width), [0])
        taps = []
        for direction in directions:
            if reference.is_horizontal(direction):
                line, lines, position, positions = columns, width, rows, height
            else:
                line, lines, position, positions = rows, height, columns, width
            if reference.is_reversed(direction):
                line = op.Sub(op.Sub(lines, 1), line)
            if restart_every:
                line = op.Mod(line, restart_every)
            neighbour = op.Add(position, op.Reshape(op.Constant(value_ints=[-1, 0, 1]), [3, 1, 1]))
            inside = op.And(op.GreaterOrEqual(neighbour, 0), op.Less(neighbour, positions))
            taps.append(op.Unsqueeze(op.And(op.Greater(line, 0), inside), [0, 2]))
        return op.Concat(*taps, axis=0)

    def normalized_gates(self, taps: Value, mode: str) -> Value:
        """Compute the weights p, (N, D, 3, G, H, W); zero where a tap does not exist."""
        op, raw = self.op, self.gates
        if mode == "sigmoid":
            smallest = self.number(-3e38)  # avoids 0 / 0 on the first line, which has no taps
            p = op.Softmax(op.Where(taps, self.log_sigmoid(raw), smallest), axis=TAP_AXIS)
        elif mode == "none":
            p = raw
        else:
            total = op.ReduceSum(op.Abs(raw), [TAP_AXIS], keepdims=1)
            p = op.Div(raw, op.Max(total, self.number(1 if mode == "abs" else reference.UNIT_FLOOR)))
        return op.Where(taps, p, self.number(0))

    def log_sigmoid(self, raw: Value) -> Value:
        """Compute min(g, 0) - log(1 + exp(-|g|)).

        Softplus overflows in some runtimes, and few support it for float64.
        """
        op = self.op
        remainder = op.Log(op.Add(op.Exp(op.Neg(op.Abs(raw))), self.number(1)))
        return op.Sub(op.Min(raw, self.number(0)), remainder)

    def driven(self, p: Value, source: Value) -> Value:
        """Compute the input term d of each sweep, (N, D, G, C / G, H, W)."""
        op = self.op
        if source is None:
            kept = op.Sub(self.number(1), op.ReduceSum(p, [TAP_AXIS], keepdims=0))
            return op.Mul(self.grouped(self.x, self.gates), op.Unsqueeze(kept, [3]))
        lambdas = self.widened(source)
        by_source = op.Mul(self.grouped(self.x, source), op.Unsqueeze(lambdas, [3]))
        groups = op.Shape(self.gates, start=3, end=4)
        shape = self.shape(op.Shape(source, end=2), groups, -1, op.Shape(self.x, start=2))
        return op.Reshape(by_source, shape)

    def grouped(self, maps: Value, groups: Value) -> Value:
        """Reshape (N, C, H, W) to (N, 1, G, C / G, H, W); G is the size of dimension -3 of ``groups``."""
        op = self.op
        count = op.Shape(groups, start=-3, end=-2)
        shape = self.shape(op.Shape(maps, end=1), 1, count, -1, op.Shape(maps, start=2))
        return op.Reshape(maps, shape)

    def sweeps(self, driven: Value, p: Value, directions: Sequence[str], restart_every: int) -> list[Value]:
        """Compute h of each direction, (N, 1, G, C / G, H, W)."""
        op = self.op
        shape = self.shape(op.Shape(p, end=1), -1, op.Shape(p, start=3))
        weights = self.split(op.Unsqueeze(op.Reshape(p, shape), [3]), DIRECTION_AXIS, 3 * len(directions))
        inputs = self.split(driven, DIRECTION_AXIS, len(directions))
        return [
            self.sweep(inputs[d], weights[3 * d : 3 * d + 3], direction, restart_every)
            for d, direction in enumerate(directions)
        ]

    def sweep(self, driven: Value, weights: Sequence[Value], direction: str, restart_every: int) -> Value:
        """Compute the recurrence with one Scan over the lines."""
        op = self.op
        axis = WIDTH_AXIS if reference.is_horizontal(direction) else HEIGHT_AXIS
        backwards = int(reference.is_reversed(direction))
        line = self.shape(op.Shape(driven, end=axis), op.Shape(driven, start=axis + 1))
        inputs = [*weights, driven]
        if restart_every:
            inputs.append(self.goes_on(op.Shape(driven, start=axis, end=axis + 1), direction, restart_every))
        last = op.Scan(
            self.zeros(line),
            *inputs,
            body=self.step(restarts=restart_every > 0),
            num_scan_inputs=len(inputs),
            scan_input_axes=[axis] * len(inputs),
            scan_input_directions=[backwards] * len(inputs),
            scan_output_axes=[axis],
            scan_output_directions=[backwards],
        )
        scan = last.producer()
        scan.resize_outputs(2)  # the second output holds all lines, the first only the last line
        return scan.outputs[1]

    def goes_on(self, lines: Value, direction: str, restart_every: int) -> Value:
        """Compute which lines continue the previous line, (1, 1, 1, 1, H, 1) or (1, 1, 1, 1, 1, W)."""
        op = self.op
        line = self.count(lines)
        if reference.is_reversed(direction):
            line = op.Sub(op.Sub(lines, 1), line)
        shape = [1, 1, 1, 1, 1, -1] if reference.is_horizontal(direction) else [1, 1, 1, 1, -1, 1]
        return op.Reshape(op.Greater(op.Mod(line, restart_every), 0), shape)

    def step(self, restarts: bool) -> Any:
        """Build the body of a Scan, which computes h of one line.

        Its inputs are the previous line, the weights of the three taps and the input term d. With ``restarts``, a flag
        is added that shows whether the line continues the previous line: zero weights alone would still propagate NaN.
        """
        ir = self.ir
        tape = ir.tape.Tape()
        names = ("previous", "before", "same", "after", "driven")
        inputs = [
            ir.Value(name=f"line_{name}", type=ir.TensorType(self.dtype), shape=ir.Shape([None] * 5))
            for name in names
        ]
        previous, before, same, after, driven = inputs
        if restarts:
            goes_on = ir.Value(
                name="line_goes_on", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([1] * 5)
            )
            inputs.append(goes_on)

        def constant(value: float | list[int], dtype: Dtype = ir.DataType.INT64) -> Value:
            return tape.op("Constant", [], {"value": ir.tensor(value, dtype=dtype)})

        if restarts:
            previous = tape.op("Where", [goes_on, previous, constant(0.0, self.dtype)])
        axis = constant([-1])
        padded = tape.op("Pad", [previous, constant([1, 1]), constant(0.0, self.dtype), axis])
        left = tape.op("Slice", [padded, constant([0]), constant([-2]), axis])
        right = tape.op("Slice", [padded, constant([2]), constant([END]), axis])
        h = driven
        for weight, neighbour in ((before, left), (same, previous), (after, right)):
            h = tape.op("Add", [h, tape.op("Mul", [weight, neighbour])])
        outputs = [h, tape.op("Identity", [h])]
        for output in outputs:
            output.type, output.shape = ir.TensorType(self.dtype), ir.Shape([None] * 5)
        for number, value in enumerate(output for node in tape.nodes for output in node.outputs):
            value.name = f"line_{number}"  # must differ from the names in the enclosing graph
        return ir.Graph(inputs, outputs, nodes=tape.nodes, name="line")

    def merged(self, hidden: Sequence[Value], merge: str) -> Value:
        """Merge the directions into (N, C, H, W), or (N, D, C, H, W) for "none", in the dtype of the operator's x."""
        op, shape = self.op, self.op.Shape(self.x)
        if merge == "max":
            result = op.Max(*hidden)
        elif merge == "none":
            result = op.Concat(*hidden, axis=DIRECTION_AXIS)
            shape = self.shape(op.Shape(self.x, end=1), len(hidden), op.Shape(self.x, start=1))
        else:
            result = op.Sum(*hidden)
            if merge == "mean":
                result = op.Div(result, self.number(len(hidden)))
        result = op.Reshape(result, shape)
        return result if self.narrow == self.dtype else op.Cast(result, to=self.narrow)

    # ---- Values -----------------------------------------------------------------------------------------------------

    def widened(self, value: Value) -> Value:
        return value if value.dtype == self.dtype else self.op.Cast(value, to=self.dtype)

    def number(self, value: float) -> Value:
        return self.op.Constant(value=self.ir.tensor(float(value), dtype=self.dtype))

    def zeros(self, shape: Value | list[int]) -> Value:
        return self.op.ConstantOfShape(shape, value=self.ir.tensor([0.0], dtype=self.dtype))

    def shape(self, *parts: Value | int) -> Value:
        """Concatenate sizes to a shape."""
        op = self.op
        parts = tuple(op.Constant(value_ints=[part]) if isinstance(part, int) else part for part in parts)
        return op.Concat(*parts, axis=0)

    def count(self, size: Value) -> Value:
        """Return 0, 1, ..., size - 1; size has one element."""
        return self.op.Range(0, self.op.Squeeze(size), 1)

    def split(self, value: Value, axis: int, count: int) -> Sequence[Value]:
        return [value] if count == 1 else self.op.Split(value, axis=axis, num_outputs=count)
