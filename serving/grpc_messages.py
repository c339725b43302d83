"""The messages of the Open Inference Protocol's gRPC service, made of their fields' numbers when this is imported.

The numbers are the protocol's (https://github.com/kserve/open-inference-protocol, `open_inference_grpc.proto`); those
of the repository, a model's configuration and two kinds of parameters are Triton's, those of health grpc.health.v1's.
Nested messages stand beside the others: what they are called is not on the wire.
Generated code would hold for one release of protobuf only.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"

_TENSOR = (
    "name:string=1 datatype:string=2 shape:int64*=3 parameters:map(InferParameter)=4 contents:InferTensorContents=5"
)
_ORDER = "repository_name:string=1 model_name:string=2 parameters:map(ModelRepositoryParameter)=3"
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
    "InferRequestedOutputTensor": "name:string=1 parameters:map(InferParameter)=2",
    "InferOutputTensor": _TENSOR,
    "ModelConfigRequest": "name:string=1 version:string=2",
    "ModelConfigResponse": "config:ModelConfig=1",
    "ModelConfig": "name:string=1 platform:string=2 version_policy:ModelVersionPolicy=3 max_batch_size:int32=4 "
    "input:ModelInput*=5 output:ModelOutput*=6 parameters:map(ModelParameter)=14 backend:string=17",
    "ModelVersionPolicy": "specific:Specific=3",
    "Specific": "versions:int64*=1",
    "ModelInput": "name:string=1 data_type:DataType=2 dims:int64*=4",
    "ModelOutput": "name:string=1 data_type:DataType=2 dims:int64*=3",
    "ModelParameter": "string_value:string=1",
    "ModelInferRequest": "model_name:string=1 model_version:string=2 id:string=3 parameters:map(InferParameter)=4 "
    "inputs:InferInputTensor*=5 outputs:InferRequestedOutputTensor*=6 raw_input_contents:bytes*=7",
    "ModelInferResponse": "model_name:string=1 model_version:string=2 id:string=3 parameters:map(InferParameter)=4 "
    "outputs:InferOutputTensor*=5 raw_output_contents:bytes*=6",
    "RepositoryIndexRequest": "repository_name:string=1 ready:bool=2",
    "RepositoryIndexResponse": "models:ModelIndex*=1",
    "ModelIndex": "name:string=1 version:string=2 state:string=3 reason:string=4",
    "RepositoryModelLoadRequest": _ORDER,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _ORDER,
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": "bool_param:bool?=1 int64_param:int64?=2 string_param:string?=3 bytes_param:bytes?=4",
    "HealthCheckRequest": "service:string=1",
    "HealthCheckResponse": "status:int32=1",
}
"""`name:type=number`, with `*` several, with `?` one of those so marked; `map(TYPE)` goes from texts to messages."""

_DATA_TYPES = {"TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_FP64": 12, "TYPE_STRING": 13}
"""Of Triton's `DataType` those that a served model has."""

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
        if kind.startswith("map("):
            entry = found.nested_type.add()
            entry.CopyFrom(_described("ParametersEntry", f"key:string=1 value:{kind[4:-1]}=2"))
            entry.options.map_entry = True
            one.label, kind = FieldDescriptorProto.LABEL_REPEATED, f"{name}.ParametersEntry"
        _set_type(one, kind.rstrip("*?"))
    return found


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind == "DataType":
        field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{PACKAGE}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="everfit/open_inference.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_described(name, fields) for name, fields in _MESSAGES.items())
    values = [EnumValueDescriptorProto(name=name, number=number) for name, number in _DATA_TYPES.items()]
    file.enum_type.add(name="DataType", value=values)
    pool = DescriptorPool()  # our own: a client's generated code in this process has messages of the same names
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES = _classes()
"""The classes by their names."""
