"""The page's parts -> page.inc: the text before and after the data, as C++ string literals."""

import pathlib
import sys

parts = {pathlib.Path(path).name: pathlib.Path(path).read_text(encoding="utf-8") for path in sys.argv[1:]}
page = parts["page.html"].replace("/*STYLE*/", parts["page.css"]).replace("/*SCRIPT*/", parts["page_charts.js"] + parts["page_graph.js"] + parts["page.js"])
before, after = page.split("/*DATA*/")
for name, text in (("kPageBeforeData", before), ("kPageAfterData", after)):
    if ')PAGE"' in text:
        sys.exit("embed_page: the page holds the literal's own end")
    # A literal has a length limit in some compilers; pieces of it have not.
    pieces = [text[i : i + 8000] for i in range(0, len(text), 8000)]
    print(f"constexpr char {name}[] =\n" + "\n".join(f'R"PAGE({piece})PAGE"' for piece in pieces) + ";")
