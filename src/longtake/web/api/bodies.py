"""Bodies of requests: JSON, or a form with files that become uploads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from longtake.web.api.context import heavily
from longtake.web.refusal import Refusal
from longtake.web.studio import Studio

__all__ = ["described", "fields_of", "file_of", "json_of", "taken"]

NESTED = ("storyboard", "longtake", "extra_params", "input_reference", "last_image", "video")  # may be JSON in a form
CHUNK = 1 << 20


def described(kind: type[BaseModel], form: bool = True) -> dict[str, Any]:
    """A body for the OpenAPI description: the same fields as JSON, or as a form with files."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if form:
        files = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
        names = [name for name in ("input_reference", "last_image", "video") if name in schema["properties"]]
        content["multipart/form-data"] = {
            "schema": {
                **schema,
                "title": f"{schema['title']} form",
                "properties": {**schema["properties"], **dict.fromkeys(names, files)},
            }
        }
    return {"requestBody": {"required": True, "content": content}}


async def json_of(request: Request) -> Any:
    """The JSON in a body.

    Raises:
        Refusal: there is none.
    """
    body = await request.body()
    try:
        data = json.loads(body, parse_constant=_not_a_number)
        json.dumps(data, ensure_ascii=False).encode()  # half of a pair of surrogates is no text that can be kept
        return data
    except (ValueError, RecursionError):
        raise Refusal("invalid_request", "the body is no JSON that can be read") from None


def _not_a_number(name: str) -> float:
    raise ValueError(name)


async def fields_of(request: Request, studio: Studio) -> dict[str, Any]:
    """The fields of a body, JSON or form; files in a form are uploads then.

    Raises:
        Refusal: it cannot be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _form(request, studio)
    if kind not in ("application/json", ""):
        raise Refusal("unsupported_media", "the body is to be application/json or multipart/form-data")
    data = await json_of(request)
    if not isinstance(data, Mapping):
        raise Refusal("invalid_request", 'the body is no JSON object; {"prompt": "a red ball rolls"} would be one')
    return dict(data)


async def _form(request: Request, studio: Studio) -> dict[str, Any]:
    out = dict[str, Any]()
    async with _form_of(request) as form:
        for name, value in form.multi_items():
            outer, bracket, inner = name.partition("[")
            if isinstance(value, UploadFile):
                kinds = ("video",) if name == "video" else ("image",)
                out[name] = (await taken(request, studio, value, kinds))["id"]
            elif bracket and inner.endswith("]"):  # as OpenAI's clients write what is nested
                nested = out.setdefault(outer, {})
                if not isinstance(nested, dict):
                    raise Refusal("invalid_request", f"{outer} is said twice; once would do", outer)
                nested[inner[:-1]] = value
            else:
                out[name] = _nested(name, value)
    return out


def _form_of(request: Request) -> Any:
    return request.form(max_files=8, max_fields=200)


def _nested(name: str, value: str) -> Any:
    if name in NESTED and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            raise Refusal("invalid_request", f"{name}: this is no JSON that can be read", name) from None
    return value


async def taken(
    request: Request, studio: Studio, file: UploadFile, kinds: tuple[str, ...] = ("image", "video")
) -> dict[str, Any]:
    """The upload that a file of a form becomes.

    Raises:
        Refusal: it cannot be one.
    """
    incoming = studio.uploads.blank()
    await heavily(request, _copy, file, incoming)
    return await heavily(request, studio.uploads.take, incoming, kinds)


def _copy(file: UploadFile, path: Path) -> None:
    with open(path, "wb") as out:
        while chunk := file.file.read(CHUNK):
            out.write(chunk)


async def file_of(
    request: Request, name: str, studio: Studio, kinds: tuple[str, ...] = ("image", "video")
) -> dict[str, Any]:
    """The upload that the only file of a form becomes.

    Raises:
        Refusal: there is none.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refusal("unsupported_media", f"the body is to be multipart/form-data with a file named {name}")
    async with _form_of(request) as form:
        file = _file(form, name)
        return await taken(request, studio, file, kinds)


def _file(form: FormData, name: str) -> UploadFile:
    file = form.get(name)
    if not isinstance(file, UploadFile):
        raise Refusal("invalid_request", f"the form has no file named {name}", name)
    return file
