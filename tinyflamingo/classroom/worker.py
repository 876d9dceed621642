"""Runs a student's functions: ``python -m tinyflamingo.classroom.worker MEGABYTES``, started by `grade.py`.

It knows neither the checks nor the right answers. It reads requests from stdin and writes what the functions return.
Whatever the student's code prints goes nowhere. Not here: limits of time, and marks (`grade.py`).
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import inspect
import linecache
import os
import re
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

from tinyflamingo.checks.core import own_line
from tinyflamingo.classroom.messages import Values, receive, send
from tinyflamingo.language import _

OF_IPYTHON = re.compile(r"^(\s*)(?:%{1,2}[A-Za-z].*|!.*|\?+[\w.]+\s*|[\w.]+\?+\s*)$")
ITS_RESULT = re.compile(r"^(\s*[\w, ]+=\s*)(?:!|%[A-Za-z]).*$")
IMPORTS = (ast.Import, ast.ImportFrom)
BLOCKS = (ast.For, ast.While, ast.With, ast.Try, ast.If)


def main(megabytes: int) -> None:
    """Answer requests until stdin ends."""
    requests, answers = (os.fdopen(os.dup(stream), mode) for stream, mode in ((0, "rb"), (1, "wb")))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _limit_memory(megabytes)
    builtins.display = lambda *objects, **options: None  # type: ignore[attr-defined]  # every notebook has it
    function: Any = None
    send(answers, {"ready": True})
    while (request := receive(requests)) is not None:
        if "define" in request:
            function, answer = define(request["cells"], request["define"])
            send(answers, answer)
        else:
            send(answers, _call(function, request, requests, answers))


def _limit_memory(megabytes):
    """Where the system has a limit: not on Windows; macOS takes it and does not keep it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def _call(function, request, requests, answers):
    """Call the function; its arguments may be functions of the other side, which are asked in between."""

    def ask(number, args):
        send(answers, {"ask": number, "args": [values.write(x, False) for x in args]})
        reply = receive(requests) or {"raise": "nobody answers"}
        if "raise" in reply:
            raise RuntimeError(reply["raise"])
        return values.read(reply["reply"])

    values = Values(ask)
    args = [values.read(x) for x in request["call"]]
    named = {name: values.read(x) for name, x in request["named"].items()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = function(*args, **named)
            done = values.write(result, False)
        except NotImplementedError:
            return {"open": True}
        except BaseException as error:
            return {"error": own_line(error)}
    return {"done": done, "state": values.state(), "warnings": [str(w.message)[:200] for w in said[:5]]}


# ---------------------------------------------------------------- the function and what it needs


def define(cells: list, name: str) -> tuple[Any, dict]:
    """(the function of this name, what to answer). Runs only those statements of the notebook that the function needs.

    If the notebook defines the name twice, the last definition counts.
    """
    space: dict = {"__name__": "notebook"}
    wrong = ""
    for node, file in _needed(list(_statements(cells)), name):
        if isinstance(node, SyntaxError):
            wrong = wrong or _not_python(node)
            continue
        try:
            exec(compile(ast.Module([node], []), file, "exec"), space)
        except BaseException as error:
            wrong = wrong or own_line(error)
    function = space.get(name)
    if not callable(function):
        return None, {"error": wrong} if wrong else {"missing": True}
    names: list = []
    with contextlib.suppress(TypeError, ValueError):
        names = list(inspect.signature(function).parameters)
    return function, {"defined": names}


def _not_python(error):
    """One sentence about a cell that Python cannot read."""
    if not error.lineno or not error.text:
        return _("the cell is not Python: {error}").format(error=error.msg)
    hint = _("the cell is not Python: {error} in line {line}: `{code}`")
    return hint.format(error=error.msg, line=error.lineno, code=error.text.strip())


def _statements(cells) -> Iterator[tuple]:
    """(statement or SyntaxError, file name) of all cells. What only IPython reads, as %time, does nothing here."""
    for number, source in enumerate(cells, start=1):
        file = f"cell {number}"
        source = _without_ipython(source)
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        try:
            compile(source, file, "exec")
            yield from ((node, file) for node in ast.parse(source).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            yield (error if isinstance(error, SyntaxError) else SyntaxError(str(error))), file


def _without_ipython(source):
    """The code of a cell without lines as %time. A cell that is Python stays as it is: a line may begin with `% b`."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        ast.parse(source)
        return source
    lines = (ITS_RESULT.sub(r"\1None", OF_IPYTHON.sub(r"\1pass", line)) for line in source.splitlines())
    return "\n".join(lines) + "\n"


def _needed(statements, name) -> list[tuple]:
    """The statements that define the name, and what these use, and so on, in their order.

    Loops and other blocks also define names, as those of their variables. They count if nothing else defines the name.
    A call as `table.update(...)` counts if the notebook makes the table: `plt.plot(...)` does not.
    """
    uses = [_uses(node, file) for node, file in statements]
    imports = [isinstance(node, IMPORTS) for node, _ in statements]
    imported = set().union(*(defined for (defined, _), is_import in zip(uses, imports, strict=True) if is_import))
    calls = [isinstance(node, ast.Expr) for node, _ in statements]
    uses = [(d - imported if is_call else d, used) for (d, used), is_call in zip(uses, calls, strict=True)]
    plain = [not isinstance(node, BLOCKS) for node, _ in statements]
    defined_plainly = set().union(*(defined for (defined, _), is_plain in zip(uses, plain, strict=True) if is_plain))
    uses = [(d if is_plain else d - defined_plainly, used) for (d, used), is_plain in zip(uses, plain, strict=True)]
    names, before = {name}, -1
    chosen = {place for place, (node, _) in enumerate(statements) if _imports_all(node)}
    while before < len(names) + len(chosen):
        before = len(names) + len(chosen)
        for place, (defined, used) in enumerate(uses):
            if defined & names:
                chosen.add(place)
                names |= used
    return [statements[place] for place in sorted(chosen)]


def _imports_all(node):
    """from math import *: what it defines is not known before it is run."""
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _uses(node, file):
    """(names that a statement defines or changes, global names that it uses)."""
    if isinstance(node, SyntaxError):  # whatever is called `def NAME` in there
        text = "".join(linecache.getlines(file)).replace("(", " ").split()
        return {after for word, after in zip(text, text[1:], strict=False) if word == "def"}, set()
    defined, used = set(), set()
    waiting = [compile(ast.Module([node], []), file, "exec")]
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_NAME", "STORE_GLOBAL") and code.co_name == "<module>":
                defined.add(step.argval)
            elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
                used.add(step.argval)
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        targets = [node.value.func]
    for target in targets:
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        if isinstance(target, ast.Name):
            defined.add(target.id)
    return defined, used


if __name__ == "__main__":
    main(int(sys.argv[1]))
