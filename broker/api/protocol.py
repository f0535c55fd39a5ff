"""uvicorn's HTTP protocol with our words for requests that are no HTTP."""

import secrets

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.api.problems import FRAMEWORK_CODES, MEDIA_TYPE, Problem, type_of


class ProblemProtocol(HttpToolsProtocol):
    """Answers what the parser refuses with a problem, as everything else is."""

    def send_400_response(self, msg: str) -> None:
        """Refuse and close; `msg` is the server's own and says nothing to a client."""
        del msg
        code, title = FRAMEWORK_CODES[400]
        request_id = secrets.token_hex(8)
        problem = Problem(
            type=type_of(code),
            title=title,
            status=400,
            detail="This is no HTTP request that can be read in one way only.",
            instance=f"urn:lethe:request:{request_id}",
            code=code,
        )
        body = msgspec.json.encode(problem)
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
