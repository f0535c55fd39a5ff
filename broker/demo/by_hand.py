"""The main job by hand: the curl lines that `lethe up` prints, each of which can be pasted into a shell."""

import shlex
from pathlib import Path


def curl_lines(url: str, photo: Path) -> list[tuple[str, str]]:
    """Return what each step does, and its line."""
    job = '"$LETHE/v1/jobs/$JOB'
    me = 'curl -sH "Authorization: Bearer $TOKEN"'
    return [
        ("where the broker answers", f"LETHE={url}"),
        ("an anonymous user", """TOKEN=$(curl -sX POST $LETHE/v1/users | sed 's/.*"token":"\\([^"]*\\)".*/\\1/')"""),
        ("an id for the job", "JOB=$(cat /proc/sys/kernel/random/uuid)"),
        (
            "send a photo",
            f'{me} -T {shlex.quote(str(photo))} {job}?operation=upscale&scale=2"; echo',
        ),
        ("wait for the end", f'{me} -H "Prefer: wait=25" {job}"; echo'),
        ("save the result", f'{me} -o result.jpg {job}/outputs/0"'),
        ("save the receipt", f'{me} -o receipt.txt {job}/receipt"; cat receipt.txt'),
        ("the keys to verify it with", "curl -so keys.json $LETHE/v1/privacy/keys"),
        ("delete the result", f'{me} -X DELETE {job}"; echo'),
    ]
