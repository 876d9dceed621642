"""The API reference: a page of Markdown for each module, from its source, without importing it.

A page has the docstring of the module, its public functions and classes with their signatures and docstrings, and the
fields of a configuration with their comments. Not here: private names, and the code itself (it has pages of its own).
"""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections.abc import Iterator

from relations import ROOT, docstring, parsed

CODE_OR_SPECIAL = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)|[<$*]", re.DOTALL)
COMMENT = re.compile(r"#\s*(.*)$")


@functools.cache
def modules() -> dict[str, str]:
    """{name of a module: its file}, in the order of their names."""
    paths = sorted((ROOT / "tinyflamingo").rglob("*.py"))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path.relative_to(ROOT).as_posix() for name, path in names.items()}


def children(name: str) -> list[str]:
    """The modules just below a package, or below "tinyflamingo"."""
    return [other for other in modules() if other.rpartition(".")[0] == name]


def page(name: str) -> str:
    """The page of a module, in MyST Markdown."""
    path = modules()[name]
    parts = [f"# {name.removeprefix('tinyflamingo.')}", f"`{name}` · [{path}](source:{path})"]
    parts += [f"```{{py:module}} {name}\n```", as_markdown(docstring(path))]
    parts += [_object(node, path, 6) for node in _public(parsed(ROOT / path))]
    if below := children(name):
        entries = [f"{other.rpartition('.')[2]} <{other}>" for other in below]
        parts.append("\n".join(["```{toctree}", ":maxdepth: 1", "", *entries, "```"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _public(tree):
    kinds = ast.FunctionDef | ast.ClassDef
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def _object(node, path, fence):
    """A directive for a function, a class or a method."""
    words = as_markdown(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        methods = [_object(child, path, fence - 2) for child in _public(node)]
        fields = "\n".join(_fields(node, path))
        return _directive("py:class", f"{node.name}({bases})" if bases else node.name, [words, fields, *methods], fence)
    if any(ast.unparse(mark).endswith("property") for mark in node.decorator_list):
        return _directive("py:property", node.name, [words], fence)
    kind = "py:function" if fence == 6 else "py:method"
    return _directive(kind, _signature(node, path), [words], fence)


def _signature(node, path):
    """name(arguments) -> result. The classes of the package have their full names, which Sphinx shortens and links."""
    imported = _imported(path)

    class Full(ast.NodeTransformer):
        def visit_Name(self, name):
            full = imported.get(name.id, "")
            return ast.parse(f"~{full}", mode="eval").body if full in lines() else name

    node = copy.deepcopy(node)
    for argument in ast.walk(node.args):
        if isinstance(argument, ast.arg) and argument.annotation:
            argument.annotation = Full().visit(argument.annotation)
    returns = f" -> {ast.unparse(Full().visit(node.returns))}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


@functools.cache
def _imported(path):
    """{a name in a file: the full name of the object that it imports from the package or defines}."""
    module = next(name for name, other in modules().items() if other == path)
    tree = parsed(ROOT / path)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return names | {node.name: f"{module}.{node.name}" for node in _public(tree)}


def _directive(kind, signature, parts, fence):
    body = "\n\n".join(part for part in parts if part)
    return f"{'`' * fence}{{{kind}}} {signature}\n\n{body}\n{'`' * fence}"


def _fields(node: ast.ClassDef, path: str) -> Iterator[str]:
    """The fields of a dataclass or of a named tuple, each with its default and the comment in its line."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_"):
            default = f" = {ast.unparse(field.value)}" if field.value else ""
            comment = COMMENT.search(lines[field.end_lineno - 1][field.end_col_offset :])
            words = f": {as_markdown(comment[1])}" if comment else ""
            yield f"- `{ast.unparse(field.target)}: {ast.unparse(field.annotation)}{default}`{words}"


def as_markdown(words: str) -> str:
    """A docstring as Markdown: its code stays code, and no other character has a meaning in Markdown."""

    def escaped(match):
        return match[0] if match[0].startswith("`") else "\\" + match[0]

    parts = re.split(r"((?:^ {4}.*\n?)+)", words, flags=re.MULTILINE)
    text = "".join(part if part.startswith("    ") else CODE_OR_SPECIAL.sub(escaped, part) for part in parts)
    return re.sub(r"^#", r"\\#", text, flags=re.MULTILINE)


@functools.cache
def lines() -> dict[str, tuple[str, int]]:
    """{full name of a public function, class or method: (file, line)}."""
    definitions = {}
    for name, path in modules().items():
        for node in _public(parsed(ROOT / path)):
            inner = _public(node) if isinstance(node, ast.ClassDef) else []
            definitions |= {f"{name}.{node.name}": (path, node.lineno)}
            definitions |= {f"{name}.{node.name}.{method.name}": (path, method.lineno) for method in inner}
    return definitions
