"""
A model on KServe's own Python server: it makes a picture larger, or raises when it is told to.

This runs in `.peers` only. Pictures come as UINT8 rows, or as base64 in JSON, and go back in the same form.
"""
# pyright: basic, reportMissingImports=false

import base64
import io
import sys

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from PIL import Image


class Upscaler(Model):
    """Takes `image` and `scale`, and gives `picture`."""

    def __init__(self) -> None:
        super().__init__("upscaler")
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        """Make a picture larger."""
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        image, scale = tensors["image"], int(tensors["scale"].as_numpy().ravel()[0])
        is_row = image.datatype == "UINT8"
        given = image.as_numpy().tobytes() if is_row else base64.b64decode(image.as_numpy().ravel()[0])
        held = io.BytesIO()
        with Image.open(io.BytesIO(given)) as picture:
            picture.resize((picture.width * scale, picture.height * scale)).save(held, "PNG")
        made = held.getvalue() if is_row else base64.b64encode(held.getvalue())
        output = InferOutput("picture", [1], "BYTES")
        output.set_data_from_numpy(np.array([made], dtype=object), binary_data=is_row)
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1).start([Upscaler()])
