"""Directives that read the catalogue of methods, so that no page lists methods by hand.

`methods-table` makes a table of the columns named in its argument; `methods` documents every method.
"""

import itertools
from typing import ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from whyglass import METHODS
from whyglass.catalogue import table

FAMILIES = {
    "gradient": "Gradients and paths",
    "cam": "Class activation maps",
    "propagation": "Propagation through the layers",
    "coalition": "Games and perturbations",
}


class MethodsTable(SphinxDirective):
    """The catalogue as a table."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        columns = self.arguments[0].split()
        lines = [".. list-table::", "   :header-rows: 1", ""]
        lines += _row(column.capitalize() for column in columns)
        for entry in table():
            kind = METHODS[entry["name"]].__name__
            shown = entry | {
                "name": f":py:obj:`{entry['name']} <whyglass.{kind}>`",
                "paper": f"`{entry['paper']} <{entry['url']}>`__",
            }
            lines += _row(shown[column] or "none" for column in columns)
        return self.parse_text_to_nodes("\n".join(lines))


class Methods(SphinxDirective):
    """Every method's docstring, family by family."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for family, group in itertools.groupby(METHODS.values(), lambda kind: kind.family):
            title = FAMILIES.get(family, family.capitalize())
            section = nodes.section(ids=[f"family-{family}"])
            section += nodes.title(title, title)
            self.state.document.note_implicit_target(section)
            lines: list[str] = []
            for kind in group:
                lines += [f".. autoclass:: whyglass.{kind.__name__}", "   :no-index-entry:", ""]
            self.state.nested_parse(StringList(lines, source="catalogue"), 0, section)
            found.append(section)
        return found


def _row(cells: object) -> list[str]:
    return [f"   {'* -' if first else '  -'} {cell}" for first, cell in _first(cells)]


def _first(cells: object) -> object:
    return ((not position, cell) for position, cell in enumerate(cells))


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("methods-table", MethodsTable)
    app.add_directive("methods", Methods)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
