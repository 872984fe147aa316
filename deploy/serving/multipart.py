"""Forms with files in them: multipart/form-data (RFC 7578)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deploy.serving.calls import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM: Final = "multipart/form-data"
_MOST_HEADERS: Final = 8
_LARGEST_HEADER: Final = 2**12


@dataclass(frozen=True)
class Part:
    """One field of a form."""

    name: str
    content: bytes
    is_file: bool
    """Whether a file's name came with it, which is used for nothing else."""


def read_parts(content_type: bytes, body: bytes, most: int) -> list[Part]:
    """The parts of a form, in order. Raises Refusal: 400, or 413 for more than `most`."""
    # Only who uploads a form needs it.
    from python_multipart.exceptions import FormParserError  # noqa: PLC0415
    from python_multipart.multipart import MultipartParser, parse_options_header  # noqa: PLC0415

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal(400, "the header Content-Type has no boundary: leave the header to the client's own form upload")
    form = _Form(most)
    try:
        parser = MultipartParser(boundary, form.callbacks(), max_header_count=_MOST_HEADERS, max_header_size=_LARGEST_HEADER)
        # What a client does wrong it is told; the log is for what the server does wrong.
        parser.logger.disabled = True
        parser.write(body)
    except FormParserError as error:
        raise Refusal(400, f"the body is not a form with the boundary that its header says: {error}") from None
    if not form.ended:
        raise Refusal(400, "the form ends before its last boundary: not all of it was sent")
    return form.parts


class _Form:
    """Gathers what the parser calls out."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.parts: list[Part] = []
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._keep_header,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        if len(self.parts) == self.most:
            raise Refusal(413, f"the form has more than {self.most:,} parts: send several requests")
        self._disposition = self._content = b""

    def _header(self) -> None:
        self._name = self._text = b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._text += data[start:end]

    def _keep_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._text

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _end(self) -> None:
        from python_multipart.multipart import parse_options_header  # noqa: PLC0415 - as above

        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise Refusal(400, f"part {len(self.parts)} of the form has no name")
        self.parts.append(Part(options[b"name"].decode("utf-8", "replace"), self._content, b"filename" in options))

    def _finish(self) -> None:
        self.ended = True
