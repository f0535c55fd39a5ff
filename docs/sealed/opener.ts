/**
 * Opens what Lethe has sealed to a device: the reference in TypeScript, whose types can be erased. It needs WebCrypto with
 * X25519 (Node 22, current browsers) and nothing else; docs/sealed.md explains it, vectors.json has known answers. The KEMs
 * are x25519 and p256: X-Wing needs ML-KEM, which WebCrypto does not have; opener.py has it.
 */

export type Bytes = Uint8Array<ArrayBuffer>;
export type Kem = "x25519" | "p256";
export interface Device {
  kem: Kem;
  privateKey: CryptoKey;
  publicKey: Bytes;
}

const CHUNK_BYTES = 16 * 1024;
const TAG_BYTES = 16;
const SALT_BYTES = 24;
const HEADER_BYTES = SALT_BYTES + 32;
const LABEL = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const KEMS = {
  x25519: { id: 0x0020, encBytes: 32, algorithm: { name: "X25519" } },
  p256: { id: 0x0010, encBytes: 65, algorithm: { name: "ECDH", namedCurve: "P-256" } },
};
const subtle = globalThis.crypto.subtle;

/** Say what a wrapped key is of; ids are UUIDs in lower case. */
export function keyInfo(jobId: string, n: number, deviceId: string, kem: Kem): Bytes {
  return utf8(`lethe/sealed-key/v1 ${jobId} ${n} ${deviceId} ${kem}`);
}

/** Say what a ciphertext is of. */
export function outputContext(jobId: string, n: number): Bytes {
  return utf8(`lethe/sealed-output/v1 ${jobId} ${n}`);
}

/** Say the same of the ciphertext of a thumbnail. */
export function thumbnailContext(jobId: string, n: number): Bytes {
  return utf8(`lethe/sealed-thumbnail/v1 ${jobId} ${n}`);
}

/** Make a device; its private key cannot be taken out of the browser's store. */
export async function newDevice(kem: Kem): Promise<Device> {
  const pair = (await subtle.generateKey(KEMS[kem].algorithm, false, ["deriveBits"])) as CryptoKeyPair;
  return { kem, privateKey: pair.privateKey, publicKey: await rawPublic(pair.publicKey) };
}

/** Read a device from raw keys: 32 bytes private; public 32 (x25519), or 65 uncompressed (p256). */
export async function readDevice(kem: Kem, privateKey: Bytes, publicKey: Bytes): Promise<Device> {
  const d = base64url(privateKey);
  const jwk =
    kem === "x25519"
      ? { kty: "OKP", crv: "X25519", d, x: base64url(publicKey) }
      : { kty: "EC", crv: "P-256", d, x: base64url(publicKey.slice(1, 33)), y: base64url(publicKey.slice(33)) };
  const key = await subtle.importKey("jwk", jwk, KEMS[kem].algorithm, false, ["deriveBits"]);
  return { kem, privateKey: key, publicKey };
}

/** Return the 32 bytes of an output's key; rejects where key, info or device is another one (HPKE base mode). */
export async function openKey(device: Device, wrapped: Bytes, info: Bytes): Promise<Bytes> {
  const { encBytes } = KEMS[device.kem];
  const enc = wrapped.slice(0, encBytes);
  const dh = await agree(device.kem, device.privateKey, enc);
  const { key, iv } = await schedule(device.kem, dh, join(enc, device.publicKey), info, "decrypt");
  return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, wrapped.slice(encBytes)));
}

/** Wrap an output's key to another device, whose own id and KEM stand in `info`. */
export async function wrapKey(kem: Kem, publicKey: Bytes, outputKey: Bytes, info: Bytes): Promise<Bytes> {
  const ephemeral = await newDevice(kem);
  const dh = await agree(kem, ephemeral.privateKey, publicKey);
  const { key, iv } = await schedule(kem, dh, join(ephemeral.publicKey, publicKey), info, "encrypt");
  return join(ephemeral.publicKey, new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv }, key, outputKey)));
}

/** Return the plaintext; rejects where the ciphertext was changed, cut or made for something else. */
export async function openSealed(outputKey: Bytes, ciphertext: Bytes, context: Bytes): Promise<Bytes> {
  if (ciphertext.length < HEADER_BYTES + TAG_BYTES) throw new Error("cut");
  const salt = ciphertext.slice(0, SALT_BYTES);
  const derived = await expand("SHA-512", outputKey, join(utf8(LABEL), salt, context), 76);
  const commitment = ciphertext.slice(SALT_BYTES, HEADER_BYTES);
  if (derived.slice(44).some((byte, at) => byte !== commitment[at])) throw new Error("another key or context");
  const key = await subtle.importKey("raw", derived.slice(0, 32), "AES-GCM", false, ["decrypt"]);
  const size = CHUNK_BYTES + TAG_BYTES;
  const pieces: Bytes[] = [];
  // The last chunk is the only short one, perhaps an empty one: without it the message was cut.
  for (let number = 0, at = HEADER_BYTES; number <= Math.floor((ciphertext.length - HEADER_BYTES) / size); number++) {
    const iv = numbered(derived.slice(32, 44), number);
    pieces.push(new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, ciphertext.slice(at, at + size))));
    at += size;
  }
  return join(...pieces);
}

async function agree(kem: Kem, privateKey: CryptoKey, publicKey: Bytes): Promise<Bytes> {
  const theirs = await subtle.importKey("raw", publicKey, KEMS[kem].algorithm, false, []);
  const algorithm = { name: KEMS[kem].algorithm.name, public: theirs };
  return new Uint8Array(await subtle.deriveBits(algorithm, privateKey, 256));
}

/** RFC 9180: ExtractAndExpand of the KEM, then the key schedule of base mode. */
async function schedule(kem: Kem, dh: Bytes, kemContext: Bytes, info: Bytes, use: "encrypt" | "decrypt"): Promise<{ key: CryptoKey; iv: Bytes }> {
  const id = [KEMS[kem].id >> 8, KEMS[kem].id & 0xff];
  const ofKem = labeled(join(utf8("KEM"), new Uint8Array(id)));
  const ofHpke = labeled(join(utf8("HPKE"), new Uint8Array([...id, 0, 1, 0, 2])));
  const none = new Uint8Array();
  const shared = await ofKem.expand(await ofKem.extract(none, "eae_prk", dh), "shared_secret", kemContext, 32);
  const pskIdHash = await ofHpke.extract(none, "psk_id_hash", none);
  const infoHash = await ofHpke.extract(none, "info_hash", info);
  const context = join(new Uint8Array([0]), pskIdHash, infoHash);
  const secret = await ofHpke.extract(shared, "secret", none);
  const raw = await ofHpke.expand(secret, "key", context, 32);
  const key = await subtle.importKey("raw", raw, "AES-GCM", false, [use]);
  return { key, iv: await ofHpke.expand(secret, "base_nonce", context, 12) };
}

interface Labeled {
  extract: (salt: Bytes, label: string, material: Bytes) => Promise<Bytes>;
  expand: (secret: Bytes, label: string, info: Bytes, length: number) => Promise<Bytes>;
}

function labeled(suite: Bytes): Labeled {
  const version = utf8("HPKE-v1");
  return {
    extract: (salt, label, material) =>
      // WebCrypto takes no empty key; HMAC fills up with zeros anyway.
      hmac("SHA-256", salt.length ? salt : new Uint8Array(32), join(version, suite, utf8(label), material)),
    expand: (secret, label, info, length) =>
      expand("SHA-256", secret, join(new Uint8Array([length >> 8, length & 0xff]), version, suite, utf8(label), info), length),
  };
}

/** HKDF-Expand (RFC 5869). */
async function expand(hash: string, secret: Bytes, info: Bytes, length: number): Promise<Bytes> {
  let made: Bytes = new Uint8Array();
  for (let last: Bytes = new Uint8Array(), number = 1; made.length < length; number++) {
    last = await hmac(hash, secret, join(last, info, new Uint8Array([number])));
    made = join(made, last);
  }
  return made.slice(0, length);
}

async function hmac(hash: string, secret: Bytes, data: Bytes): Promise<Bytes> {
  const key = await subtle.importKey("raw", secret, { name: "HMAC", hash }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", key, data));
}

function numbered(nonce: Bytes, number: number): Bytes {
  const iv = nonce.slice();
  for (let at = 11, rest = number; rest > 0; at--, rest = Math.floor(rest / 256)) iv[at] ^= rest % 256;
  return iv;
}

async function rawPublic(key: CryptoKey): Promise<Bytes> {
  return new Uint8Array(await subtle.exportKey("raw", key));
}

function join(...parts: Bytes[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

function base64url(data: Bytes): string {
  return btoa(String.fromCharCode(...data)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
