"""The messages of the Open Inference Protocol's gRPC service, made of their fields' numbers when this is imported.

The numbers are the protocol's (https://github.com/kserve/open-inference-protocol, `open_inference_grpc.proto`) and, of
two kinds of parameters, Triton's. Nested messages stand beside the others: what they are called is not on the wire.
Generated code would hold for one release of protobuf only.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"

_TENSOR = "name:string=1 datatype:string=2 shape:int64*=3 parameters:map=4 contents:InferTensorContents=5"
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool=1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool=1",
    "ModelReadyRequest": "name:string=1 version:string=2",
    "ModelReadyResponse": "ready:bool=1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string=1 version:string=2 extensions:string*=3",
    "ModelMetadataRequest": "name:string=1 version:string=2",
    "ModelMetadataResponse": "name:string=1 versions:string*=2 platform:string=3 inputs:TensorMetadata*=4 "
    "outputs:TensorMetadata*=5",
    "TensorMetadata": "name:string=1 datatype:string=2 shape:int64*=3",
    "InferParameter": "bool_param:bool?=1 int64_param:int64?=2 string_param:string?=3 double_param:double?=4 "
    "uint64_param:uint64?=5",
    "InferTensorContents": "bool_contents:bool*=1 int_contents:int32*=2 int64_contents:int64*=3 "
    "uint_contents:uint32*=4 uint64_contents:uint64*=5 fp32_contents:float*=6 fp64_contents:double*=7 "
    "bytes_contents:bytes*=8",
    "InferInputTensor": _TENSOR,
    "InferRequestedOutputTensor": "name:string=1 parameters:map=2",
    "InferOutputTensor": _TENSOR,
    "ModelInferRequest": "model_name:string=1 model_version:string=2 id:string=3 parameters:map=4 "
    "inputs:InferInputTensor*=5 outputs:InferRequestedOutputTensor*=6 raw_input_contents:bytes*=7",
    "ModelInferResponse": "model_name:string=1 model_version:string=2 id:string=3 parameters:map=4 "
    "outputs:InferOutputTensor*=5 raw_output_contents:bytes*=6",
}
"""`name:type=number`, with `*` several, with `?` one of those so marked; a map goes from texts to `InferParameter`."""

_LABELS = {"": FieldDescriptorProto.LABEL_OPTIONAL, "*": FieldDescriptorProto.LABEL_REPEATED}


def _described(name: str, fields: str) -> DescriptorProto:
    found = DescriptorProto(name=name)
    for field in fields.split():
        called, _, rest = field.partition(":")
        kind, _, number = rest.partition("=")
        one = found.field.add(name=called, number=int(number), label=_LABELS["*" if kind[-1] == "*" else ""])
        if kind.endswith("?"):
            if not found.oneof_decl:
                found.oneof_decl.add(name="choice")
            one.oneof_index = 0
        if kind == "map":
            entry = found.nested_type.add()
            entry.CopyFrom(_described("ParametersEntry", "key:string=1 value:InferParameter=2"))
            entry.options.map_entry = True
            one.label, kind = FieldDescriptorProto.LABEL_REPEATED, f"{name}.ParametersEntry"
        _set_type(one, kind.rstrip("*?"))
    return found


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="everfit/open_inference.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_described(name, fields) for name, fields in _MESSAGES.items())
    pool = DescriptorPool()  # our own: a client's generated code in this process has messages of the same names
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES = _classes()
"""The classes by their names."""
