# %% [markdown]
# # Reverse mode in one screen
#
# *minutes: 115 · tools · key: autograd*
#
# Everything in this project is trained by gradients, and every gradient comes from one idea that fits on one
# screen: write down what you computed, then walk back through it. The rest of the notebooks lean on it, so here
# it is from the ground up.
#
# **You will build** a working reverse mode for scalars and draw its graph; gradients by hand for a matrix product
# and a softmax; a check that can tell a right gradient from a wrong one; a Numba kernel beside its plain twin.
#
# **You will not build** a fast or complete library: `autograd` does that work in the project, and how it does it
# is what you build here.
#
# You need Python, NumPy, and the chain rule.

# %%
import sys

sys.path.insert(0, "..")  # the package lies beside this folder

import itertools
import math

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from autograd import make_vjp
from autograd.extend import defvjp, primitive

from tinyflamingo import ops
from tinyflamingo.classroom import show
from tinyflamingo.ops import fast, reference

plt.rcParams.update({"figure.dpi": 80, "font.size": 9, "figure.constrained_layout.use": True})
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
rng = np.random.default_rng(1)

# %% [markdown]
# ## The screen
#
# A `Box` holds a number, and for every box that it was made of a pair: that box, and the slope. Three
# operations make boxes from boxes. A box also gets a running number when it is made, so a box always has a larger
# number than its parts. `backward` starts at the end with slope 1, goes from the newest box to the oldest, and hands
# every box's slope on to those it was made of. That is all.


# %%
class Box:
    """A number that remembers what it was made of: [(box, slope), ...]."""

    made = itertools.count()  # 0, 1, 2, ...: every box takes the next number

    def __init__(self, value, made_of=(), name=""):
        self.value, self.made_of, self.name = value, made_of, name
        self.number = next(self.made)

    def __add__(self, other):
        return Box(self.value + other.value, [(self, 1.0), (other, 1.0)], "+")

    def __mul__(self, other):
        return Box(self.value * other.value, [(self, other.value), (other, self.value)], "×")


def tanh(x):
    t = math.tanh(x.value)
    return Box(t, [(x, 1 - t * t)], "tanh")


def in_order(end):
    """All boxes behind `end`, the oldest first."""
    behind, waiting = set(), [end]
    while waiting:
        box = waiting.pop()
        behind.add(box)
        waiting += [part for part, _ in box.made_of]
    return sorted(behind, key=lambda box: box.number)


def backward(end):
    """{box: d end / d box}."""
    slopes = {box: 0.0 for box in in_order(end)}
    slopes[end] = 1.0
    for box in reversed(in_order(end)):
        for part, slope in box.made_of:
            slopes[part] += slopes[box] * slope
    return slopes


x, y = Box(0.5, name="x"), Box(-1.2, name="y")
product = x * y
end = tanh(product) + product * x
slopes = backward(end)
print(f"tanh(x y) + (x y) x = {end.value:.4f}   d/dx = {slopes[x]:.4f}   d/dy = {slopes[y]:.4f}")

# %% [markdown]
# Here is what it wrote down on the way, and what it found on the way back.


# %%
def draw(axis, end, slopes, places):
    """The graph: a circle a box with its value, and its slope below; arrows carry the local slopes."""
    for box in in_order(end):
        for part, slope in box.made_of:
            (x0, y0), (x1, y1) = places[part], places[box]
            style = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 16, "shrinkB": 16}
            axis.annotate("", (x1, y1), (x0, y0), arrowprops=style)
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            axis.text(*middle, f"{slope:.2f}", color="#B06000", ha="center", va="center", bbox=paper)
        x, y = places[box]
        axis.scatter(x, y, s=900, color="white", edgecolor=BLUE, zorder=3)
        axis.text(x, y, f"{box.name}\n{box.value:.2f}", ha="center", va="center", fontsize=8, zorder=4)
        axis.text(x, y - 0.4, f"{slopes[box]:.2f}", ha="center", va="top", color=GREEN, weight="bold")
    axis.set(xlim=(-0.4, 4.4), ylim=(-0.8, 1.9))
    axis.set_axis_off()


bent, times = (part for part, _ in end.made_of)
places = {x: (0, 1.5), y: (0, 0), product: (1.2, 0.6), bent: (2.7, 0), times: (2.7, 1.5), end: (4, 0.75)}
figure, axis = plt.subplots(figsize=(7, 3))
draw(axis, end, slopes, places)
plt.show()

# %% [markdown]
# *Figure: the graph of tanh(x y) + (x y) x. From left to right: the inputs x and y; their product; its tanh below and
# its product with x above; their sum at the right. Values stand in the circles, local slopes in orange on the
# arrows, the slope of the end with respect to each circle in green below it.*
#
# Follow the green numbers from right to left. A green number is the sum, over the arrows that leave its circle, of
# the orange number on the arrow times the green number at its head. The product has two arrows leaving; so has
# `x`. That sum is the `+=` in `backward`, and forgetting it is the classic mistake.
#
# **Predict.** Does it matter in which order `backward` goes through the boxes? Suppose it went from the end to the
# tanh, and at once on to everything behind it, before it had come along the other way to the product. What would
# the product hand on to `x` and `y`?

# %% [markdown]
# ## Break it: the order
#
# Here each box hands its slope on as soon as it gets some, and again when it gets more, as a first attempt often does.
# The truth is known: at `a = 3`, `e = b (b + a)` with `b = a a` is `a⁴ + a³`, with slope `4 a³ + 3 a²`.


# %%
def backward_in_haste(end):
    """Wrong: a box hands on all that it has got so far, each time that it gets some."""
    slopes = {box: 0.0 for box in in_order(end)}

    def hand_on(box, slope):
        slopes[box] += slope
        for part, local in box.made_of:
            hand_on(part, slopes[box] * local)

    hand_on(end, 1.0)
    return slopes


a = Box(3.0, name="a")
b = a * a
e = b * (b + a)
print("true slope:            ", 4 * 3.0**3 + 3 * 3.0**2)
print("in order:              ", backward(e)[a])
print("in haste:              ", backward_in_haste(e)[a])

# %% [markdown]
# A box may hand its slope on only when it has all of it, that is, after everything that was made of it. Such an
# order is called topological. Our boxes have it from their running numbers. Without such numbers it must be found from
# the graph alone, and that is your first exercise.

# %% [markdown]
# ### Exercise 01.1 · The order of the way back
# *difficulty: medium · minutes: 12*
#
# The graph is given as a dictionary: what each name was made of. Return the names behind `end`, and `end` itself, in an
# order in which `backward` may go through them: `end` first, and every name before all that it was made of. Each
# name once; names that `end` does not need stay out.


# %% exercise 01.1
def way_back(made_of, end):
    """made_of {"e": ["b", "c"], "b": ["a", "a"], ...}; what is not a key was given -> list of names."""
    # solution
    found = []

    def visit(name):
        if name not in found:
            for part in made_of.get(name, ()):
                visit(part)
            found.append(name)

    visit(end)
    return found[::-1]
    # end of solution


# %% check 01.1
from tinyflamingo.checks import check_01_1_way_back

check_01_1_way_back(way_back)

# %% [markdown]
# ## From numbers to arrays: vector times Jacobian
#
# With arrays, a slope becomes a Jacobian, and those are large. Take `y = x w` with `x` of `(T, D)` and `w` of `(D,
# E)`: the Jacobian of `y` by `w` has `T E · D E` entries. Nobody ever writes it down. What comes back from the loss is
# `g`, of the shape of `y`, and all that is wanted is `g` times the Jacobian, of the shape of `w`. That product is
# the **vjp**, and for most operations it is as cheap as the operation.
#
# With loops: entry `(t, e)` of `y` is a sum over `d`, so each `g[t, e]` goes to every `x[t, d]` and `w[d, e]` in it.


# %%
def linear_vjp_by_hand(g, x, w):
    """g (T, E), x (T, D), w (D, E) -> (dx, dw)."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(x.shape[0]):
        for e in range(w.shape[1]):
            for d in range(x.shape[1]):
                dx[t, d] += g[t, e] * w[d, e]
                dw[d, e] += g[t, e] * x[t, d]
    return dx, dw


T, D, E = 4, 3, 5
x, w, g = rng.standard_normal((T, D)), rng.standard_normal((D, E)), rng.standard_normal((T, E))
print("x (T, D) =", x.shape, " w (D, E) =", w.shape, " y (T, E) =", (x @ w).shape)
print("entries of the Jacobian of y by w:", T * E * D * E, "  of its vjp:", w.size)

# %% [markdown]
# ### Exercise 01.2 · The vjp of a matrix product
# *difficulty: easy · minutes: 6*
#
# The same without loops. The shapes nearly write it for you: there is one way to make `(T, D)` of `(T, E)` and
# `(D, E)`.


# %% exercise 01.2
def linear_vjp(g, x, w):
    """g (T, E), x (T, D), w (D, E) -> (dx (T, D), dw (D, E))."""
    # solution
    return g @ w.T, x.T @ g
    # end of solution


# %% check 01.2
from tinyflamingo.checks import check_01_2_linear_vjp

check_01_2_linear_vjp(linear_vjp)

# %% [markdown]
# Autograd says what the loops say:

# %%
dx, dw = linear_vjp_by_hand(g, x, w)
for place, mine in enumerate((dx, dw)):
    pull, _ = make_vjp(reference.linear, place)(x, w)
    print("loops and autograd differ by at most", f"{np.abs(pull(g) - mine).max():.0e}")

# %% [markdown]
# The softmax is the one that everybody gets wrong once. Its Jacobian has an entry for every *pair*: raising one
# score takes shares away from all the others. For one row `w = softmax(s)`, `dw_i / ds_j = w_i (δ_ij - w_j)`.


# %%
def softmax(s):
    shares = np.exp(s - s.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def softmax_vjp_by_hand(g, w):
    """g and w (T, S): gradient of the shares, and the shares -> gradient of the scores."""
    ds = np.zeros_like(w)
    for t in range(w.shape[0]):
        for i in range(w.shape[1]):
            for j in range(w.shape[1]):
                ds[t, j] += g[t, i] * w[t, i] * ((i == j) - w[t, j])
    return ds


# %% [markdown]
# ### Exercise 01.3 · The vjp of a softmax
# *difficulty: medium · minutes: 12*
#
# Without loops, and without the `(S, S)` matrix: multiply the sum over `i` out, and two terms remain, one of them the
# same for a whole row.


# %% exercise 01.3
def softmax_vjp(g, w):
    """g and w (..., S) -> (..., S)."""
    # solution
    return w * (g - (g * w).sum(-1, keepdims=True))
    # end of solution


# %% check 01.3
from tinyflamingo.checks import check_01_3_softmax_vjp

check_01_3_softmax_vjp(softmax_vjp)

# %%
s = rng.standard_normal((T, E))
pull, shares = make_vjp(lambda s: reference.masked_softmax(s, np.ones_like(s, bool)))(s)
mine = softmax_vjp_by_hand(g, shares)
print("loops and autograd differ by at most", f"{np.abs(pull(g) - mine).max():.0e}")
print("each row of the gradient sums to 0: ", np.allclose(mine.sum(-1), 0))

# %% [markdown]
# ## A primitive of your own
#
# Autograd knows NumPy's functions one by one and would trace through `max(x, 0)²` as several. It can be told that
# a function is **one** step, with a vjp that you give it. This is the door through which every fast operation of the
# project comes in.


# %%
@primitive
def squared_relu(x):
    return np.maximum(x, 0) ** 2


def squared_relu_vjp(answer, x):
    return lambda g: g * 2 * np.maximum(x, 0)


defvjp(squared_relu, squared_relu_vjp)


def loss(x):
    return anp.sum(anp.sin(squared_relu(x)))  # other operations around it as you please


x = rng.standard_normal(6)
pull, _ = make_vjp(loss)(x)
by_hand = np.cos(np.maximum(x, 0) ** 2) * 2 * np.maximum(x, 0)
print("through our primitive:", np.round(pull(1.0), 4))
print("the chain rule says:  ", np.round(by_hand, 4))

# %% [markdown]
# ## A check that can fail
#
# A wrong gradient does not crash. The loss still falls, only less, and one looks for the fault everywhere else. So
# every gradient is measured: move `x` a little along a random direction `d`, both ways, and see whether the loss
# changes as the gradient foretells,
#
# `(f(x + ε d) - f(x - ε d)) / 2ε ≈ gradient · d`.
#
# **Predict.** Is a smaller ε always better? The next picture has ε along the bottom and the error upwards. What
# shape do you expect: falling, rising, or a valley? And where does the one-sided difference lie, `(f(x + ε d) -
# f(x)) / ε`?

# %%
direction = rng.standard_normal(6)
slope = np.sum(by_hand * direction)
steps = 10.0 ** np.arange(-12, 0.1, 0.5)
two_sided = [(loss(x + h * direction) - loss(x - h * direction)) / (2 * h) for h in steps]
one_sided = [(loss(x + h * direction) - loss(x)) / h for h in steps]

figure, axis = plt.subplots(figsize=(6, 2.8))
axis.loglog(steps, np.abs(np.array(one_sided) / slope - 1) + 1e-17, "s--", color=ORANGE, markersize=4, label="one side")
axis.loglog(steps, np.abs(np.array(two_sided) / slope - 1) + 1e-17, "o-", color=BLUE, markersize=4, label="both sides")
axis.set(xlabel="ε", ylabel="relative error")
axis.legend(frameon=False)
plt.show()
best = int(np.argmin(np.abs(np.array(two_sided) / slope - 1)))
print(f"smallest error, both sides: {abs(two_sided[best] / slope - 1):.0e} at ε = {steps[best]:.0e}")

# %% [markdown]
# *Figure: two valleys on logarithmic axes. From the right the errors fall with ε, that of the two-sided difference
# twice as steeply as that of the one-sided; from a certain ε on they rise again towards the left. The bottom of the
# two-sided valley lies far lower.*
#
# On the right the curve of the function is the error, on the left the rounding of `f`: two nearly equal numbers are
# subtracted and the difference is divided by almost nothing. The best ε lies between, and with both sides it leaves
# many good digits. In float32 no ε is good, which is why gradients are checked in float64.

# %% [markdown]
# ### Exercise 01.4 · Measure a slope
# *difficulty: easy · minutes: 6*
#
# The two-sided difference. It should be so exact that a gradient wrong by a thousandth is found out.


# %% exercise 01.4
def measured_slope(f, x, direction, eps=1e-5):
    """Slope of the scalar function f at the array x along a direction of the same shape."""
    # solution
    return (f(x + eps * direction) - f(x - eps * direction)) / (2 * eps)
    # end of solution


# %% check 01.4
from tinyflamingo.checks import check_01_4_measured_slope

check_01_4_measured_slope(measured_slope)

# %% [markdown]
# A check is worth what it catches. We plant four faults in the gradient of `squared_relu` and let the library's
# `ops.check_grad`, which measures along random directions, have a look at each.


# %%
def with_vjp(vjp):
    """squared_relu with another gradient."""

    @primitive
    def squared_relu(x):
        return np.maximum(x, 0) ** 2

    defvjp(squared_relu, vjp)
    return squared_relu


planted = {
    "as it should be": squared_relu_vjp,
    "sign turned": lambda answer, x: lambda g: -g * 2 * np.maximum(x, 0),
    "the 2 forgotten": lambda answer, x: lambda g: g * np.maximum(x, 0),
    "wrong by a thousandth": lambda answer, x: lambda g: 1.001 * g * 2 * np.maximum(x, 0),
    "right but for one entry": lambda answer, x: lambda g: g * 2 * np.maximum(x, 0) * (np.arange(x.size) != x.argmax()),
}
for title, vjp in planted.items():
    try:
        ops.check_grad(with_vjp(vjp), x)
        print(f"{title:24s} passes")
    except AssertionError as found:
        print(f"{title:24s} found out: {str(found).partition(', relative')[0]}")

# %% [markdown]
# And one that no check of this kind may let pass: a place where there is nothing to measure. With `x` all negative,
# `squared_relu` is 0 whatever one does, and *any* gradient that is 0 there looks right. Zero equals zero. The library
# refuses to call that a success:

# %%
try:
    ops.check_grad(squared_relu, -np.abs(x))
except AssertionError as refused:
    print("refused:", refused)

# %% [markdown]
# ## A kernel and its plain twin
#
# NumPy goes over memory once for every operation in a line. A loop that does all of it in one pass is faster, if it
# is compiled; in plain Python it is far slower. Numba compiles such a loop when it is first called. Here
# is the norm that stands in every block of the language model, `x / √(mean(x²) + ε) · gain`, once as NumPy says it and
# once as a loop.
#
# A kernel allocates nothing: it fills an array that it is given. Numba is optional. Where it is missing, the loop runs
# as Python, and with `NUMBA_DISABLE_JIT=1` it does so on purpose, for a debugger to step through.

# %%
try:
    from numba import njit
except ImportError:

    def njit(function):
        return function


def rms_norm_plain(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


@njit
def rms_norm_kernel(x, gain, eps, out):
    """One row after the other: read it for its sum of squares, read it again and write it."""
    rows, width = x.shape
    for m in range(rows):
        total = 0.0
        for d in range(width):
            total += x[m, d] * x[m, d]
        scale = 1 / np.sqrt(total / width + eps)
        for d in range(width):
            out[m, d] = x[m, d] * scale * gain[d]


M, D = 64, 128
x, gain = rng.standard_normal((M, D)), rng.standard_normal(D)
out = np.empty_like(x)
rms_norm_kernel(x, gain, 1e-6, out)
print("x (M, D) =", x.shape, " twins differ by at most", f"{np.abs(out - rms_norm_plain(x, gain, 1e-6)).max():.0e}")
print("passes over an array of that size: plain 7, the kernel 3")

# %% [markdown]
# Count them in the plain line: `x * x` reads one and writes one, `mean` reads one, the division reads and writes, the
# product with `gain` reads and writes. The kernel reads a row twice, and the second time it is still in the cache.

# %% [markdown]
# ### Exercise 01.5 · A kernel of your own
# *difficulty: medium · minutes: 15*
#
# Write `squared_relu` and what its gradient needs as one pass with plain loops: fill `out` with `max(x, 0)²` and
# `slope` with `2 max(x, 0)`. Write into the arrays that you are given and make no new ones. Plain Python loops are
# fine; put `@njit` above it afterwards, and it is a kernel. Let NaN stay NaN: a fault should be seen.


# %% exercise 01.5
def squared_relu_kernel(x, out, slope):
    """x, out and slope (M, D); fills out and slope, returns nothing."""
    # solution
    rows, width = x.shape
    for m in range(rows):
        for d in range(width):
            positive = 0.0 if x[m, d] < 0 else x[m, d]  # written so, NaN passes
            out[m, d] = positive * positive
            slope[m, d] = 2 * positive
    # end of solution


# %% check 01.5
from tinyflamingo.checks import check_01_5_kernel

check_01_5_kernel(squared_relu_kernel)

# %% [markdown]
# ## In the library
#
# Three rungs of one ladder, as their lines are now: the operation to be read, the primitive with its gradient by hand,
# and the kernel under it. And the check that all of them have to pass.


# %%
show(reference.rms_norm, fast._rms_norm, fast._rms_norm_backward, fast.kernels.rms_norm_forward, ops.check_grad)

# %% [markdown]
# `tinyflamingo/ops/reference.py` is every operation to be read; the `fast*.py` files beside it hold the primitives, and
# `kernels_numba.py` the loops. `python -m pytest -m autograd` measures every one of their gradients, then turns signs
# and changes rows in each, one after the other, and expects to find that out. `TINYFLAMINGO_OPS=reference` runs the
# whole model on the first rung.
#
# ## In three sentences
#
# Reverse mode writes down what was computed and walks back in an order in which every box has all of its slope
# before it hands it on. For arrays nobody writes Jacobians down: each operation knows the product of its own with
# whatever comes back. A gradient is believed when it was measured, by a check that has been seen to fail.
#
# **Further reading.** [Automatic differentiation in machine learning: a survey](https://arxiv.org/abs/1502.05767),
# for the idea and its history. Autograd's own tutorial, for `primitive` and `defvjp`. `docs/performance.md`, for what
# the kernels bring to a training step.
