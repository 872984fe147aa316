"""Whether a browser sends a request for the page of another site."""

from deploy.serving.calls import Call, Refusal


def refuse_other_sites(call: Call) -> None:
    """Raises Refusal (403). For bodies that are not JSON by their Content-Type.

    A page may have its reader's browser post a form, a plain text or a body of no type to any address that the reader reaches, this
    server on 127.0.0.1 too (https://fetch.spec.whatwg.org/#cors-safelisted-request-header). For JSON the browser asks the server
    first, which never says yes, so that JSON needs no look. Where a request comes from no page can forge, and clients that are no
    browsers do not say: what is held against the headers here is what Go's net/http.CrossOriginProtection holds against them.
    """
    site = call.headers.get(b"sec-fetch-site")
    if site is not None:
        foreign = site not in (b"same-origin", b"none")
    else:
        # Browsers leave it out over plain HTTP, except to this machine itself.
        origin, host = call.headers.get(b"origin"), call.headers.get(b"host")
        foreign = origin is not None and (not host or origin.partition(b"://")[2] != host)
    if foreign:
        raise Refusal(403, "a page of another site may send this server JSON alone, and only where its browser is allowed to")
