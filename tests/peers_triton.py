"""
Triton's own client asks a server of the Open Inference Protocol for a larger picture, with the binary extension.

This runs in `.peers` only: `python peers_triton.py HOST:PORT PICTURE`. It prints what it read, as JSON.
"""
# pyright: basic, reportMissingImports=false
# ruff: noqa: T201  what is printed is the answer to the test

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

host, path = sys.argv[1:]
client = triton.InferenceServerClient(host)
image = triton.InferInput("image", [1, 1], "BYTES")
image.set_data_from_numpy(np.array([[Path(path).read_bytes()]], dtype=object), binary_data=True)
scale = triton.InferInput("scale", [1, 1], "INT32")
scale.set_data_from_numpy(np.array([[2]], dtype=np.int32), binary_data=False)
wanted = triton.InferRequestedOutput("picture", binary_data=True)
answer = client.infer("upscaler", [image, scale], outputs=[wanted], request_id="a-1")
picture = answer.as_numpy("picture")
told = {
    "is_ready": client.is_server_ready() and client.is_model_ready("upscaler"),
    "metadata": client.get_model_metadata("upscaler"),
    "extensions": client.get_server_metadata()["extensions"],
    "id": answer.get_response()["id"],
    "shape": list(picture.shape),
    "picture": picture.ravel()[0].hex(),
}
try:
    client.infer("other", [image, scale])
except triton.InferenceServerException as exc:
    told["refused"] = [exc.status(), exc.message()]
print(json.dumps(told))
