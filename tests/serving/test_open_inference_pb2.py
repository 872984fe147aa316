"""The generated messages are those of the `.proto` file beside them."""

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from deploy.serving import open_inference_pb2 as pb
from tests.conftest import REPOSITORY

_NAMED: Final = (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM)


def written(file: FileDescriptorProto) -> Iterator[str]:
    """The words of a `.proto` file with these messages."""
    yield f'syntax = "{file.syntax}"; package {file.package};'
    for service in file.service:
        yield f"service {service.name} {{"
        for method in service.method:
            yield f"rpc {method.name}({short(method.input_type)}) returns ({short(method.output_type)});"
        yield "}"
    for message in file.message_type:
        yield from written_message(message)


def written_message(message: DescriptorProto) -> Iterator[str]:
    yield f"message {message.name} {{"
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from written_message(nested)
    open_choice = None
    for field in message.field:
        choice = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        if choice != open_choice:
            yield f"{'}' if open_choice else ''} {f'oneof {choice} {{' if choice else ''}"
        open_choice = choice
        entry = maps.get(short(field.type_name))
        repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
        kind = f"map<{kind_of(entry.field[0])}, {kind_of(entry.field[1])}>" if entry else f"{repeated}{kind_of(field)}"
        yield f"{kind} {field.name} = {field.number};"
    yield "}" * (2 if open_choice else 1)


def kind_of(field: FieldDescriptorProto) -> str:
    return short(field.type_name) if field.type in _NAMED else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def short(name: str) -> str:
    return name.rpartition(".")[2]


def words(text: str) -> list[str]:
    return re.findall(r"[\w.\"]+|[^\w\s]", re.sub("//.*", "", text))


def test_they_are_those_of_the_file() -> None:
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    path = REPOSITORY / file.name
    assert path.name == "open_inference.proto"
    assert words(" ".join(written(file))) == words(path.read_text()), "run make proto"
