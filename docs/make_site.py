"""Builds the site: the texts, the notebooks, the explorer and the API reference as pages that open without a network.

    pip install -e ".[docs]"                            what it needs: Sphinx, MyST-NB, furo, jieba
    python docs/make_site.py                            both languages, in docs/site/html
    python docs/make_site.py --language zh_CN --out DIR one language, in another folder
    python docs/make_site.py --katex PACKAGE            KaTeX from a folder or a .tgz, without a network

Formulas are drawn by KaTeX (MIT licence), which is no part of this project. It comes from --katex, from the environment
variable TINYFLAMINGO_KATEX, from `katex-VERSION.tgz` in the project's folder, or by `npm pack`, which needs a network.
A warning of Sphinx, a dead link and an address in a network are errors: exit code 1.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "docs" / "site"
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks"), str(SITE)]

import links  # noqa: E402
from npm_package import pack, read_files  # noqa: E402

from tinyflamingo.errors import UserError  # noqa: E402

KATEX = "katex@0.19.1"
VARIABLE = "TINYFLAMINGO_KATEX"
INSTALL = 'pip install -e ".[docs]"'
NEEDED = ("sphinx", "myst_nb", "furo", "jieba")
LANGUAGES = ("en", "zh_CN")
FONT = re.compile(r"src:url\((fonts/[\w-]+\.woff2)\)[^}]*")
FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>tinyflamingo</title></head>
<body><p>{links}</p>
<script>
const wanted = (navigator.language || "").startsWith("zh") ? "zh_CN" : "en";
if ({names}.includes(wanted)) location.replace(wanted + "/index.html");
</script></body></html>
"""


def read_katex(package: Path) -> dict[str, bytes]:
    """{file: contents} of KaTeX: its script, its styles with the fonts inside, its licence."""
    try:
        parts = read_files(package, ("dist/katex.min.js", "dist/katex.min.css", "LICENSE"))
        style = parts["dist/katex.min.css"].decode()
        fonts = read_files(package, [f"dist/{name}" for name in FONT.findall(style)])
    except (KeyError, OSError) as error:
        raise UserError(f"{package} is not the package of KaTeX: it has no {error}") from error

    def inside(match):
        data = base64.b64encode(fonts[f"dist/{match[1]}"]).decode()
        return f'src:url(data:font/woff2;base64,{data}) format("woff2")'

    files = {"katex.min.js": parts["dist/katex.min.js"], "katex.min.css": FONT.sub(inside, style).encode()}
    return files | {"katex.LICENSE.txt": parts["LICENSE"]}


def find_katex(given: Path | None) -> Path:
    """The package of KaTeX. Raises `UserError` if there is none."""
    path = given or Path(os.environ.get(VARIABLE) or ROOT / f"{KATEX.replace('@', '-')}.tgz")
    if path.exists():
        return path
    if given or os.environ.get(VARIABLE):
        raise UserError(f"no such file or folder: {path}")
    fetched = pack(KATEX, ROOT)
    if fetched is None:
        raise UserError(f"KaTeX is missing: run `npm pack {KATEX}` where there is a network, and give --katex FILE")
    return fetched


def build(languages: tuple, out: Path, katex: dict[str, bytes]) -> list[str]:
    """Write the site into `out`. Returns what is wrong with it, one line each."""
    from tinyflamingo.explorer.build import build_page

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stages = {language: Path(folder) / language for language in languages}
        runs = [_start(language, stage, languages, katex) for language, stage in stages.items()]
        outputs = [run.communicate()[0] for run in runs]
        for language, stage in stages.items():
            shutil.rmtree(out / language, ignore_errors=True)
            shutil.move(stage / "html" / language, out / language)
    warnings = [
        line for run, output in zip(runs, outputs, strict=True) if run.returncode for line in output.split("\n")
    ]
    (out / "explorer.html").write_bytes(build_page())
    names = [f'<a href="{name}/index.html">{name}</a>' for name in languages]
    page = FIRST_PAGE.format(links=" · ".join(names), names=list(languages))
    (out / "index.html").write_text(page, encoding="utf-8")
    return warnings + list(links.faults(out))


def _start(language, stage, languages, katex):
    """Collect the sources of one language, and start Sphinx on them: it writes html/LANGUAGE beside them."""
    import collect

    collect.collect(language, stage / "texts")
    (stage / "package").mkdir()
    for name, content in katex.items():
        (stage / "package" / name).write_bytes(content)
    options = ["-q", "-E", "-W", "--keep-going", "-c", SITE, "-d", stage / "doctrees"]
    options += ["-D", f"language={language}", "-A", f"editions={','.join(languages)}"]
    command = [sys.executable, "-m", "sphinx", *map(str, options), str(stage / "texts"), str(stage / "html" / language)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Build the site. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Builds the site in docs/site/html.")
    parser.add_argument("--language", choices=LANGUAGES, help="only this language (default: both)")
    parser.add_argument("--out", type=Path, default=SITE / "html", help="folder of the site")
    parser.add_argument("--katex", type=Path, metavar="PACKAGE", help=f".tgz or folder of {KATEX}")
    args = parser.parse_args(arguments)
    try:
        if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise UserError(f"not installed: {', '.join(missing)}; in the project's folder, run {INSTALL}")
        faults = build((args.language,) if args.language else LANGUAGES, args.out, read_katex(find_katex(args.katex)))
    except UserError as error:
        print(f"make_site: {error}", file=sys.stderr)
        return 2
    print("\n".join(faults) or f"the site is in {args.out}: open index.html")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
