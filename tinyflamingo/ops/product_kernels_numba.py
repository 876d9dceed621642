"""Convolution (§2) and masked cross-attention by segments (§4) as Numba loops: many small matrix products.

For BLAS they are too small and of too many sizes. They read their operands in place. Most are sums of rows, in tiles of
a few rows times sixteen adjacent numbers (``_tile``): a tile stays in vector registers until its sums are complete, and
each number that is loaded serves all its rows. Numba has no vectors, so its compiler LLVM gets the tile as code for
vectors; the same in Python is beside it. The code is the same for every width, so it is compiled once.

The scores of attention are sums along a row. The length of the row is the length of a tuple of None (``units``): the
compiler knows the length of a tuple but not of an array, and to start a short loop of unknown length takes as long as
the loop itself. One kernel is compiled for every length up to ``LONGEST``.

A kernel and its helpers are in one file, scalars have the dtype of the arrays, and a loop over part of a row counts
from 0: ``kernels_numba.py`` says why. Not here: large products, which BLAS computes.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import jit, kernels_numpy
from .jit import EXACT, SUMS, helper, kernel

ROWS = 8 if jit.has_512_bits() else 4  # of a tile: with 16 registers of 256 bits, eight rows would not fit
HALF = ROWS // 2
WIDE = 256  # channels; BLAS computes wider convolutions (it is faster from some 64 pixels on)
LONGEST = 256  # of a tuple: in longer rows a known length gains nothing, and compilation takes longer
ZERO, ONE = np.int64(0), np.int64(1)  # for `_add_product`: Numba would compile it again for every 0 and 1 in a call
PIECE = 64  # tokens of a run that are computed together: what one product leaves in L1 or L2, the next reads


# ---------------------------------------------------------------- sums of rows, in registers


def _in_registers(python):
    """Compiled kernels get code for vectors in place of a function that is `_tile`."""
    if numba.config.DISABLE_JIT:
        return python

    @intrinsic(prefer_literal=True)
    def compiled(types_, p, at, row, column, block, x, x_at, x_block, out, out_at, pitch, blocks, columns, rows, lanes):
        if not all(isinstance(array.dtype, types.Float) for array in (p, x, out)):
            raise numba.TypingError("a tile has floats")
        sizes = (pitch, blocks, columns, rows, lanes)
        return types.void(p, at, row, column, block, x, x_at, x_block, out, out_at, *sizes), _tile_code

    compiled.py_func = python
    return compiled


@_in_registers
def _tile(p, at, row, column, block, x, x_at, x_block, out, out_at, pitch, blocks, columns, rows, lanes):
    """out[i, lane] += sum over b < blocks, j < columns of p[b, i, j] x[b, j, lane], for i < rows and lane < lanes.

    All arrays are flat. p[b, i, j] is at ``at + b block + i row + j column``, x[b, j, 0] at
    ``x_at + b x_block + j pitch``, out[i, 0] at ``out_at + i pitch``.
    """
    for b, j, i in np.ndindex(blocks, columns, rows):
        right, place = x_at + b * x_block + j * pitch, out_at + i * pitch
        out[place : place + lanes] += p[at + b * block + i * row + j * column] * x[right : right + lanes]


def _tile_code(context, builder, signature, args):
    """`_tile` for LLVM: two loops, and in them one vector of x for all rows. rows and lanes are constants.

    The sums have the dtype of out; p and x may have another one.
    """
    kinds = signature.args
    rows, lanes, sum_type = kinds[13].literal_value, kinds[14].literal_value, kinds[8].dtype
    vector = ir.VectorType(context.get_data_type(sum_type), lanes)
    p, x, out = (context.make_array(kinds[i])(context, builder, args[i]).data for i in (0, 5, 8))
    whole = {i: context.cast(builder, args[i], kinds[i], types.intp) for i in range(13) if i not in (0, 5, 8)}
    at, row, column, block, x_at, x_block, out_at, pitch, blocks, columns = whole.values()

    def moved(pointer, *steps):
        for count, length in steps:
            pointer = builder.gep(pointer, [builder.mul(count, length)])
        return pointer

    def as_vector(pointer):
        return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, lanes).as_pointer())

    def as_sum(number, dtype, llvm_type):
        if dtype == sum_type:
            return number
        return (builder.fpext if dtype.bitwidth < sum_type.bitwidth else builder.fptrunc)(number, llvm_type)

    numbers = [ir.Constant(at.type, i) for i in range(rows)]
    left, right, out = builder.gep(p, [at]), builder.gep(x, [x_at]), builder.gep(out, [out_at])
    places = [as_vector(moved(out, (i, pitch))) for i in numbers]
    of_x, of_out = (kinds[i].dtype.bitwidth // 8 for i in (5, 8))  # bytes
    sums = [cgutils.alloca_once_value(builder, builder.load(place, align=of_out)) for place in places]
    undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    with cgutils.for_range(builder, blocks) as b, cgutils.for_range(builder, columns) as j:
        numbers_of_x = builder.load(as_vector(moved(right, (b.index, x_block), (j.index, pitch))), align=of_x)
        numbers_of_x = as_sum(numbers_of_x, kinds[5].dtype, vector)
        for i, total in zip(numbers, sums, strict=True):
            number = builder.load(moved(left, (b.index, block), (j.index, column), (i, row)))
            number = as_sum(number, kinds[0].dtype, vector.element)
            number = builder.insert_element(undefined, number, first)
            number = builder.shuffle_vector(number, undefined, everywhere)
            product = builder.fmul(number, numbers_of_x, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
    for place, total in zip(places, sums, strict=True):
        builder.store(builder.load(total), place, align=of_out)
    return context.get_dummy_value()


@kernel(EXACT)
def _add_product(p, at, row, column, block, x, x_at, x_block, out, out_at, pitch, blocks, rows, columns, width):
    """`_tile` for any number of rows and any width."""
    many, most = rows - rows % ROWS, rows - rows % HALF
    for lane in range(0, width - 15, 16):
        m, o = x_at + lane, out_at + lane
        for i in range(0, many, ROWS):
            a, to = at + i * row, o + i * pitch
            _tile(p, a, row, column, block, x, m, x_block, out, to, pitch, blocks, columns, ROWS, 16)
        for i in range(many, most, HALF):
            a, to = at + i * row, o + i * pitch
            _tile(p, a, row, column, block, x, m, x_block, out, to, pitch, blocks, columns, HALF, 16)
        for i in range(most, rows):
            a, to = at + i * row, o + i * pitch
            _tile(p, a, row, column, block, x, m, x_block, out, to, pitch, blocks, columns, 1, 16)
    for lane in range(width - width % 16, width - 7, 8):
        m, o = x_at + lane, out_at + lane
        for i in range(0, many, ROWS):
            a, to = at + i * row, o + i * pitch
            _tile(p, a, row, column, block, x, m, x_block, out, to, pitch, blocks, columns, ROWS, 8)
        for i in range(many, rows):
            a, to = at + i * row, o + i * pitch
            _tile(p, a, row, column, block, x, m, x_block, out, to, pitch, blocks, columns, 1, 8)
    for lane in range(width - width % 8, width):
        for i in range(rows):
            a, to = at + i * row, out_at + lane + i * pitch
            _tile(p, a, row, column, block, x, x_at + lane, x_block, out, to, pitch, blocks, columns, 1, 1)


# ---------------------------------------------------------------- convolution, channels last


def convolve(x, w, b, stride, top, left, out):
    """Forward of ``conv2d``: x (B, Y, X, C), w (kh, kw, C, N), b (N,) fill out (B, Yo, Xo, N).

    The inputs of an output pixel are kh runs of kw C adjacent numbers, and so are their weights. 2 B Yo Xo kh kw C N
    flops; 1r of x and 1w of out, windows and weights are read from L1 and L2. Allocates one padded picture, or none for
    a 1x1 kernel; no columns. top, left: zeros before a picture. N above WIDE: see ``kernels_numpy.py``.
    """
    kh, kw, C, N = w.shape
    if N > WIDE:
        return kernels_numpy.convolve(x, w, b, stride, top, left, out)
    x, out = _lines(w.shape, stride, x, out)
    pictures = _pictures(x, out, kh, kw, stride, top, left)
    line = np.tile(b, out.shape[2])
    _convolve(*pictures, w.reshape(-1), line, stride, C, kh, kw * C, N, out.reshape(*out.shape[:2], len(line)))


def weight_gradients(g, x, stride, top, left, dw, db):
    """Gradients of ``conv2d`` for weights and bias, from g (B, Yo, Xo, N), added to dw and db.

    2 B Yo Xo kh kw C N flops; 1r of g and x, dw stays in L2. Allocates the same as `convolve`.
    """
    kh, kw, C, N = dw.shape
    if N > WIDE:
        return kernels_numpy.weight_gradients(g, x, stride, top, left, dw, db)
    x, g = _lines(dw.shape, stride, x, g)
    pictures = _pictures(x, g, kh, kw, stride, top, left)
    line = np.zeros(g.shape[2] * N, g.dtype)
    _correlate(*pictures, g.reshape(len(g), g.shape[1] * len(line)), line, stride, C, kw * C, N, dw.reshape(kh, -1))
    db += line.reshape(-1, N).sum(axis=0)


def _lines(w_shape, stride, *pictures):
    """For a 1x1 kernel a picture is one long line, which is cut into more tiles of full size."""
    one_line = w_shape[:2] == (1, 1) and stride == 1
    return [x.reshape(len(x), 1, x.shape[1] * x.shape[2], x.shape[3]) if one_line else x for x in pictures]


def _pictures(x, out, kh, kw, stride, top, left):
    """The pictures of x, each as one row, and their lines' length; zeros for one padded picture (none if no window
    leaves a picture), its lines' length, and the place in it where a picture begins.
    """
    (B, Y, X, C), (_, Yo, Xo, _) = x.shape, out.shape
    height, width = max((Yo - 1) * stride + kh, Y + top), max((Xo - 1) * stride + kw, X + left)
    padded = np.zeros(height * width * C if (height, width) != (Y, X) else 0, x.dtype)
    return x.reshape(B, Y * X * C), X * C, padded, width * C, (top * width + left) * C


@helper(EXACT)
def _copy(picture, length, padded, pitch, start):
    """Copy the lines of a picture into a padded one."""
    for y in range(len(picture) // length):
        line, place = picture[y * length : (y + 1) * length], padded[start + y * pitch : start + y * pitch + length]
        for i in range(length):
            place[i] = line[i]


@kernel(SUMS)
def _convolve(x, length, padded, pitch, start, w, line, stride, C, kh, run, N, out):
    """One row of pixels after another: the coefficients are inputs, the rows are weights. line: a row of biases."""
    for i in range(len(x)):
        picture = x[i]
        if len(padded):
            _copy(picture, length, padded, pitch, start)
            picture = padded
        for y in range(out.shape[1]):
            row, at = out[i, y], y * stride * pitch
            for j in range(len(row)):
                row[j] = line[j]
            _add_product(picture, at, stride * C, ONE, pitch, w, ZERO, run * N, row, ZERO, N, kh, len(row) // N, run, N)


@kernel(SUMS)
def _correlate(x, length, padded, pitch, start, g, line, stride, C, run, N, dw):
    """One row of the kernel after another: the coefficients are inputs, transposed, and the rows are gradients.

    line: receives the sum over the rows of pixels.
    """
    width = len(line)
    for i in range(len(x)):
        picture, rows = x[i], g[i]
        if len(padded):
            _copy(picture, length, padded, pitch, start)
            picture = padded
        for y in range(len(rows) // width):
            row = rows[y * width : (y + 1) * width]
            for j in range(width):
                line[j] += row[j]
        lines, pixels, step = len(rows) // width, width // N, stride * pitch
        for dy in range(len(dw)):
            at, to = dy * pitch, dw[dy]
            _add_product(picture, at, ONE, stride * C, step, rows, ZERO, width, to, ZERO, N, lines, run, pixels, N)


@kernel(SUMS)
def columns_back(columns, stride, C, lines):
    """Add every window of columns (n, Yo, Xo, kh, kw C) to its pixels in lines (n, Y, X C): 1r of the columns."""
    n, Yo, Xo, kh, run = columns.shape
    for b in range(n):
        for y in range(Yo):
            for x in range(Xo):
                for dy in range(kh):
                    for i in range(run):
                        lines[b, y * stride + dy, np.uint64(x * stride * C + i)] += columns[b, y, x, dy, i]


# ---------------------------------------------------------------- cross-attention by segments
#
# Tokens (T, H, K) and latents (M, H, K) are those of the whole batch. A row of ``runs`` is (begin, end, low, high): the
# tokens from ``begin`` to ``end`` attend to the latents from ``low`` to ``high``. The probabilities of all runs,
# each (tokens, H, latents), are in one flat array.


def segment_forward(q, k, v, runs, scale, out):
    """Add ``segment_attention`` to `out`; returns the probabilities.

    NumPy's exp is vectorised, ``math.exp`` in a Numba loop is not. So: a kernel, NumPy's exp, a kernel.
    """
    pairs = (runs[:, 1] - runs[:, 0]) @ (runs[:, 3] - runs[:, 2])
    p = np.empty(pairs * q.shape[1], q.dtype)
    units = _units(*q.shape[1:])
    _scores(q, k, runs, scale, units, p)
    np.exp(p, out=p)
    _normalise(p, runs, q.shape[1])
    _mix(p, v.reshape(-1), runs, *q.shape[1:], out.reshape(-1))
    return p


def _units(H, K):
    """An object of length K: a tuple, or an array if a head is too long for a tuple."""
    return (None,) * K if H * K <= LONGEST else np.empty(K, np.bool_)


def segment_backward(g, q, k, v, p, runs, scale, dq, dk, dv):
    """Add the gradients of ``segment_attention`` to dq, dk and dv. p: the result of `segment_forward`."""
    units = _units(*q.shape[1:])
    ds = np.empty_like(p)
    _score_gradients(g, v, p, runs, scale, units, ds)
    flat = [x.reshape(-1) for x in (g, q, k)]
    _add_gradients(*flat, p, ds, runs, *q.shape[1:], *(x.reshape(-1) for x in (dq, dk, dv)))


@helper(SUMS)
def _rows_with_rows(x, y, h, units, out):
    """out[t, h, s] = x[t, h] . y[s, h], four s at a time, so that x is read from L1 once for all four. out is flat."""
    zero, S = x.dtype.type(0), len(y)
    whole = S - S % 4
    for t in range(len(x)):
        place = (t * x.shape[1] + h) * S
        row, products = x[t, h], out[place : place + S]
        for s in range(0, whole, 4):
            y0, y1, y2, y3 = y[s, h], y[s + 1, h], y[s + 2, h], y[s + 3, h]
            a = b = c = d = zero
            for i in range(len(units)):
                a += row[i] * y0[i]
                b += row[i] * y1[i]
                c += row[i] * y2[i]
                d += row[i] * y3[i]
            products[s], products[s + 1], products[s + 2], products[s + 3] = a, b, c, d
        for s in range(whole, S):
            last, a = y[s, h], zero
            for i in range(len(units)):
                a += row[i] * last[i]
            products[s] = a


@kernel(SUMS)
def _scores(q, k, runs, scale, units, p):
    """Scores of each token and its visible latents, minus the maximum of the token; 2 H K flops per pair."""
    H, at = q.shape[1], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            last = min(first + PIECE, end)
            for h in range(H):
                _rows_with_rows(q[first:last], k[low:high], h, units, p[at:])
            for _ in range((last - first) * H):
                row = p[at : at + S]
                top = row[0]
                for s in range(S):
                    top = row[s] if row[s] > top else top
                for s in range(S):
                    row[s] = (row[s] - top) * scale
                at += S


@kernel(SUMS)
def _normalise(p, runs, H):
    """p / sum p in place. A separate pass, because numbers that were just stored are slow to load one by one."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for _ in range((end - begin) * H):
            row = p[at : at + S]
            total = row[0] - row[0]
            for s in range(S):
                total += row[s]
            for s in range(S):
                row[s] /= total
            at += S


@kernel(SUMS)
def _mix(p, v, runs, H, K, out):
    """The mean of the values with weights p, for every token; 2 H K flops per pair. Flat arrays."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            tokens = min(PIECE, end - first)
            for h in range(H):
                latent, query = (low * H + h) * K, (first * H + h) * K
                _add_product(p, at + h * S, H * S, ONE, ZERO, v, latent, ZERO, out, query, H * K, ONE, tokens, S, K)
            at += tokens * H * S


@kernel(SUMS)
def _score_gradients(g, v, p, runs, scale, units, ds):
    """ds = p (dp - sum p dp) scale, with dp = g . v; 2 H K flops per pair."""
    H, at = g.shape[1], 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            last = min(first + PIECE, end)
            for h in range(H):
                _rows_with_rows(g[first:last], v[low:high], h, units, ds[at:])
            for _ in range((last - first) * H):
                row, drow = p[at : at + S], ds[at : at + S]
                mean = scale - scale
                for s in range(S):
                    mean += row[s] * drow[s]
                for s in range(S):
                    drow[s] = row[s] * (drow[s] - mean) * scale
                at += S


@kernel(SUMS)
def _add_gradients(g, q, k, p, ds, runs, H, K, dq, dk, dv):
    """dq += ds k, dk += ds^T q, dv += p^T g; 6 H K flops per pair. Flat arrays. Media without a token are not read."""
    at = 0
    for i in range(len(runs)):
        begin, end, low, high = runs[i]
        S = high - low
        for first in range(begin, end, PIECE):
            tokens = min(PIECE, end - first)
            for h in range(H):
                latent, query, place, wide = (low * H + h) * K, (first * H + h) * K, at + h * S, H * S
                _add_product(ds, place, wide, ONE, ZERO, k, latent, ZERO, dq, query, H * K, ONE, tokens, S, K)
                _add_product(ds, place, ONE, wide, ZERO, q, query, ZERO, dk, latent, H * K, ONE, S, tokens, K)
                _add_product(p, place, ONE, wide, ZERO, g, query, ZERO, dv, latent, H * K, ONE, S, tokens, K)
            at += tokens * H * S
