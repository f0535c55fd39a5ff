"""The emulated providers as lethe.toml has them: one table for each adapter, all of them larger pictures."""

from tests.emulators.comfyui import WORKFLOW
from tests.relay import replicate

FAL = """
[provider.fal]
adapter = "fal"
base_url = "{url}"
secret = "env:LETHE_TEST_SECRET"
exposure = "logged"
hosts = ["fal.media"]
options = { platform_url = "{url}/platform/v1", cdn_host = "127.0.0.1" }

[provider.fal.operation.upscale]
model = "fal-ai/upscaler/creative"
input = { image_url = "$image", scale = "$scale:2" }
cost_usd = 0.004
usd_per_s = 0.001
"""
OPENAI = """
[provider.openai_images]
adapter = "openai_images"
base_url = "{url}/v1"
secret = "env:LETHE_TEST_SECRET"
exposure = "logged"

[provider.openai_images.operation.upscale]
model = "gpt-image-2"
input = { prompt = "the same, larger", size = "$scale", output_format = "jpeg" }
cost_usd = 0.04
"""
HTTP = """
[provider.http]
adapter = "http"
base_url = "{url}/api"
secret = "env:LETHE_TEST_SECRET"
exposure = "logged"
options = { auth = "header:x-api-key", health_path = "/status" }

[provider.http.operation.upscale]
input = { image = "$image", scale = "$scale:2" }
output = "/result/images"
cost_usd = 0.002

[provider.http.operation.upscale.options]
path = "/v1/jobs"
id = "/job/id"
state = "/job/state"
queued = ["waiting"]
done = ["finished"]
failed = ["error"]
canceled = ["stopped"]
gone = ["deleted"]
poll_path = "/v1/jobs/{id}"
poll_after_s = 0.05
cancel_path = "/v1/jobs/{id}/cancel"
delete_path = "/v1/jobs/{id}"
deleted = ["upload", "output", "record"]
errors = { pointer = "/error/message", rejected = ["nsfw"], payment = ["credits"] }
"""
COG = """
[provider.cog]
adapter = "cog"
base_url = "{url}"
exposure = "local"

[provider.cog.operation.upscale]
input = { image = "$image", scale = "$scale:2" }
output = "/output"
"""
COMFYUI = """
[provider.comfyui]
adapter = "comfyui"
base_url = "{url}"
exposure = "local"

[provider.comfyui.operation.upscale]
input = { "1.image" = "$image", "2.scale_by" = "$scale:2.0" }
options = { workflow_file = "{workflow}" }
"""
KSERVE = """
[provider.kserve]
adapter = "kserve"
base_url = "{url}"
exposure = "local"

[provider.kserve.operation.upscale]
model = "upscaler"
input = { image = "$image", scale = "$scale:2" }
output = "/picture"

[provider.kserve.operation.upscale.options]
inputs = { image = { shape = [1, -1] }, scale = { shape = [1, 1], datatype = "INT32" } }
"""
_TABLES = {
    "fal": FAL,
    "openai_images": OPENAI,
    "http": HTTP,
    "cog": COG,
    "comfyui": COMFYUI,
    "kserve": KSERVE,
}


def table(adapter: str, url: str) -> str:
    """The table of a provider that is named like its adapter."""
    if adapter == "replicate":
        return replicate(url)
    return _TABLES[adapter].replace("{url}", url).replace("{workflow}", str(WORKFLOW))
