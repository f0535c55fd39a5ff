"""Two operators, whom a broker lets in, for tests of what needs one or both."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from broker.operators import new_key
from broker.settings import Settings
from tests.api_client import Api


class Operators:
    """Their keys, by name, and the settings of a broker that knows them."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        made = {name: new_key(name) for name in ("alice", "bob")}
        self.keys = {name: key for name, (key, _) in made.items()}
        file = folder / "operators"
        file.write_text("".join(f"{line}\n" for _, line in made.values()))
        self.settings = msgspec.structs.replace(settings, operator_keys_file=str(file))

    async def ask(
        self, api: Api, name: str, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Send one request to the operator's listener as one of them."""
        headers = {"Authorization": f"Bearer {self.keys.get(name, name)}"}
        return await api.http.request(method, api.operator_url + path, json=body, headers=headers)
