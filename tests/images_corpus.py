"""Makes pictures in memory: marked ones, whose every metadata block holds a marker, and hostile ones."""

import base64
import io
import struct
import zipfile
import zlib
from typing import Final

from PIL import Image, ImageCms

from broker.sniff import ImageKind

BLOCKS: Final = {
    ImageKind.JPEG: ("COM", "EXIF", "GPS", "THUMBNAIL", "XMP", "ICC", "IPTC", "TRAILER"),
    ImageKind.PNG: ("TEXT", "EXIF", "GPS", "THUMBNAIL", "XMP", "ICC", "TRAILER"),
    ImageKind.WEBP: ("EXIF", "GPS", "THUMBNAIL", "XMP", "ICC", "TRAILER"),
    ImageKind.HEIC: ("EXIF", "GPS", "XMP", "ICC", "TRAILER"),
}
"""Which blocks of a marked picture hold a marker."""

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
LEFT: Final = (200, 30, 30)
RIGHT: Final = (30, 30, 200)

# 64×32, left half LEFT, right half RIGHT, turned by 90° (irot), with EXIF, GPS, XMP, ICC and a thumbnail item.
_HEIC: Final = """
c-o~^Z%h<N6o0#WcThzzDrk+uT~LeEQ<S77#<a+BBFdQ)Avudpy0^Q>Zo7N8?kx&6O+g7lwGGi$Q)&ygi8g6d(ljlVv=L*Cwn{>x!L*@-
q^2$U0fSOV5Vvo3m%ptan$F$a{N^|By?O7=n>hej5z%W@QII&mrbv;E1S=970dQ_p1f2z|c|=~;Yz(Tz=`g2-
BspdpDa;24Py{(&wMJ}pK%30HDW(w^GPvSX%sSK~OzRXA#C}kcq7idOR#R~zn5IxhJiu*)86-
tE@mEWxc=i;@kiZlHSXGrJj@6}Dbc4o6o~>47fLS&j(>9Y;Nmsz$$l;PyO$A_nl~gW<+yNBxQ4CVhYzn2{hes1*V*n}4E2yz7pGu+(g9tE0f+6
4ZPCB2(#q0u#nzPd8u5+Hcd*|GRZxh8FH&P7w0Z$mkU4_)8cvlkut#C0}Q?(ezN3$}g#2xt<T2$9ciwfMKy)U^F?!tUXLq#X#v0Pl;8Vr`e6Wd
?CR-
$iui7ohVZ9Xr=@wll(#Lsc6hV?+9H&Aj=R|!6jcnK%6JmNNTxEeZ$_y*y_79JqD(!vi3*2+qK7#p$auAG6xGcYG=crJ7n;#G=V#o7LlNRotT`5
qjXV_yMrD1{;@05^o83M7z02QQ9M%-
O%|<(PWAAci^|{;E&|8fsL6h`Q^LtwO5;juGSq{K!y4@;*18@ks6_%X(4)7Ja{AJXj5oa1vmm*)Yb>8pg!Oc)ooAUD0X%80IN&1o`G^ZdEImR6
W2qm#4Y#X@HKS0Ly+>S<Ski<SNk-tc&6E01Ng4EbalAS7GJKUWZR^1C$-
YBkBftzXf0o%BSor@t1A)djnfbclt}c#Xg_+`A9A?x<rbrf}Ny%yJvAStJ;`^>b6JHXu~kbfs%`~P?f4BbKk^7a%fLUT1+QCRQ;cOv-
U~%=8Kl!2Rv<EwRn=Xgsz{uHkX=ac)if}mUx7l7(KSv*KDsnlB!HTcQjD0I+}6TH-
N)=lyNpTkUEz%Az}+8b3E2RikT*@88bQ4MI~%Lf;gkzR(O`YmTzQH?T)ei{LK#ISc+kcZ12B5UY<63?ZwXCcQ5uGX*Gu5YW+pK{o%yL-ZMY$&*
=N})=wi>DlRvCG}O7M<aI~aozLbC!l50$?{fbL2*1(3r^R>pyqx<BjvW4ccj&zGb!x`(+U~Vi$}`umxlzG$n@=r%=3#N+z@x^~_p+AmBM+<fGz
J2YZDxU?lFhi6V&6n9GK&QBhEMZq^Q|SJ>>#nuDiMFEc-
v%+(AJX+^e!T{(!^=l#eZlO1@~A=TdFr#D=PV8d1017C=fISwrrRdAVx^ihL;~Msx1h<H*~A%&GD<Fj}xxD(o<g>T7T6zxAMzDPy6?oDJOP6IG
ZVV<+kwp2Zb5NM1Qd`*z(vI?f&89%RR?>=?h<d+TQUuN7#n<
"""


def marker(block: str) -> bytes:
    """Name what must not survive."""
    return f"LETHE-MARKER-{block}-7f3a".encode()


def two_halves(width: int = 64, height: int = 32) -> Image.Image:
    """Draw a picture that tells left from right."""
    picture = Image.new("RGB", (width, height), LEFT)
    picture.paste(RIGHT, (width // 2, 0, width, height))
    return picture


def saved(picture: Image.Image, name: str, **options: object) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


def marked(kind: ImageKind) -> bytes:
    """Make a valid picture whose every block holds a marker."""
    return _MARKED[kind]() + marker("TRAILER")


def srgb_profile() -> bytes:
    """Make an sRGB profile with a marker that its size field covers."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + marker("ICC")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return len(profile).to_bytes(4, "big") + profile[4:]


def red_is_green_profile() -> bytes:
    """Make a profile that calls green what sRGB calls red, and the other way round."""
    return srgb_profile().replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


def tiff(orientation: int = 1) -> bytes:
    """Make an EXIF block with a description, a place and a thumbnail, each of them marked."""
    description, place = marker("EXIF") + b"\0", marker("GPS") + b"\0"
    thumbnail = saved(Image.new("RGB", (8, 8)), "JPEG", comment=marker("THUMBNAIL"))
    first, gps, second, data = 8, 8 + 2 + 3 * 12 + 4, 8 + 42 + 18, 8 + 42 + 18 + 30
    at_place, at_thumbnail = data + len(description), data + len(description) + len(place)
    blocks = struct.pack("<2sHI", b"II", 42, first)
    blocks += _ifd((0x010E, 2, len(description), data), (0x0112, 3, 1, orientation), (0x8825, 4, 1, gps), after=second)
    blocks += _ifd((29, 2, len(place), at_place))
    blocks += _ifd((0x0201, 4, 1, at_thumbnail), (0x0202, 4, 1, len(thumbnail)))
    return blocks + description + place + thumbnail


def _ifd(*entries: tuple[int, int, int, int], after: int = 0) -> bytes:
    return (
        struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + struct.pack("<I", after)
    )


def _xmp() -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + marker("XMP") + b"</x:xmpmeta>"


def with_segments(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Put segments right after the start of a JPEG."""
    return jpeg[:2] + b"".join(struct.pack(">BBH", 0xFF, m, len(b) + 2) + b for m, b in segments) + jpeg[2:]


def _marked_jpeg() -> bytes:
    iptc = b"\x1c\x02\x78" + struct.pack(">H", len(marker("IPTC"))) + marker("IPTC")
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc
    return with_segments(
        saved(two_halves(), "JPEG", quality=95),
        (0xE1, b"Exif\0\0" + tiff()),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + _xmp()),
        (0xE2, b"ICC_PROFILE\0\x01\x01" + srgb_profile()),
        (0xED, b"Photoshop 3.0\0" + resource),
        (0xFE, marker("COM")),
    )


def chunk(name: bytes, body: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Put chunks right after the header of a PNG."""
    return png[:33] + b"".join(chunks) + png[33:]


def _marked_png() -> bytes:
    return with_chunks(
        saved(two_halves(), "PNG"),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(srgb_profile(), 0)),  # stored, so that the marker can be seen
        chunk(b"tEXt", b"Comment\0" + marker("TEXT")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _xmp()),
        chunk(b"eXIf", tiff()),
    )


def _marked_webp() -> bytes:
    return saved(two_halves(), "WEBP", quality=95, exif=tiff(), xmp=_xmp(), icc_profile=srgb_profile())


def _marked_heic() -> bytes:
    return zlib.decompress(base64.b85decode("".join(_HEIC.split())))


_MARKED: Final = {
    ImageKind.JPEG: _marked_jpeg,
    ImageKind.PNG: _marked_png,
    ImageKind.WEBP: _marked_webp,
    ImageKind.HEIC: _marked_heic,
}


def huge_png(width: int = 20_000, height: int = 10_000) -> bytes:
    """Make a valid PNG of 200 megapixels in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    data = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def long_gif(frames: int = 10_000) -> bytes:
    """Make an animated GIF of many frames."""
    frame = b"\x21\xf9\x04\x00\x01\x00\x00\x00" + b"\x2c\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02\x44\x01\0"
    return b"GIF89a\x01\0\x01\0\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"


def bomb(name: bytes) -> bytes:
    """Make a PNG with a chunk (iCCP or zTXt) that unpacks to 64 MB."""
    packed = zlib.compress(bytes(64 << 20), 9)
    return with_chunks(saved(two_halves(), "PNG"), chunk(name, b"name\0\0" + packed))


def animated(name: str) -> bytes:
    """Make a picture of three frames, of which only the first has two halves."""
    rest = [Image.new("RGB", (64, 32), (0, 250, 0)), Image.new("RGB", (64, 32), (250, 250, 0))]
    return saved(two_halves(), name, save_all=True, append_images=rest, duration=50)


def zip_archive() -> bytes:
    """Make a small archive without compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("payload.txt", "nothing to see")
    return file.getvalue()


def not_pictures() -> dict[str, bytes]:
    """Name inputs that must be refused, whatever refuses them."""
    jpeg, png, webp = (saved(two_halves(), name) for name in ("JPEG", "PNG", "WEBP"))
    heic = _marked_heic()
    return {
        "nothing": b"",
        "text": b"this is a text file, and not a picture at all" * 4,
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "long_gif": long_gif(),
        "gif_behind_png_signature": PNG_SIGNATURE + long_gif(),
        "huge_png": huge_png(),
        "bomb_profile": bomb(b"iCCP"),
        "bomb_text": bomb(b"zTXt"),
        "jpeg_and_zip": jpeg + zip_archive(),
        "png_and_html": png + b"<html><script>alert(1)</script></html>",
        "webp_and_pdf": webp + b"\n%PDF-1.7",
        "heic_and_zip": heic + zip_archive(),
        "jpeg_cut": jpeg[: len(jpeg) // 2],
        "jpeg_head": jpeg[:20],
        "png_cut": png[: len(png) // 2],
        "png_signature": PNG_SIGNATURE,
        "webp_cut": webp[: len(webp) // 2],
        "heic_cut": heic[: len(heic) - 400],
        "heic_head": heic[:40],
    }
