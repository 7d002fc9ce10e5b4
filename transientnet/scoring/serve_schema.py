"""The service's interface in the words of OpenAPI 3.1: what `serve` answers is checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["openapi", "parameters"]

_PARAMETERS: dict[str, dict[str, Any]] = {
    "name": {
        "description": "What rows name as their source, and their id where the file has none.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    },
    "pixel_scale": {
        "description": "arcsec per pixel; outranks what the file says.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
    },
    "fwhm": {
        "description": "Seeing in pixels; outranks what the file says.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
    },
    "threshold": {
        "description": "Name the last of two classes (real) from this probability on.",
        "schema": {"type": "number", "minimum": 0, "maximum": 1},
    },
}

_NUMBER = {"type": ["number", "null"]}
_REFUSALS = {
    "400": "A parameter makes no sense, or the body is empty.",
    "401": "The token is missing or wrong.",
    "403": "The request comes from a page of another origin, or was sent to another host name.",
    "408": "The body took too long to arrive.",
    "413": "The body is longer than the server reads.",
    "415": "A form: send the file itself as the body.",
    "503": "Too many requests wait, or the server is ending: come again after `Retry-After` seconds.",
}


def parameters(classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters of ``POST /score`` by name, for a model of these classes."""
    return {k: about for k, about in _PARAMETERS.items() if k != "threshold" or len(classes) == 2}


def openapi(model: str, classes: Sequence[str], *, token: bool) -> dict[str, Any]:
    """The description that ``/openapi.json`` gives.

    Parameters
    ----------
    model : str
        ``name@version``.
    classes : sequence of str
    token : bool
        Whether requests need one.
    """
    refused = {code: _answer(text, "Error", code == "503") for code, text in _REFUSALS.items()}
    row = {
        "id": {"type": "string"},
        "source": {"type": "string"},
        "label": {"type": "string", "enum": [*classes, ""], "description": "Empty where refused."},
        **{f"p_{name}": {**_NUMBER, "minimum": 0, "maximum": 1} for name in classes},
        "quality": {"type": "integer", "minimum": 0, "maximum": 65535},
        "model": {"const": model},
        **dict.fromkeys(("ra", "dec", "x", "y"), _NUMBER),
        "flags": {"type": "array", "items": {"type": "string"}, "description": "Names of the quality flags."},
        "error": {"type": ["string", "null"], "description": "Why the candidate could not be scored."},
    }
    health = {name: {"type": "string"} for name in ("status", "model")}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "transientnet",
            "version": "1",
            "description": f"Scores difference-image candidates with {model}: {', '.join(classes)}.",
        },
        "paths": {
            "/score": {
                "post": {
                    "operationId": "score",
                    "summary": "Score the candidates of a file: Avro, FITS, npz, Parquet, JSON, tar…",
                    "description": "One row for each candidate, as `transientnet score` writes them. What "
                    "cannot be read or judged is a row with flags and without probabilities, not an error.",
                    "parameters": [
                        {"name": name, "in": "query", "required": False, **about}
                        for name, about in parameters(classes).items()
                    ],
                    "requestBody": {
                        "required": True,
                        "description": "The file; gzip is seen by its content.",
                        "content": {
                            "application/octet-stream": {"schema": {"type": "string", "minLength": 1}}
                        },
                    },
                    "responses": {"200": _answer("The rows.", "Scores"), **refused},
                }
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether the server takes requests; needs no token.",
                    "security": [],
                    "responses": {
                        code: _answer(text, "Health")
                        for code, text in (("200", "It does."), ("503", "It does not."))
                    }
                    | {"403": refused["403"]},
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Counts, times and what waits, for Prometheus.",
                    "responses": {
                        "200": {
                            "description": "Prometheus text format.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        **{code: refused[code] for code in ("401", "403")},
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "Scores": _object({"rows": {"type": "array", "items": _object(row)}}),
                "Error": _object({"error": {"type": "string"}}),
                "Health": _object(health),
            }
        },
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _answer(description: str, schema: str, again: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }
    if again:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answer
