"""
OpenAI's own client orders pictures: from words, from one picture, from two, and where it is refused.

This runs in `.peers` only: `python peers_openai.py BASE_URL SECRET MODEL PICTURE`. It prints what it read, as JSON.
"""
# pyright: basic, reportMissingImports=false
# ruff: noqa: T201  what is printed is the answer to the test

import base64
import json
import sys
from pathlib import Path

import openai

base_url, secret, model, path = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=secret, max_retries=0)


def told(answer: openai.types.ImagesResponse) -> dict[str, object]:
    """Write down what the client made of an answer."""
    pictures = [base64.b64decode(picture.b64_json or "").hex() for picture in answer.data or []]
    tokens = answer.usage.total_tokens if answer.usage else None
    return {"pictures": pictures, "tokens": tokens, "format": answer.output_format, "created": answer.created}


def refused(key: str, **given: object) -> list[object]:
    """Write down how the client saw a refusal."""
    try:
        client.with_options(api_key=key).images.generate(**given)
    except openai.APIStatusError as exc:
        return [type(exc).__name__, exc.status_code, exc.code]
    return []


picture = Path(path)
report = {
    "moderated": refused(secret, model=model, prompt="a house"),
    "no_quota": refused(secret, model=model, prompt="a house"),
    "generated": told(client.images.generate(model=model, prompt="a house", n=2, output_format="jpeg")),
    "edited": told(client.images.edit(model=model, prompt="a house", image=picture)),
    "composed": told(client.images.edit(model=model, prompt="a house", image=[picture, picture])),
    "models": [one.id for one in client.models.list()],
    "unknown_model": refused(secret, model="other", prompt="a house"),
    "wrong_key": refused("sk-other", model=model, prompt="a house"),
}
print(json.dumps(report))
