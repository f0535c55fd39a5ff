/**
 * Opens what Lethe has sealed to a device: the reference in TypeScript, whose types can be erased. It needs WebCrypto with
 * X25519 (Node 22, current browsers) and nothing else; docs/sealed.md explains it, vectors.json has known answers. X-Wing
 * needs ML-KEM-768 and SHA-3 there too ("Modern Algorithms in the Web Cryptography API", WICG): Node 24 has them.
 */

export type Bytes = Uint8Array<ArrayBuffer>;
export type Kem = "x25519" | "p256" | "xwing";
/** Of X-Wing the private keys are two, of ML-KEM-768 and X25519; of the others one. */
export interface Device {
  kem: Kem;
  privateKeys: CryptoKey[];
  publicKey: Bytes;
}
interface Encapsulated {
  enc: Bytes;
  shared: Bytes;
}
/** What TypeScript's own types do not know yet. */
interface Modern {
  encapsulateBits: (algorithm: string, key: CryptoKey) => Promise<{ sharedKey: ArrayBuffer; ciphertext: ArrayBuffer }>;
  decapsulateBits: (algorithm: string, key: CryptoKey, ciphertext: Bytes) => Promise<ArrayBuffer>;
  importKey: (format: string, data: Bytes, algorithm: string, extractable: boolean, usages: string[]) => Promise<CryptoKey>;
  exportKey: (format: string, key: CryptoKey) => Promise<ArrayBuffer>;
  generateKey: (algorithm: string, extractable: boolean, usages: string[]) => Promise<CryptoKeyPair>;
}

const CHUNK_BYTES = 16 * 1024;
const TAG_BYTES = 16;
const SALT_BYTES = 24;
const HEADER_BYTES = SALT_BYTES + 32;
const LABEL = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const KEMS = {
  x25519: { id: 0x0020, encBytes: 32, algorithm: { name: "X25519" } },
  p256: { id: 0x0010, encBytes: 65, algorithm: { name: "ECDH", namedCurve: "P-256" } },
  xwing: { id: 0x647a, encBytes: 1120 },
};
const ML_KEM = "ML-KEM-768";
const ML_KEM_PUBLIC_BYTES = 1184;
const ML_KEM_SEED_BYTES = 64;
const X25519_BYTES = 32;
const X_WING_LABEL = "\\.//^\\";
const subtle = globalThis.crypto.subtle;
const modern = subtle as unknown as Modern;

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

/** Make a device; its private keys cannot be taken out of the browser's store. */
export async function newDevice(kem: Kem): Promise<Device> {
  if (kem === "xwing") {
    const pair = await modern.generateKey(ML_KEM, false, ["decapsulateBits"]);
    const traditional = await newDevice("x25519");
    const publicKey = join(bytes(await modern.exportKey("raw-public", pair.publicKey)), traditional.publicKey);
    return { kem, privateKeys: [pair.privateKey, ...traditional.privateKeys], publicKey };
  }
  const pair = (await subtle.generateKey(KEMS[kem].algorithm, false, ["deriveBits"])) as CryptoKeyPair;
  return { kem, privateKeys: [pair.privateKey], publicKey: bytes(await subtle.exportKey("raw", pair.publicKey)) };
}

/** Read a device from raw keys: 32 bytes private (of X-Wing its seed); public 32, 65 uncompressed (p256) or 1216 (xwing). */
export async function readDevice(kem: Kem, privateKey: Bytes, publicKey: Bytes): Promise<Device> {
  if (kem === "xwing") {
    // Without a name and a customization cSHAKE256 is SHAKE256.
    const shake = { name: "cSHAKE256", outputLength: (ML_KEM_SEED_BYTES + X25519_BYTES) * 8 };
    const seeds = bytes(await subtle.digest(shake, privateKey));
    const key = await modern.importKey("raw-seed", seeds.slice(0, ML_KEM_SEED_BYTES), ML_KEM, false, ["decapsulateBits"]);
    const traditional = await readDevice("x25519", seeds.slice(ML_KEM_SEED_BYTES), publicKey.slice(ML_KEM_PUBLIC_BYTES));
    return { kem, privateKeys: [key, ...traditional.privateKeys], publicKey };
  }
  const d = base64url(privateKey);
  const jwk =
    kem === "x25519"
      ? { kty: "OKP", crv: "X25519", d, x: base64url(publicKey) }
      : { kty: "EC", crv: "P-256", d, x: base64url(publicKey.slice(1, 33)), y: base64url(publicKey.slice(33)) };
  const key = await subtle.importKey("jwk", jwk, KEMS[kem].algorithm, false, ["deriveBits"]);
  return { kem, privateKeys: [key], publicKey };
}

/** Return the 32 bytes of an output's key; rejects where key, info or device is another one (HPKE base mode). */
export async function openKey(device: Device, wrapped: Bytes, info: Bytes): Promise<Bytes> {
  const { encBytes } = KEMS[device.kem];
  const shared = await decapsulate(device, wrapped.slice(0, encBytes));
  const { key, iv } = await schedule(device.kem, shared, info, "decrypt");
  return bytes(await subtle.decrypt({ name: "AES-GCM", iv }, key, wrapped.slice(encBytes)));
}

/** Wrap an output's key to another device, whose own id and KEM stand in `info`. */
export async function wrapKey(kem: Kem, publicKey: Bytes, outputKey: Bytes, info: Bytes): Promise<Bytes> {
  const { enc, shared } = await encapsulate(kem, publicKey);
  const { key, iv } = await schedule(kem, shared, info, "encrypt");
  return join(enc, bytes(await subtle.encrypt({ name: "AES-GCM", iv }, key, outputKey)));
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
    pieces.push(bytes(await subtle.decrypt({ name: "AES-GCM", iv }, key, ciphertext.slice(at, at + size))));
    at += size;
  }
  return join(...pieces);
}

async function decapsulate({ kem, privateKeys, publicKey }: Device, enc: Bytes): Promise<Bytes> {
  if (kem !== "xwing") return extractAndExpand(kem, await agree(kem, privateKeys[0], enc), join(enc, publicKey));
  const theirs = enc.slice(-X25519_BYTES);
  const postQuantum = bytes(await modern.decapsulateBits(ML_KEM, privateKeys[0], enc.slice(0, -X25519_BYTES)));
  return combine(postQuantum, await agree("x25519", privateKeys[1], theirs), theirs, publicKey.slice(-X25519_BYTES));
}

async function encapsulate(kem: Kem, publicKey: Bytes): Promise<Encapsulated> {
  const ephemeral = await newDevice(kem === "xwing" ? "x25519" : kem);
  const enc = ephemeral.publicKey;
  if (kem !== "xwing") {
    const dh = await agree(kem, ephemeral.privateKeys[0], publicKey);
    return { enc, shared: await extractAndExpand(kem, dh, join(enc, publicKey)) };
  }
  const postQuantumKey = publicKey.slice(0, ML_KEM_PUBLIC_BYTES);
  const key = await modern.importKey("raw-public", postQuantumKey, ML_KEM, false, ["encapsulateBits"]);
  const { sharedKey, ciphertext } = await modern.encapsulateBits(ML_KEM, key);
  const theirs = publicKey.slice(-X25519_BYTES);
  const dh = await agree("x25519", ephemeral.privateKeys[0], theirs);
  return { enc: join(bytes(ciphertext), enc), shared: await combine(bytes(sharedKey), dh, enc, theirs) };
}

/** X-Wing's combiner (draft-connolly-cfrg-xwing-kem). */
async function combine(postQuantum: Bytes, dh: Bytes, enc: Bytes, publicKey: Bytes): Promise<Bytes> {
  return bytes(await subtle.digest("SHA3-256", join(postQuantum, dh, enc, publicKey, utf8(X_WING_LABEL))));
}

async function agree(kem: "x25519" | "p256", privateKey: CryptoKey, publicKey: Bytes): Promise<Bytes> {
  const theirs = await subtle.importKey("raw", publicKey, KEMS[kem].algorithm, false, []);
  const algorithm = { name: KEMS[kem].algorithm.name, public: theirs };
  return bytes(await subtle.deriveBits(algorithm, privateKey, 256));
}

/** RFC 9180, section 4.1: what a DHKEM makes of the agreed secret. */
async function extractAndExpand(kem: Kem, dh: Bytes, kemContext: Bytes): Promise<Bytes> {
  const { extract, expand } = labeled(join(utf8("KEM"), new Uint8Array(idOf(kem))));
  return expand(await extract(new Uint8Array(), "eae_prk", dh), "shared_secret", kemContext, 32);
}

/** RFC 9180, section 5.1: the key schedule of base mode. */
async function schedule(kem: Kem, shared: Bytes, info: Bytes, use: "encrypt" | "decrypt"): Promise<{ key: CryptoKey; iv: Bytes }> {
  const { extract, expand } = labeled(join(utf8("HPKE"), new Uint8Array([...idOf(kem), 0, 1, 0, 2])));
  const none = new Uint8Array();
  const pskIdHash = await extract(none, "psk_id_hash", none);
  const context = join(new Uint8Array([0]), pskIdHash, await extract(none, "info_hash", info));
  const secret = await extract(shared, "secret", none);
  const raw = await expand(secret, "key", context, 32);
  const key = await subtle.importKey("raw", raw, "AES-GCM", false, [use]);
  return { key, iv: await expand(secret, "base_nonce", context, 12) };
}

function idOf(kem: Kem): number[] {
  return [KEMS[kem].id >> 8, KEMS[kem].id & 0xff];
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
  return bytes(await subtle.sign("HMAC", key, data));
}

function numbered(nonce: Bytes, number: number): Bytes {
  const iv = nonce.slice();
  for (let at = 11, rest = number; rest > 0; at--, rest = Math.floor(rest / 256)) iv[at] ^= rest % 256;
  return iv;
}

function join(...parts: Bytes[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

function bytes(data: ArrayBuffer): Bytes {
  return new Uint8Array(data);
}

function utf8(text: string): Bytes {
  return new TextEncoder().encode(text);
}

function base64url(data: Bytes): string {
  return btoa(String.fromCharCode(...data)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
