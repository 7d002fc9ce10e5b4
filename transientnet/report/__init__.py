"""Pages that open offline: one HTML file, pictures and style inside, readable on a phone.

`Report` composes sections; `evaluation_sections` makes those that tell how good a model is;
`GalleryWriter` writes the night's candidates as a contact sheet.
"""

from __future__ import annotations

from .document import Report, picture_wall, table
from .gallery import GalleryWriter
from .sections import Mistake, evaluation_sections, mistakes

__all__ = [
    "GalleryWriter",
    "Mistake",
    "Report",
    "evaluation_sections",
    "mistakes",
    "picture_wall",
    "table",
]
