"""How the documentation is built: `make docs`. Nothing is fetched, neither now nor when it is read."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import whyglass

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "whyglass"
author = "The whyglass authors"
copyright = author  # noqa: A001  Sphinx's name for it
version = release = whyglass.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "mathml", "catalogue"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Single backticks in docstrings hold names: a link where the name is documented, else code.
default_role = "py:obj"
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "whyglass"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["whyglass.css"]


def name_functions(
    app: Sphinx,
    what: str,
    name: str,
    found: object,
    options: object,
    signature: str | None,
    result: str,
) -> tuple[str | None, str]:
    """A function as a default is shown by its name, not by its address in memory."""
    named = signature and re.sub(r"<function (\w+).*?>", r"\1", signature)
    return (named and re.sub(r"~\w+(\.\w+)*\.", "", named), result)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", name_functions)
