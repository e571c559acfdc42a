"""Where a method comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A reference, enough to cite it."""

    authors: str
    title: str
    venue: str
    year: int
    url: str = ""

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}. {self.venue}."

    def bibtex(self) -> str:
        """A BibTeX entry, keyed by first author, year and first long word of the title."""
        word = next(w for w in re.findall(r"[A-Za-z]+", self.title) if len(w) > 3)
        first = re.findall(r"[^\W\d_]+", self.authors.split(",")[0].split(" and ")[0])[-1]
        fields = {"author": self.authors, "title": self.title, "booktitle": self.venue,
                  "year": str(self.year), "url": self.url}
        body = "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items() if v)
        return f"@inproceedings{{{first.lower()}{self.year}{word.lower()},\n{body}}}\n"
