"""A dataset in the words of MLCommons Croissant 1.0, as JSON-LD."""

from collections.abc import Mapping, Sequence
from typing import Any

TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS},
}
"""The context that the specification asks for."""
KINDS = {"certified": "sc:Boolean", "round": "sc:Integer", "risk": "sc:Float"}
"""Columns that are no text."""
LISTS = frozenset({"choices", "steps", "authors"})
NESTED = frozenset({"verdicts", "parents"})
"""Columns that are in the file and not described."""


def described(name: str, licence: str, date: str, files: Mapping[str, str], columns: Sequence[str]) -> dict[str, Any]:
    """The description of a dataset in one Parquet file, which stands in `files` with its SHA-256."""
    (file,) = files
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": "Questions with rationales in steps and answers; README.md says how they were made.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": licence,
        "url": "README.md",
        "datePublished": date,
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": "preceptor"},
        "citeAs": name,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "contentUrl": file,
                "encodingFormat": "application/x-parquet",
                "sha256": files[file],
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "examples",
                "name": "examples",
                "field": [_field(column, file) for column in columns if column not in NESTED],
            }
        ],
    }


def _field(name: str, file: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"examples/{name}",
        "name": name,
        "dataType": KINDS.get(name, "sc:Text"),
        **({"repeated": True} if name in LISTS else {}),
        "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
    }
