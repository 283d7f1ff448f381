"""The address of a request, and the addresses to which a redirect may lead."""

from urllib.parse import quote, urlencode, urlsplit

from fastapi import Request


def address_of(request: Request, *, without: str = "") -> str:
    """Return the path and query of this request, without the parameter `without`."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != without])
    path: str = request.scope["path"]
    return f"{path}?{query}" if query else path


def as_link(request: Request) -> str:
    """Return the path and query of this request, quoted as the target of a link on our own page."""
    path = quote(request.scope["path"], safe="/~:@!$&'()*+,;=")
    query = request.scope.get("query_string", b"").decode("latin-1")
    return f"/{path.lstrip('/')}" + (f"?{query}" if query else "")


def safe(address: str) -> str:
    """Return the address if it is within this studio, else the home page."""
    inside = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if inside else "/"


def referring_page(request: Request) -> str:
    """Return the page of this studio whose form was sent; the home page if that is not known."""
    try:
        came = urlsplit(request.headers.get("referer", ""))
    except ValueError:  # as of "http://[::1"
        return "/"
    here = came.netloc == request.headers.get("host", "")
    return safe(came._replace(scheme="", netloc="").geturl()) if here else "/"
