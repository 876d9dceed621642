# %% [markdown]
# # Reverse mode in one screen
#
# *minutes: 120 · tools · key: autograd*
#
# Everything in this project is trained with gradients. One idea gives all of these gradients, and its code fits on
# one screen: record each computation, then go back through the record. The other notebooks use this idea, so this
# notebook builds it from the beginning.
#
# **You will build** a working reverse mode for scalars, with a drawing of its graph; gradients by hand for a
# matrix product and a softmax; a check that can tell a right gradient from a wrong one; a Numba kernel and a plain
# NumPy function that computes the same.
#
# **You will not build** a fast or complete library. In the project the library `autograd` does this work, and it
# works in the way that you build here.
#
# You need Python, NumPy, and the chain rule.

# %%
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
# ## The code on one screen
#
# A `Box` holds a number. It also holds a list of the boxes that it was made of, and for each of them the local slope
# (the derivative of this box with respect to that box). The slope of a box, without the word "local", is the
# derivative of the end result with respect to this box. Three operations make new boxes from boxes. Each new box gets
# the next running number, so a box always has a larger number than the boxes it was made of. `backward` finds the
# slopes of all boxes. It starts at the end with slope 1. It goes from the newest box to the oldest. At each box it
# takes every box that this one was made of. It multiplies the slope by the local slope, and adds the product to the
# slope of that earlier box. This is the whole algorithm.


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
# The next figure shows the record that the code made on the way forward, and the slopes that it found on the way
# back.


# %%
def draw(axis, end, slopes, places):
    """Draw the graph: one circle for each box, with its value inside, its slope below, local slopes on the arrows."""
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
# *Figure: the graph of tanh(x y) + (x y) x. From left to right: the inputs x and y; their product; its tanh below
# and its product with x above; their sum at the right. Values stand in the circles, local slopes in orange on the
# arrows. The slope of the end with respect to each circle stands in green below the circle.*
#
# Follow the green numbers from right to left. To get the green number of a circle, look at all arrows that leave
# the circle. For each arrow, multiply the orange number on the arrow by the green number at its head. The sum of
# these products is the green number. Two arrows leave the product, and two arrows leave `x`. The `+=` in
# `backward` computes this sum. A frequent mistake is to write `=` in its place.
#
# **Predict.** Does the order in which `backward` visits the boxes matter? Suppose it goes from the end to the
# tanh, and then at once to everything behind the tanh. At that moment the slope from the other path has not yet
# reached the product. What would the product pass on to `x` and `y`?

# %% [markdown]
# ## Break it: the order
#
# In this version each box passes its slope on as soon as it gets a part of it, and again when it gets more. Many
# first attempts do this. We know the correct slope: with `b = a a`, `e = b (b + a)` is `a⁴ + a³`, so its slope is
# `4 a³ + 3 a²`. The cell evaluates it at `a = 3`.


# %%
def backward_in_haste(end):
    """Wrong: each time a box gets a slope, it passes on everything that it has so far."""
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
print("in the right order:    ", backward(e)[a])
print("too early:             ", backward_in_haste(e)[a])

# %% [markdown]
# A box may pass its slope on only when its slope is complete. So it must wait for every box that was made of it.
# Such an order is called topological. Our boxes have this order because of their running numbers. Without such
# numbers, the order must be found from the graph alone. This is your first exercise.

# %% [markdown]
# ### Exercise 01.1 · The order of the way back
# *difficulty: medium · minutes: 12*
#
# The graph is given as a dictionary: for each name, the names it was made of. Return `end` and all names behind
# it, in an order in which `backward` may visit them. `end` comes first, and every name comes before all names that
# it was made of. Each name appears once. Names that `end` does not need are left out.


# %% exercise 01.1
def way_back(made_of, end):
    """made_of {"e": ["b", "c"], "b": ["a", "a"], ...}; a name that is no key is an input -> list of names."""
    # solution
    order = []

    def visit(name):
        if name not in order:
            for part in made_of.get(name, ()):
                visit(part)
            order.append(name)

    visit(end)
    return order[::-1]
    # end of solution


# %% check 01.1
from tinyflamingo.checks import check_01_1_way_back

check_01_1_way_back(way_back)

# %% [markdown]
# ## From numbers to arrays: vector times Jacobian
#
# For arrays, the slope becomes a Jacobian, and Jacobians are large. Take `y = x w` with `x` of shape `(T, D)` and
# `w` of shape `(D, E)`. The Jacobian of `y` with respect to `w` has `T E · D E` entries. In practice it is never
# computed. The gradient `g` that comes back from the loss has the shape of `y`. We only need the product of `g`
# and the Jacobian, which has the shape of `w`. This product is the **vjp** (vector-Jacobian product). For most
# operations it costs about as much as the operation itself.
#
# First with loops. Entry `(t, e)` of `y` is a sum over `d`. So `g[t, e]` contributes to every `x[t, d]` and every
# `w[d, e]` in that sum.


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
# Compute the same without loops. The shapes help you: there is only one way to make `(T, D)` from `(T, E)` and
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
# Autograd gives the same result as the loops:

# %%
dx, dw = linear_vjp_by_hand(g, x, w)
for place, by_hand in enumerate((dx, dw)):
    pull, _ = make_vjp(reference.linear, place)(x, w)
    print("loops and autograd differ by at most", f"{np.abs(pull(g) - by_hand).max():.0e}")

# %% [markdown]
# The gradient of the softmax is easy to get wrong. Its Jacobian has an entry for every *pair* of scores, because
# raising one score lowers the weights of all others. In this part, `w` means the weights that a softmax gives, and
# not the matrix of exercise 01.2. For one row `w = softmax(s)`, `dw_i / ds_j = w_i (δ_ij - w_j)`.


# %%
def softmax(s):
    shares = np.exp(s - s.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def softmax_vjp_by_hand(g, w):
    """w (T, S): the weights; g (T, S): the gradient at the weights -> the gradient at the scores."""
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
# Compute it without loops, and without the `(S, S)` matrix. Expand the sum over `i`. Two terms remain, and a
# factor of one of them is the same for a whole row.


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
by_hand = softmax_vjp_by_hand(g, shares)
print("loops and autograd differ by at most", f"{np.abs(pull(g) - by_hand).max():.0e}")
print("each row of the gradient sums to 0: ", np.allclose(by_hand.sum(-1), 0))

# %% [markdown]
# ## A primitive of your own
#
# Autograd knows the functions of NumPy one by one. It would record `max(x, 0)²` as several steps. You can tell
# autograd that a function is **one** step, and give the vjp yourself. The project adds all its fast operations in
# this way.


# %%
@primitive
def squared_relu(x):
    return np.maximum(x, 0) ** 2


def squared_relu_vjp(answer, x):
    return lambda g: g * 2 * np.maximum(x, 0)


defvjp(squared_relu, squared_relu_vjp)


def loss(x):
    return anp.sum(anp.sin(squared_relu(x)))  # any other operations may be around it


x = rng.standard_normal(6)
pull, _ = make_vjp(loss)(x)
by_hand = np.cos(np.maximum(x, 0) ** 2) * 2 * np.maximum(x, 0)
print("through our primitive:", np.round(pull(1.0), 4))
print("the chain rule says:  ", np.round(by_hand, 4))

# %% [markdown]
# ## A check that can fail
#
# A wrong gradient does not raise an error. The loss may still fall, only more slowly, so the mistake is hard to
# find. So we measure every gradient. Move `x` a little along a random direction `d`, forwards and backwards, and
# compare the change of the loss with the change that the gradient predicts:
#
# `(f(x + ε d) - f(x - ε d)) / 2ε ≈ gradient · d`.
#
# **Predict.** Is a smaller ε always better? The next figure shows ε on the horizontal axis and the error on the
# vertical axis. Which shape do you expect: falling, rising, or a valley? And where is the curve of the one-sided
# difference, `(f(x + ε d) - f(x)) / ε`?

# %%
direction = rng.standard_normal(6)
slope = np.sum(by_hand * direction)
steps = 10.0 ** np.arange(-12, 0.1, 0.5)
two_sided = [(loss(x + h * direction) - loss(x - h * direction)) / (2 * h) for h in steps]
one_sided = [(loss(x + h * direction) - loss(x)) / h for h in steps]

figure, axis = plt.subplots(figsize=(6, 2.8))
axis.loglog(
    steps, np.abs(np.array(one_sided) / slope - 1) + 1e-17, "s--", color=ORANGE, markersize=4, label="one-sided"
)
axis.loglog(steps, np.abs(np.array(two_sided) / slope - 1) + 1e-17, "o-", color=BLUE, markersize=4, label="two-sided")
axis.set(xlabel="ε", ylabel="relative error")
axis.legend(frameon=False)
plt.show()
best = int(np.argmin(np.abs(np.array(two_sided) / slope - 1)))
print(f"smallest error, two-sided: {abs(two_sided[best] / slope - 1):.0e} at ε = {steps[best]:.0e}")

# %% [markdown]
# *Figure: two valleys on logarithmic axes. From the right, the errors fall with ε, that of the two-sided
# difference twice as steeply as that of the one-sided. Below a certain ε they rise again towards the left. The
# bottom of the two-sided valley is far lower.*
#
# On the right, the error comes from the curvature of the function. On the left, it comes from the rounding of `f`:
# two nearly equal numbers are subtracted, and the difference is divided by a very small number. The best ε is
# between them. With the two-sided difference, many correct digits remain at the best ε. In float32 the rounding is
# too coarse for any ε, so we check gradients in float64.

# %% [markdown]
# ### Exercise 01.4 · Measure a slope
# *difficulty: easy · minutes: 6*
#
# Write the two-sided difference. It should be exact enough to detect a gradient that is wrong by one thousandth.


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
# A check is useful only if it finds errors. We put four errors into the gradient of `squared_relu`. The function
# `ops.check_grad` of the library measures along random directions. The cell applies it to the right gradient and
# to each wrong one.


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
    "wrong sign": lambda answer, x: lambda g: -g * 2 * np.maximum(x, 0),
    "the 2 forgotten": lambda answer, x: lambda g: g * np.maximum(x, 0),
    "wrong by a thousandth": lambda answer, x: lambda g: 1.001 * g * 2 * np.maximum(x, 0),
    "right but for one entry": lambda answer, x: lambda g: g * 2 * np.maximum(x, 0) * (np.arange(x.size) != x.argmax()),
}
for title, vjp in planted.items():
    try:
        ops.check_grad(with_vjp(vjp), x)
        print(f"{title:24s} passes")
    except AssertionError as error:
        print(f"{title:24s} rejected: {str(error).partition(', relative')[0]}")

# %% [markdown]
# There is one more case that such a check must not accept: an input where there is nothing to measure. If all of
# `x` is negative, the output of `squared_relu` stays 0 for small changes. There *any* gradient that gives 0 seems
# right, because zero equals zero. The library does not count this as a success:

# %%
try:
    ops.check_grad(squared_relu, -np.abs(x))
except AssertionError as refused:
    print("refused:", refused)

# %% [markdown]
# ## A kernel and its NumPy version
#
# NumPy goes through memory once for every operation in a line. A loop that does all operations in one pass is
# faster, if it is compiled. In plain Python such a loop is far slower. Numba compiles the loop when it is first
# called. The example is the norm in every block of the language model, `x / √(mean(x²) + ε) · gain`, once in NumPy
# and once as a loop.
#
# A kernel makes no new arrays. It writes into an array that it is given. Numba is optional. If it is missing, the
# loop runs as Python. With `NUMBA_DISABLE_JIT=1` the loop also runs as Python, so that you can go through it with
# a debugger.

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
    """For each row: read it for the sum of squares, then read it again and write the result."""
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
print("x (M, D) =", x.shape, " both differ by at most", f"{np.abs(out - rms_norm_plain(x, gain, 1e-6)).max():.0e}")
print("passes over an array of that size: NumPy 7, kernel 3")

# %% [markdown]
# Count the passes in the plain line: `x * x` reads one array and writes one, `mean` reads one, the division reads one
# and writes one, the product with `gain` reads one and writes one. The kernel reads each row twice and writes it
# once. At the second reading the row is still in the processor's cache, a small and fast memory.

# %% [markdown]
# ### Exercise 01.5 · A kernel of your own
# *difficulty: medium · minutes: 15*
#
# Write a kernel that computes `squared_relu` and what its gradient needs in one pass, with plain loops. Fill `out`
# with `max(x, 0)²` and `slope` with `2 max(x, 0)`. Write into the arrays that you are given and make no new ones.
# Plain Python loops are enough. If you write `@njit` above the function afterwards, Numba compiles it. NaN in the
# input must stay NaN in the output, so that an error remains visible.


# %% exercise 01.5
def squared_relu_kernel(x, out, slope):
    """x, out and slope (M, D); fills out and slope, returns nothing."""
    # solution
    rows, width = x.shape
    for m in range(rows):
        for d in range(width):
            positive = 0.0 if x[m, d] < 0 else x[m, d]  # in this form NaN stays NaN
            out[m, d] = positive * positive
            slope[m, d] = 2 * positive
    # end of solution


# %% check 01.5
from tinyflamingo.checks import check_01_5_kernel

check_01_5_kernel(squared_relu_kernel)

# %% [markdown]
# ## In the library
#
# The next cell prints three versions of one operation: the readable version, the primitive with its gradient by
# hand, and the kernel that it calls. It also prints the check that all of them must pass.


# %%
show(reference.rms_norm, fast._rms_norm, fast._rms_norm_backward, fast.kernels.rms_norm_forward, ops.check_grad)

# %% [markdown]
# `tinyflamingo/ops/reference.py` contains the readable version of every operation. The `fast*.py` files beside it
# contain the primitives, and `kernels_numba.py` contains the loops. `python -m pytest -m autograd` measures the
# gradient of every one of them. Then it puts errors into them one by one, such as a changed sign or a changed row,
# and expects the check to find each error. `TINYFLAMINGO_OPS=reference` runs the whole model with the readable
# version.
#
# ## Five questions
# *difficulty: easy · minutes: 5*
#
# The next cell asks five questions about this notebook. In the cell after it, write the letters of your answers in
# place of the dots, and run it. It says why an answer is right, or what is wrong with the idea behind it.

# %%
from tinyflamingo.classroom.quiz import ask_quiz, check_quiz

ask_quiz("01")

# %%
check_quiz("01", ".....")

# %% [markdown]
# ## In three sentences
#
# Reverse mode records the computation and goes back through it in an order in which every box has its complete
# slope before it passes the slope on. For arrays, Jacobians are not computed: each operation has a function that
# multiplies the arriving gradient by its Jacobian. We trust a gradient only after a measurement, with a check that
# has been shown to fail on wrong gradients.
#
# **Further reading.** [Automatic differentiation in machine learning: a survey](https://arxiv.org/abs/1502.05767),
# for the idea and its history. The tutorial of autograd, for `primitive` and `defvjp`. `docs/performance.md`, for
# how much the kernels speed up a training step.
