"""Products of matrices in LLVM's own language, for tiles that fit a processor's registers.

C <- alpha op(A) op(B) + beta C with beta 0 or 1, called as ``cblas_dgemm`` is: row-major, integers of 64 bits.

C is made in tiles of so many rows and vectors that its numbers stay in registers: for each index of the sum a row of B
is loaded and multiplied by one number of each row of A (Goto and van de Geijn, Anatomy of high-performance matrix
multiplication, 2008; without their packing, which matrices of a network of usual size do not repay). A transposed B is
turned over, a panel of columns at a time, on the stack.

Every number of C is a sum in one order, with FMA, in chunks of CHUNK terms, whatever tile it lies in: its bits do not
depend on how the product is cut, nor on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from .calling import TRANSPOSED
from .tiles import Tiles

CHUNK = 256  # terms of a sum: of so many rows of B a panel lies in the nearest cache
BLOCK = 512  # rows of A, of which a chunk lies in the second one
_WORD, _ENUM, _ADDRESS = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


def product_code(dtype: str, tiles: Tiles) -> str:
    """The module, as text, with one function that can be called: ``@kernel``, of the signature of cblas."""
    return str(_Writer(dtype, tiles).module)


def _words(*values: int) -> Any:
    """int64, or several of them in a vector."""
    return ir.Constant(_WORD, values[0]) if len(values) == 1 else ir.Constant(ir.VectorType(_WORD, len(values)), values)


@contextmanager
def _loop(b: ir.IRBuilder, end: Any, step: Any) -> Iterator[Any]:
    """For i = 0, step, 2 step, ... below ``end``: yields i."""
    before, (head, body, after) = b.block, [b.append_basic_block() for _ in range(3)]
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(_WORD)
    i.add_incoming(_words(0), before)
    b.cbranch(b.icmp_signed("<", i, end), body, after)
    b.position_at_end(body)
    yield i
    i.add_incoming(b.add(i, step), b.block)
    b.branch(head)
    b.position_at_end(after)


def _least(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed("<", x, y), x, y)


class _Writer:
    """Writes one module. Sizes and distances in its functions are in bytes where they are called strides."""

    def __init__(self, dtype: str, tiles: Tiles) -> None:
        self.real = ir.FloatType() if dtype == "float32" else ir.DoubleType()
        self.size = 4 if dtype == "float32" else 8
        self.lanes, self.rows, self.vectors = tiles.vector // self.size, tiles.rows, tiles.vectors
        self.vector, self.step = ir.VectorType(self.real, self.lanes), tiles.vector
        self.pitch = self.vectors * self.step  # of a panel that was turned over
        self.module = ir.Module("products")
        at, flags = self.vector.as_pointer(), ir.VectorType(ir.IntType(1), self.lanes)
        name = f"v{self.lanes}f{8 * self.size}"
        self._fma = self._declared(f"llvm.fma.{name}", self.vector, [self.vector] * 3)
        self._load = self._declared(f"llvm.masked.load.{name}.p0", self.vector, [at, _ENUM, flags, self.vector])
        self._store = self._declared(f"llvm.masked.store.{name}.p0", ir.VoidType(), [self.vector, at, _ENUM, flags])
        heights = [self.rows >> i for i in range(self.rows.bit_length())]
        self._tiles = {(r, v): self._tile(r, v) for v in range(1, self.vectors + 1) for r in heights}
        self._turning = self._turn()
        self._product()

    def _declared(self, name: str, result: Any, arguments: list[Any]) -> Any:
        return ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def _begin(self, name: str, arguments: list[Any]) -> tuple[Any, ir.IRBuilder]:
        """A function that others here call."""
        function = self._declared(name, ir.VoidType(), arguments)
        function.linkage = "internal"
        function.attributes.add("noinline")
        return function, ir.IRBuilder(function.append_basic_block())

    # -- parts of instructions ---------------------------------------------------------------------------------------

    def _at(self, b: ir.IRBuilder, base: Any, offset: Any, kind: Any = None) -> Any:
        return b.bitcast(b.gep(base, [offset]), (kind or self.vector).as_pointer())

    def _everywhere(self, b: ir.IRBuilder, x: Any) -> Any:
        """A vector of one number."""
        kind = ir.VectorType(x.type, self.lanes)
        alone = b.insert_element(ir.Constant(kind, ir.Undefined), x, ir.Constant(_ENUM, 0))
        return b.shuffle_vector(alone, alone, ir.Constant(ir.VectorType(_ENUM, self.lanes), [0] * self.lanes))

    def _first(self, b: ir.IRBuilder, n: Any) -> Any:
        """Flags of the first n lanes."""
        return b.icmp_signed("<", _words(*range(self.lanes)), self._everywhere(b, n))

    def _read(self, b: ir.IRBuilder, at: Any, flags: Any = None) -> Any:
        """A vector; 0 in lanes without a flag, whose memory is not touched."""
        if flags is not None:
            return b.call(self._load, [at, ir.Constant(_ENUM, self.size), flags, ir.Constant(self.vector, None)])
        return b.load(at, align=self.size)

    def _write(self, b: ir.IRBuilder, x: Any, at: Any, flags: Any = None) -> None:
        if flags is not None:
            b.call(self._store, [x, at, ir.Constant(_ENUM, self.size), flags])
        else:
            b.store(x, at, align=self.size)

    # -- functions ---------------------------------------------------------------------------------------------------

    def _tile(self, rows: int, vectors: int) -> Any:
        """tile(k, A, A's strides along rows and along k, B, B's stride, alpha, beta, C, C's stride, n): one tile of C.

        n: lanes of the last vector that are columns of C.
        """
        kind = [_WORD, _ADDRESS, _WORD, _WORD, _ADDRESS, _WORD, self.real, self.real, _ADDRESS, _WORD, _WORD]
        function, b = self._begin(f"tile_{rows}_{vectors}", kind)
        k, A, along_rows, along_k, B, stride, alpha, beta, C, pitch, n = function.args
        last = [None] * (vectors - 1) + [self._first(b, n)]
        # LLVM must not see that the rows' addresses are multiples: it would make each from the one before, one after
        # the other, which takes longer than the products.
        hide = ir.InlineAsm(ir.FunctionType(_ADDRESS, [_ADDRESS]), "", "=r,0")
        bases = [b.call(hide, [b.gep(A, [b.mul(along_rows, _words(i))])]) for i in range(rows)]
        sums = self._sums(b, (k, bases, along_k, B, stride), vectors, last)
        with b.if_else(b.fcmp_ordered("==", beta, ir.Constant(self.real, 0.0))) as (fresh, added):
            for path, adds in ((fresh, False), (added, True)):
                with path:
                    scale = self._everywhere(b, alpha)
                    for i, j in ((i, j) for i in range(rows) for j in range(vectors)):
                        at = self._at(b, C, b.add(b.mul(pitch, _words(i)), _words(j * self.step)))
                        term = [sums[i][j], scale]
                        x = b.call(self._fma, [*term, self._read(b, at, last[j])]) if adds else b.fmul(*term)
                        self._write(b, x, at, last[j])
        b.ret_void()
        return function

    def _sums(self, b: ir.IRBuilder, given: tuple[Any, ...], vectors: int, last: list[Any]) -> list[list[Any]]:
        """The loop over k terms, at least one: a vector for each row of A and vector of B's row."""
        k, bases, along_k, B, stride = given
        before, body, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(body)
        b.position_at_end(body)
        p, offset, row = b.phi(_WORD), b.phi(_WORD), b.phi(_ADDRESS)
        sums = [[b.phi(self.vector) for _ in range(vectors)] for _ in bases]
        loaded = [self._read(b, self._at(b, row, _words(j * self.step)), last[j]) for j in range(vectors)]
        summed = []
        for base, mine in zip(bases, sums, strict=True):
            a = self._everywhere(b, b.load(self._at(b, base, offset, self.real)))
            summed.append([b.call(self._fma, [a, x, s]) for x, s in zip(loaded, mine, strict=True)])
        counted = b.add(p, _words(1))
        following = [(p, counted), (offset, b.add(offset, along_k)), (row, b.gep(row, [stride]))]
        following += [pair for mine, new in zip(sums, summed, strict=True) for pair in zip(mine, new, strict=True)]
        for phi, value in following:
            phi.add_incoming(B if phi is row else ir.Constant(phi.type, None), before)
            phi.add_incoming(value, body)
        b.cbranch(b.icmp_signed("<", counted, k), body, after)
        b.position_at_end(after)
        return summed

    def _turn(self) -> Any:
        """turn(k, n, B, B's stride, panel): panel[p, c] = B[c, p] for c < n, p < k, in squares of a vector's width."""
        function, b = self._begin("turn", [_WORD, _WORD, _ADDRESS, _WORD, _ADDRESS])
        k, n, B, stride, panel = function.args
        with _loop(b, n, _words(self.lanes)) as c, _loop(b, k, _words(self.lanes)) as p:
            flags, column = self._first(b, b.sub(k, p)), b.mul(p, _words(self.size))
            rows = []
            for i in range(self.lanes):  # rows after the last are the last, and go to lanes that nobody looks at
                row = _least(b, b.add(c, _words(i)), b.sub(n, _words(1)))
                rows.append(self._read(b, self._at(b, B, b.add(b.mul(row, stride), column)), flags))
            for i, x in enumerate(self._transposed(b, rows)):
                row = b.mul(b.add(p, _words(i)), _words(self.pitch))
                self._write(b, x, self._at(b, panel, b.add(row, b.mul(c, _words(self.size)))))
        b.ret_void()
        return function

    def _transposed(self, b: ir.IRBuilder, rows: list[Any]) -> list[Any]:
        """A square turned over by exchanging quarters, then the quarters of quarters, and so on."""
        rows, n, half = list(rows), self.lanes, self.lanes // 2
        while half:
            upper = [i if not i & half else n + i - half for i in range(n)]
            lower = [i + half if not i & half else n + i for i in range(n)]
            masks = [ir.Constant(ir.VectorType(_ENUM, n), which) for which in (upper, lower)]
            for i in (i for i in range(n) if not i & half):
                pair = rows[i], rows[i + half]
                rows[i], rows[i + half] = (b.shuffle_vector(*pair, mask) for mask in masks)
            half //= 2
        return rows

    def _product(self) -> None:
        """The function that is called: blocks of rows of A, chunks of the sums, panels of columns of B."""
        kind = [*[_ENUM] * 3, *[_WORD] * 3, self.real, _ADDRESS, _WORD, _ADDRESS, _WORD, self.real, _ADDRESS, _WORD]
        function = self._declared("kernel", ir.VoidType(), kind)
        _, a_turned, b_turned, n, m, k, alpha, A, lda, B, ldb, beta, C, ldc = function.args
        b = ir.IRBuilder(function.append_basic_block())
        panel = b.bitcast(b.alloca(ir.ArrayType(self.vector, CHUNK * self.vectors)), _ADDRESS)
        one, wide = _words(self.size), _words(self.vectors * self.lanes)
        lda, ldb, ldc = (b.mul(ld, one) for ld in (lda, ldb, ldc))
        turned = ir.Constant(_ENUM, TRANSPOSED)
        a_turned, b_turned = b.icmp_signed("==", a_turned, turned), b.icmp_signed("==", b_turned, turned)
        a_rows, a_terms = b.select(a_turned, one, lda), b.select(a_turned, lda, one)
        b_columns, b_terms = b.select(b_turned, ldb, one), b.select(b_turned, one, ldb)
        stride = b.select(b_turned, _words(self.pitch), ldb)
        with _loop(b, n, _words(BLOCK)) as i, _loop(b, k, _words(CHUNK)) as p, _loop(b, m, wide) as j:
            rows, terms, columns = (
                _least(b, b.sub(end, start), most)
                for end, start, most in ((n, i, _words(BLOCK)), (k, p, _words(CHUNK)), (m, j, wide))
            )
            source = b.gep(B, [b.add(b.mul(j, b_columns), b.mul(p, b_terms))])
            with b.if_then(b_turned):
                b.call(self._turning, [terms, columns, source, ldb, panel])
            left = b.gep(A, [b.add(b.mul(i, a_rows), b.mul(p, a_terms))]), a_rows, a_terms
            right = b.select(b_turned, panel, source), stride
            beta_now = b.select(b.icmp_signed("==", p, _words(0)), beta, ir.Constant(self.real, 1.0))
            result = b.gep(C, [b.add(b.mul(i, ldc), b.mul(j, one))]), ldc
            self._panel(b, rows, terms, columns, left, (*right, alpha, beta_now), result)
        b.ret_void()

    def _panel(
        self, b: ir.IRBuilder, rows: Any, k: Any, columns: Any, left: Any, right_and_scales: Any, result: Any
    ) -> None:
        """All tiles of a panel of C: those of most rows, and then, by the bits of what is left, those of fewer."""
        (A, a_rows, a_terms), (C, pitch), lanes = left, result, _words(self.lanes)
        vectors = b.sdiv(b.add(columns, _words(self.lanes - 1)), lanes)
        last = b.sub(columns, b.mul(b.sub(vectors, _words(1)), lanes))

        def tile(height: int, width: int, row: Any) -> None:
            a, c = b.gep(A, [b.mul(row, a_rows)]), b.gep(C, [b.mul(row, pitch)])
            b.call(self._tiles[height, width], [k, a, a_rows, a_terms, *right_and_scales, c, pitch, last])

        for width in range(1, self.vectors + 1):
            with b.if_then(b.icmp_signed("==", vectors, _words(width))):
                whole = b.and_(rows, _words(-self.rows))
                with _loop(b, whole, _words(self.rows)) as row:
                    tile(self.rows, width, row)
                for height in (self.rows >> i for i in range(1, self.rows.bit_length())):
                    with b.if_then(b.icmp_signed("!=", b.and_(rows, _words(height)), _words(0))):
                        tile(height, width, b.and_(rows, _words(-2 * height)))
