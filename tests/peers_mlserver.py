"""
A model on MLServer: it makes a picture larger, or raises when it is told to.

This runs in `.peers` only. MLServer has no binary extension over HTTP: pictures come and go as base64.
"""
# pyright: basic, reportMissingImports=false

import base64
import io

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from PIL import Image


class Upscaler(MLModel):
    """Takes `image` and `scale`, and gives `picture`."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Make a picture larger."""
        tensors = {tensor.name: tensor.data.root for tensor in payload.inputs}
        held, scale = io.BytesIO(), tensors["scale"][0]
        with Image.open(io.BytesIO(base64.b64decode(tensors["image"][0]))) as picture:
            picture.resize((picture.width * scale, picture.height * scale)).save(held, "PNG")
        made = base64.b64encode(held.getvalue()).decode()
        output = ResponseOutput(name="picture", shape=[1], datatype="BYTES", data=[made])
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
