"""Families of architectures in small: the table of the documentation and the tests build them here."""

from tests.zoo.families import (
    convolutional,
    graphs_and_sets,
    mixing,
    recurrent,
    tables,
    transformers_images,
    transformers_text,
    transformers_time,
    transformers_videos,
)
from tests.zoo.families.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for room in (
        convolutional,
        recurrent,
        mixing,
        graphs_and_sets,
        tables,
        transformers_text,
        transformers_images,
        transformers_videos,
        transformers_time,
    )
    for family in room.FAMILIES
}
