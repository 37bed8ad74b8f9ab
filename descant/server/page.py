"""The page: the built files of ``web/``, read once and served from memory, so that no request names a path of the disk.

`make page` builds it where Node.js is; without it ``/`` says how, and everything else works as ever.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from descant.errors import RequestError

PAGE_FOLDER = Path(__file__).parents[1] / "assets" / "page"
PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
PACKING_LEVEL = 9  # of gzip: once for each file
# Nothing from elsewhere, nothing inline, and no text becomes markup or program (Trusted Types).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": POLICY,
    "permissions-policy": "microphone=(self), camera=(self), display-capture=(self), geolocation=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "vary": "accept-encoding",
}
NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>descant</title>
<h1>The page is not built</h1>
<p>The server answers at /v1; only its page is missing. In a clone of the repository, with Node.js 20 or newer:</p>
<pre>make page</pre><p>Then start the server again.</p></html>
"""


@dataclass(frozen=True)
class PageFile:
    """One file. packed: its bytes by gzip."""

    data: bytes
    packed: bytes
    media_type: str


def read_page(folder: Path = PAGE_FOLDER) -> dict[str, PageFile]:
    """The files of the page by the path of their address: ``/`` and ``/assets/NAME``; {} where it is not built."""
    if not (folder / "index.html").is_file():
        return {}
    found = [("/", folder / "index.html")]
    found += [(f"/assets/{path.name}", path) for path in sorted((folder / "assets").iterdir())]
    return {address: page_file(path) for address, path in found if path.suffix in PAGE_TYPES}


def page_file(path: Path) -> PageFile:
    """A file, read and packed."""
    data = path.read_bytes()
    return PageFile(data, gzip.compress(data, PACKING_LEVEL, mtime=0), PAGE_TYPES[path.suffix])


def page_response(files: dict[str, PageFile], request: Request) -> Response:
    """A file of the page. Raises RequestError where there is none of this name."""
    path = request.url.path
    file = files.get(path)
    if file is None and path == "/":
        return Response(NOT_BUILT, 404, PAGE_HEADERS, "text/html; charset=utf-8")
    if file is None:
        raise RequestError(404, "not_found", "the page has no file of this name")
    # a name of /assets has the digest of its contents in it
    kept = "no-cache" if path == "/" else "public, max-age=31536000, immutable"
    headers = {**PAGE_HEADERS, "cache-control": kept}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.media_type)
    return Response(file.data, headers=headers, media_type=file.media_type)
