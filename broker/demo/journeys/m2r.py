"""M2R: a drawing made in house, a sealed gallery on two devices, and an account that goes."""

from typing import Final

from broker.client import ServerRefused
from broker.demo.phone import Phone
from broker.demo.stage import PHOTO, Journey, Stage
from broker.opener import CannotOpen
from broker.rights import ERASED
from broker.sniff import dimensions, sniff
from broker.up import Stack


async def play(stage: Stage) -> None:
    """Play it."""
    report, url = stage.report, stage.stack.url
    async with Phone.at(url, report) as phone:
        report.step("A user opens the app: an anonymous id, what is agreed to, a key pair")
        await phone.begin()
        await phone.agree()
        await phone.register()
        drawing = await _draw(stage, phone)
        await _second_device(stage, phone, drawing)
        await _refused(stage, phone)
        await _delete(stage, phone, drawing)


async def _draw(stage: Stage, phone: Phone) -> str:
    report, photo = stage.report, PHOTO.read_bytes()
    report.step("Two photos are redrawn and enlarged in house")
    drawn = await phone.order("restyle", {"filter": "pencil", "strength": 60}, [photo])
    await phone.order("upscale", {"scale": 2}, [photo])
    job = await stage.evidence.job(phone.user.user_id, drawn.id)
    await stage.check_uploads(job)
    served, opened = await phone.client.output(drawn.id, 0), await phone.open(drawn.id)
    report.check("what the broker keeps and serves is no picture", sniff(served) is None)
    report.check("the phone opens it: the drawing, as large as the photo", dimensions(opened) == dimensions(photo))
    stage.output.write_bytes(opened)
    report.say(f"saved as {stage.output}")
    return drawn.id


async def _second_device(stage: Stage, phone: Phone, drawing: str) -> None:
    report = stage.report
    report.step("The same gallery on a tablet")
    async with Phone.at(stage.stack.url, report, name="the tablet", token=phone.user.token) as tablet:
        await tablet.register()
        gallery = await tablet.gallery()
        report.check(f"it lists {len(gallery)} results, newest first", gallery == await phone.gallery())
        report.check("it cannot open one yet: they were sealed before it was there", await _is_shut(tablet, drawing))
        handed = await phone.hand_on_to(tablet)
        opened = [await tablet.open(job_id, n) for job_id, n in gallery]
        report.check(f"the phone hands on {handed} keys; the tablet opens all of them", all(map(sniff, opened)))
        same = await phone.open(drawing) == await tablet.open(drawing)
        report.check("both see the same drawing", same)


async def _is_shut(phone: Phone, job_id: str) -> bool:
    try:
        await phone.open(job_id)
    except CannotOpen:
        return True
    return False


async def _refused(stage: Stage, phone: Phone) -> None:
    stage.report.step("The user asks for a film, for which there is no model in house")
    try:
        await phone.client.post({"operation": "animate", "parameters": {}}, [PHOTO.read_bytes()])
    except ServerRefused as exc:
        stage.report.check(f"it is refused, and nothing of the photo stays: {exc}", is_true=True)
    else:
        stage.report.check("it is refused", is_true=False)


async def _delete(stage: Stage, phone: Phone, drawing: str) -> None:
    report = stage.report
    report.step("The user deletes the drawing, then the account")
    await phone.client.ask("DELETE", f"/v1/jobs/{drawing}/outputs/0")
    report.check("the drawing is gone from the gallery, the other picture is there", len(await phone.gallery()) == 1)
    erased = await phone.client.ask("DELETE", "/v1/me")
    done = erased["request"]["status"] == "completed"
    report.check(f"everything is erased at once, with {len(erased['receipts'])} receipts", done)
    report.check("the id is nobody's any more", await _is_nobody(phone))
    left = _files(stage.stack)
    report.check("no file is left, but for a mark without content: no backup may bring this id back", left == {ERASED})


async def _is_nobody(phone: Phone) -> bool:
    try:
        await phone.gallery()
    except ServerRefused as exc:
        return exc.code == "unauthenticated"
    return False


def _files(stack: Stack) -> set[str]:
    """The folders of the blob directory in which there are files."""
    blobs = stack.directory / "blobs"
    return {str(path.parent.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()}


JOURNEY: Final = Journey(
    profile="m2r",
    story="redraws photos in house, keeps a sealed gallery on two devices, deletes one and then everything",
    play=play,
)
