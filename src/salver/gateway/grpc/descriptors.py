"""The services that this port offers, described as protobuf describes itself: what reflection hands out.

A message is a name and its fields, one a line: a label or nothing, a type, a name, a number. A type that is no scalar
is a message or an enum of the same file. `map` is a map from string to that type, `choice` a member of the message's
one oneof.
"""

from __future__ import annotations

from collections.abc import Iterator

from salver.protocols.protobuf import block, integer, string

_MODEL_OF_A_REPOSITORY = """string repository_name 1
        string model_name 2
        map ModelRepositoryParameter parameters 3"""
INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1\nstring version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1\nstring version 2\nrepeated string extensions 3",
    "ModelMetadataRequest": "string name 1\nstring version 2",
    "ModelMetadataResponse": """string name 1
        repeated string versions 2
        string platform 3
        repeated ModelMetadataResponse.TensorMetadata inputs 4
        repeated ModelMetadataResponse.TensorMetadata outputs 5""",
    "ModelMetadataResponse.TensorMetadata": """string name 1
        string datatype 2
        repeated int64 shape 3
        map InferParameter parameters 4""",
    "ModelConfigRequest": "string name 1\nstring version 2",
    "ModelConfigResponse": "ModelConfig config 1",
    "ModelConfig": """string name 1
        string platform 2
        ModelVersionPolicy version_policy 3
        int32 max_batch_size 4
        repeated ModelInput input 5
        repeated ModelOutput output 6
        string backend 17""",
    "ModelVersionPolicy": "ModelVersionPolicy.Specific specific 3",
    "ModelVersionPolicy.Specific": "repeated int64 versions 1",
    "ModelInput": "string name 1\nDataType data_type 2\nrepeated int64 dims 4\nbool optional 8",
    "ModelOutput": "string name 1\nDataType data_type 2\nrepeated int64 dims 3",
    "InferParameter": """choice bool bool_param 1
        choice int64 int64_param 2
        choice string string_param 3
        choice double double_param 4
        choice uint64 uint64_param 5""",
    "InferTensorContents": """repeated bool bool_contents 1
        repeated int32 int_contents 2
        repeated int64 int64_contents 3
        repeated uint32 uint_contents 4
        repeated uint64 uint64_contents 5
        repeated float fp32_contents 6
        repeated double fp64_contents 7
        repeated bytes bytes_contents 8""",
    "ModelInferRequest": """string model_name 1
        string model_version 2
        string id 3
        map InferParameter parameters 4
        repeated ModelInferRequest.InferInputTensor inputs 5
        repeated ModelInferRequest.InferRequestedOutputTensor outputs 6
        repeated bytes raw_input_contents 7""",
    "ModelInferRequest.InferInputTensor": """string name 1
        string datatype 2
        repeated int64 shape 3
        map InferParameter parameters 4
        InferTensorContents contents 5""",
    "ModelInferRequest.InferRequestedOutputTensor": "string name 1\nmap InferParameter parameters 2",
    "ModelInferResponse": """string model_name 1
        string model_version 2
        string id 3
        map InferParameter parameters 4
        repeated ModelInferResponse.InferOutputTensor outputs 5
        repeated bytes raw_output_contents 6""",
    "ModelInferResponse.InferOutputTensor": """string name 1
        string datatype 2
        repeated int64 shape 3
        map InferParameter parameters 4
        InferTensorContents contents 5""",
    "ModelStreamInferResponse": "string error_message 1\nModelInferResponse infer_response 2",
    "RepositoryIndexRequest": "string repository_name 1\nbool ready 2",
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models 1",
    "RepositoryIndexResponse.ModelIndex": "string name 1\nstring version 2\nstring state 3\nstring reason 4",
    "RepositoryModelLoadRequest": _MODEL_OF_A_REPOSITORY,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _MODEL_OF_A_REPOSITORY,
    "RepositoryModelUnloadResponse": "",
    "ModelRepositoryParameter": """choice bool bool_param 1
        choice int64 int64_param 2
        choice string string_param 3
        choice bytes bytes_param 4""",
}
INFERENCE_METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
                     "ModelInfer", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")  # fmt: skip
HEALTH = {
    "HealthCheckRequest": "string service 1",
    "HealthCheckResponse": "HealthCheckResponse.ServingStatus status 1",
}
DATA_TYPES = ("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
              "FP32", "FP64", "STRING", "BF16")  # fmt: skip
"""The data types of ModelConfig without their `TYPE_`, each at its number."""
_ENUMS = {
    "inference.DataType": [f"TYPE_{name}" for name in DATA_TYPES],
    "grpc.health.v1.HealthCheckResponse.ServingStatus": ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"],
}
_SCALARS = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12,
            "uint32": 13}  # fmt: skip
_MESSAGE, _ENUM = 11, 14
_OPTIONAL, _REPEATED = 1, 3


def inference_file() -> bytes:
    """The FileDescriptorProto of the inference service."""
    methods = [_method("inference", name, f"{name}Request", f"{name}Response") for name in INFERENCE_METHODS]
    stream = _method("inference", "ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse")
    methods.append(stream + integer(5, 1) + integer(6, 1))
    return _file("inference", INFERENCE, "GRPCInferenceService", methods)


def health_file() -> bytes:
    """The FileDescriptorProto of the health service."""
    check = _method("grpc.health.v1", "Check", "HealthCheckRequest", "HealthCheckResponse")
    watch = _method("grpc.health.v1", "Watch", "HealthCheckRequest", "HealthCheckResponse") + integer(6, 1)
    return _file("grpc.health.v1", HEALTH, "Health", [check, watch])


def file_name(package: str) -> str:
    """The name of a package's file."""
    return f"salver/{package}.proto"


def _file(package: str, messages: dict[str, str], service: str, methods: list[bytes]) -> bytes:
    top = [name for name in messages if "." not in name]
    return b"".join(
        [
            string(1, file_name(package)),
            string(2, package),
            *(block(4, _message(package, name, messages)) for name in top),
            *(block(5, enum) for enum in _enums(package)),
            block(6, string(1, service) + b"".join(block(2, method) for method in methods)),
            string(12, "proto3"),
        ]
    )


def _method(package: str, name: str, request: str, response: str) -> bytes:
    return string(1, name) + string(2, f".{package}.{request}") + string(3, f".{package}.{response}")


def _message(package: str, name: str, messages: dict[str, str]) -> bytes:
    parts = [string(1, name.rpartition(".")[2])]
    choices = False
    for line in messages[name].splitlines():
        *label, kind, field, number = line.split()
        choices = choices or label == ["choice"]
        if label == ["map"]:
            entry = field.title().replace("_", "") + "Entry"
            key = _field(package, "", "string", "key 1")
            value = _field(package, "", kind, "value 2")
            parts.append(block(3, string(1, entry) + block(2, key) + block(2, value) + block(7, integer(7, 1))))
            kind = f"{name}.{entry}"
        parts.append(block(2, _field(package, "".join(label), kind, f"{field} {number}")))
    parts += [block(3, _message(package, nested, messages)) for nested in messages if nested.startswith(name + ".")]
    parts += [block(4, enum) for enum in _enums(f"{package}.{name}")]
    if choices:
        parts.append(block(8, string(1, "parameter_choice")))
    return b"".join(parts)


def _enums(scope: str) -> Iterator[bytes]:
    """The enums of a package or a message."""
    for name, values in _ENUMS.items():
        where, _, short = name.rpartition(".")
        if where == scope:
            yield string(1, short) + b"".join(block(2, string(1, v) + _always(2, at)) for at, v in enumerate(values))


def _always(number: int, value: int) -> bytes:
    """An integer field that is written even where it is 0."""
    return integer(number, value) or bytes([number << 3, 0])


def _field(package: str, label: str, kind: str, called: str) -> bytes:
    name, number = called.split()
    many = label in ("repeated", "map")
    parts = [string(1, name), integer(3, int(number)), integer(4, _REPEATED if many else _OPTIONAL)]
    if kind in _SCALARS:
        parts.append(integer(5, _SCALARS[kind]))
    else:
        full = f"{package}.{kind}"
        parts += [integer(5, _ENUM if full in _ENUMS else _MESSAGE), string(6, f".{full}")]
    if label == "choice":
        parts.append(_always(9, 0))
    return b"".join(parts)
