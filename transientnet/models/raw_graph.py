"""A graph of standard ONNX operators, written like the NumPy that it stands for.

A `Value` is the output of a node. Python's operators, comparisons and a few methods append nodes to its
`Graph`; plain numbers become constants of the value's own type. Axes count from the left, and every dimension
may be zero or known only at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    import onnx

__all__ = ["Graph", "Value", "onnx_package"]

_END = np.iinfo(np.int64).max


def onnx_package() -> Any:
    """The ``onnx`` package, with its submodules loaded.

    Raises
    ------
    MissingDependencyError
    """
    try:
        import onnx
        import onnx.checker
        import onnx.compose
        import onnx.helper
        import onnx.numpy_helper
        import onnx.version_converter
    except ImportError as error:
        raise MissingDependencyError.for_extra("raw", "Making the raw model") from error
    return onnx


class Value:
    """Output of one node; made by `Graph`.

    Attributes
    ----------
    graph : Graph
    name : str
        Unique in the graph.
    dtype : numpy.dtype
    """

    __slots__ = ("dtype", "graph", "name")

    def __init__(self, graph: Graph, name: str, dtype: npt.DTypeLike):
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)

    def _with(self, kind: str, other: Any, dtype: npt.DTypeLike | None = None) -> Value:
        return self.graph.op(kind, self, self.graph.lift(other, self.dtype), dtype=dtype)

    def __add__(self, other: Any) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Any) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return self.graph.lift(other, self.dtype) - self

    def __mul__(self, other: Any) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Any) -> Value:
        return self._with("Div", other)

    def __rtruediv__(self, other: float) -> Value:
        return self.graph.lift(other, self.dtype) / self

    def __matmul__(self, other: Value) -> Value:
        return self._with("MatMul", other)

    def __neg__(self) -> Value:
        return self.graph.op("Neg", self)

    def __lt__(self, other: Any) -> Value:
        return self._with("Less", other, np.bool_)

    def __le__(self, other: Any) -> Value:
        return self._with("LessOrEqual", other, np.bool_)

    def __gt__(self, other: Any) -> Value:
        return self._with("Greater", other, np.bool_)

    def __ge__(self, other: Any) -> Value:
        return self._with("GreaterOrEqual", other, np.bool_)

    def equals(self, other: Any) -> Value:
        """Element-wise equality."""
        return self._with("Equal", other, np.bool_)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def __or__(self, other: Value) -> Value:
        return self._with("Or", other)

    def __invert__(self) -> Value:
        return self.graph.op("Not", self)

    def maximum(self, other: Any) -> Value:
        """Element-wise larger of two."""
        return self._with("Max", other)

    def minimum(self, other: Any) -> Value:
        """Element-wise smaller of two."""
        return self._with("Min", other)

    def call(self, kind: str, **attributes: Any) -> Value:
        """A unary operator that keeps the type, such as ``Sqrt``."""
        return self.graph.op(kind, self, **attributes)

    def abs(self) -> Value:
        """Absolute values."""
        return self.call("Abs")

    def isnan(self) -> Value:
        """True where not a number."""
        return self.graph.op("IsNaN", self, dtype=np.bool_)

    def cast(self, dtype: npt.DTypeLike) -> Value:
        """The same numbers in another type."""
        kind = onnx_package().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph.op("Cast", self, to=kind, dtype=dtype)

    def where(self, then: Any, otherwise: Any) -> Value:
        """``np.where(self, then, otherwise)``; at least one of the two is a `Value`."""
        typed = then if isinstance(then, Value) else otherwise
        chosen = [self.graph.lift(side, typed.dtype) for side in (then, otherwise)]
        return self.graph.op("Where", self, *chosen, dtype=typed.dtype)

    def _reduced(self, kind: str, axes: tuple[int, ...], keep: bool) -> Value:
        return self.graph.op(kind, self, np.array(axes, np.int64), keepdims=int(keep))

    def sum(self, *axes: int, keep: bool = False) -> Value:
        """Sum over axes."""
        return self._reduced("ReduceSum", axes, keep)

    def mean(self, *axes: int, keep: bool = False) -> Value:
        """Mean over axes."""
        return self._reduced("ReduceMean", axes, keep)

    def max(self, *axes: int, keep: bool = False) -> Value:
        """Highest over axes; undefined where there is a NaN."""
        return self._reduced("ReduceMax", axes, keep)

    def min(self, *axes: int, keep: bool = False) -> Value:
        """Lowest over axes; undefined where there is a NaN."""
        return self._reduced("ReduceMin", axes, keep)

    def any(self, *axes: int, keep: bool = False) -> Value:
        """Logical or over axes."""
        # Reductions take no booleans before opset 20.
        return self.cast(np.uint8).max(*axes, keep=keep).cast(np.bool_)

    def all(self, *axes: int, keep: bool = False) -> Value:
        """Logical and over axes."""
        return self.cast(np.uint8).min(*axes, keep=keep).cast(np.bool_)

    def count(self, *axes: int, keep: bool = False) -> Value:
        """How many are true over axes, as float32: exact to 16 million."""
        return self.cast(np.float32).sum(*axes, keep=keep)

    def dim(self, axis: int) -> Value:
        """Length of one axis: int64, shape (1,)."""
        return self.graph.op("Shape", self, start=axis, end=axis + 1, dtype=np.int64)

    def reshape(self, *dims: Value | int) -> Value:
        """Another shape; dimensions are numbers or values of shape (1,)."""
        return self.graph.op("Reshape", self, self.graph.dims(*dims), allowzero=1, dtype=self.dtype)

    def expand(self, *axes: int) -> Value:
        """New axes of length one at these places of the result."""
        return self.graph.op("Unsqueeze", self, np.array(axes, np.int64), dtype=self.dtype)

    def part(self, axis: int, start: int, stop: int | None = None, step: int = 1) -> Value:
        """``self[..., start:stop:step, ...]`` along one axis; `stop` None is the end."""
        bounds = [np.array([v], np.int64) for v in (start, _END if stop is None else stop, axis, step)]
        return self.graph.op("Slice", self, *bounds, dtype=self.dtype)

    def take(self, indices: Value | npt.NDArray[np.int64] | int, axis: int = 0) -> Value:
        """``np.take``: a plain number drops the axis."""
        return self.graph.op("Gather", self, self.graph.lift(indices, np.int64), axis=axis, dtype=self.dtype)

    def pick(self, indices: Value) -> Value:
        """``np.take_along_axis`` of a matrix along its rows."""
        return self.graph.op("GatherElements", self, indices, axis=1, dtype=self.dtype)

    def rows(self) -> Value:
        """Indices of the true ones of a line of booleans: int64, shape (M,)."""
        return self.graph.op(
            "Squeeze", self.graph.op("NonZero", self, dtype=np.int64), np.array([0], np.int64), dtype=np.int64
        )

    def put(self, rows: Value, values: Value) -> Value:
        """A copy with ``copy[rows] = values``."""
        return self.graph.op("ScatterND", self, rows.expand(1), values, dtype=self.dtype)

    def running(self) -> Value:
        """Running sum along the rows of a matrix."""
        return self.graph.op("CumSum", self, np.array(1, np.int64), dtype=self.dtype)

    def smallest(self, count: Value, *, order: bool = True) -> Value:
        """The smallest `count` of each row of a matrix without NaN, ascending if `order`."""
        return self._top(count, largest=0, sorted=int(order))[0]

    def largest(self, count: Value | int) -> tuple[Value, Value]:
        """The largest `count` of each row, descending, and their places; the first of equals comes first."""
        return self._top(count if isinstance(count, Value) else self.graph.lift([count], np.int64), largest=1)

    def _top(self, count: Value, **attributes: int) -> tuple[Value, Value]:
        # onnxruntime before 1.31 divides by the number of rows: one more makes none of them safe.
        more = self.graph.op("Pad", self, np.array([0, 0, 1, 0], np.int64), np.zeros((), self.dtype))
        found = self.graph.ops("TopK", more, count, outputs=(self.dtype, np.int64), axis=1, **attributes)
        values, places = (one.part(0, 0, -1) for one in found)
        return values, places


class Graph:
    """Nodes and constants in the order in which they were made."""

    def __init__(self) -> None:
        self._onnx = onnx_package()
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], tuple[Value, onnx.TensorProto]] = {}

    @property
    def constants(self) -> list[onnx.TensorProto]:
        """The constants as initializers."""
        return [tensor for _, tensor in self._constants.values()]

    def input(self, name: str, dtype: npt.DTypeLike, shape: list[str | int]) -> Value:
        """Declare an input."""
        self.inputs.append(self._info(name, dtype, shape))
        return Value(self, name, dtype)

    def output(self, name: str, value: Value, shape: list[str | int]) -> None:
        """Declare an output."""
        self.nodes.append(self._onnx.helper.make_node("Identity", [value.name], [name]))
        self.outputs.append(self._info(name, value.dtype, shape))

    def _info(self, name: str, dtype: npt.DTypeLike, shape: list[str | int]) -> onnx.ValueInfoProto:
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        info: onnx.ValueInfoProto = helper.make_tensor_value_info(name, kind, shape)
        return info

    def lift(self, value: Any, dtype: npt.DTypeLike) -> Value:
        """A constant of that type; a `Value` is handed back as it is."""
        if isinstance(value, Value):
            return value
        array = np.asarray(value, np.dtype(dtype))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            tensor = self._onnx.numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), name
            )
            self._constants[key] = Value(self, name, array.dtype), tensor
        return self._constants[key][0]

    def op(self, kind: str, *inputs: Any, dtype: npt.DTypeLike | None = None, **attributes: Any) -> Value:
        """Append a node with one output, by default of the type of its first input."""
        kept = inputs[0].dtype if dtype is None else dtype
        return self.ops(kind, *inputs, outputs=(kept,), **attributes)[0]

    def ops(
        self, kind: str, *inputs: Any, outputs: tuple[npt.DTypeLike, ...], **attributes: Any
    ) -> list[Value]:
        """Append a node with several outputs, given by their types; arrays become constants."""
        names = [(v if isinstance(v, Value) else self.lift(v, np.asarray(v).dtype)).name for v in inputs]
        made = [Value(self, f"{kind}_{len(self.nodes)}_{i}", dtype) for i, dtype in enumerate(outputs)]
        self.nodes.append(self._onnx.helper.make_node(kind, names, [v.name for v in made], **attributes))
        return made

    def join(self, *parts: Value, axis: int) -> Value:
        """``np.concatenate``."""
        return self.op("Concat", *parts, axis=axis)

    def dims(self, *dims: Value | int) -> Value:
        """A shape of numbers and values of shape (1,)."""
        if all(isinstance(dim, int) for dim in dims):
            return self.lift(list(dims), np.int64)
        return self.join(*(self.lift([d] if isinstance(d, int) else d, np.int64) for d in dims), axis=0)

    def full(self, value: float, *dims: Value | int, dtype: npt.DTypeLike = np.float32) -> Value:
        """``np.full``."""
        return self.op("Expand", self.lift(value, dtype), self.dims(*dims))

    def range(self, stop: Value, dtype: npt.DTypeLike = np.int64) -> Value:
        """``np.arange(stop)`` of a length of shape (1,)."""
        none = np.array([0], np.int64)
        counted = self.op("Range", np.array(0), self.op("Squeeze", stop, none), np.array(1), dtype=np.int64)
        return counted if np.dtype(dtype) == np.int64 else counted.cast(dtype)
