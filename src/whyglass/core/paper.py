"""The reference of the paper that a method comes from."""

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
        people = re.split(r", | and ", self.authors)
        family = re.findall(r"[^\W\d_]+", people[0])[-1]
        fields = {
            "author": " and ".join(people),
            "title": self.title,
            "booktitle": self.venue,
            "year": str(self.year),
            "url": self.url,
        }
        body = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
        return f"@inproceedings{{{family.lower()}{self.year}{word.lower()},\n{body}}}\n"
