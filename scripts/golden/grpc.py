"""The descriptor set that tests of transcoding read.

    python3 -m venv venv && venv/bin/pip install -r requirements-grpc.txt
    venv/bin/python grpc.py

Writes crates/gateway/tests/grpc/scores.binpb from scores.proto beside it, and imports.binpb: the same without what
it imports, which is no whole set.
"""

import pathlib
import sys

sys.path.pop(0)  # this file is called like the library

import google.api
import grpc_tools
from grpc_tools import protoc

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/gateway/tests/grpc"


def write(name, *more):
    arguments = [
        "protoc",
        f"--proto_path={FOLDER}",
        f"--proto_path={pathlib.Path(list(google.api.__path__)[0]).parents[1]}",
        f"--proto_path={pathlib.Path(grpc_tools.__file__).parent / '_proto'}",
        f"--descriptor_set_out={FOLDER / name}",
        *more,
        "scores.proto",
    ]
    if protoc.main(arguments) != 0:
        sys.exit(f"{name} was not written")


write("scores.binpb", "--include_imports")
write("imports.binpb")
