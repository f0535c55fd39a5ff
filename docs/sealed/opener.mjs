// @ts-check
/**
 * Opens what Lethe has sealed to a device: the reference in JavaScript with TypeScript's types in comments. It needs
 * WebCrypto with X25519 (Node 20, current browsers) and nothing else; docs/sealed.md explains it, vectors.json has known
 * answers. The KEMs are x25519 and p256: X-Wing needs ML-KEM, which WebCrypto does not have; opener.py has it.
 *
 * @typedef {"x25519" | "p256"} Kem
 * @typedef {{kem: Kem, privateKey: CryptoKey, publicKey: Uint8Array}} Device
 */

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

/**
 * Say what a wrapped key is of; ids are UUIDs in lower case.
 * @param {string} jobId @param {number} n @param {string} deviceId @param {Kem} kem
 */
export function keyInfo(jobId, n, deviceId, kem) {
  return utf8(`lethe/sealed-key/v1 ${jobId} ${n} ${deviceId} ${kem}`);
}

/** Say what a ciphertext is of. @param {string} jobId @param {number} n */
export function outputContext(jobId, n) {
  return utf8(`lethe/sealed-output/v1 ${jobId} ${n}`);
}

/** Say the same of the ciphertext of a thumbnail. @param {string} jobId @param {number} n */
export function thumbnailContext(jobId, n) {
  return utf8(`lethe/sealed-thumbnail/v1 ${jobId} ${n}`);
}

/**
 * Make a device; its private key cannot be taken out of the browser's store.
 * @param {Kem} kem
 * @returns {Promise<Device>}
 */
export async function newDevice(kem) {
  const pair = /** @type {CryptoKeyPair} */ (
    await subtle.generateKey(KEMS[kem].algorithm, false, ["deriveBits"])
  );
  return { kem, privateKey: pair.privateKey, publicKey: await rawPublic(pair.publicKey) };
}

/**
 * Read a device from raw keys: 32 bytes private; public 32 (x25519), or 65 uncompressed (p256).
 * @param {Kem} kem @param {Uint8Array} privateKey @param {Uint8Array} publicKey
 * @returns {Promise<Device>}
 */
export async function readDevice(kem, privateKey, publicKey) {
  const d = base64url(privateKey);
  const jwk =
    kem === "x25519"
      ? { kty: "OKP", crv: "X25519", d, x: base64url(publicKey) }
      : { kty: "EC", crv: "P-256", d, x: base64url(publicKey.slice(1, 33)), y: base64url(publicKey.slice(33)) };
  const key = await subtle.importKey("jwk", jwk, KEMS[kem].algorithm, false, ["deriveBits"]);
  return { kem, privateKey: key, publicKey };
}

/**
 * Return the 32 bytes of an output's key; rejects where key, info or device is another one (HPKE base mode, one shot).
 * @param {Device} device @param {Uint8Array} wrapped @param {Uint8Array} info
 */
export async function openKey(device, wrapped, info) {
  const { encBytes } = KEMS[device.kem];
  const enc = wrapped.slice(0, encBytes);
  const dh = await agree(device.kem, device.privateKey, enc);
  const { key, iv } = await schedule(device.kem, dh, join(enc, device.publicKey), info, "decrypt");
  return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, wrapped.slice(encBytes)));
}

/**
 * Wrap an output's key to another device, whose own id and KEM stand in `info`.
 * @param {Kem} kem @param {Uint8Array} publicKey @param {Uint8Array} outputKey @param {Uint8Array} info
 */
export async function wrapKey(kem, publicKey, outputKey, info) {
  const ephemeral = await newDevice(kem);
  const dh = await agree(kem, ephemeral.privateKey, publicKey);
  const { key, iv } = await schedule(kem, dh, join(ephemeral.publicKey, publicKey), info, "encrypt");
  return join(ephemeral.publicKey, new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv }, key, outputKey)));
}

/**
 * Return the plaintext; rejects where the ciphertext was changed, cut or made for something else.
 * @param {Uint8Array} outputKey @param {Uint8Array} ciphertext @param {Uint8Array} context
 */
export async function openSealed(outputKey, ciphertext, context) {
  if (ciphertext.length < HEADER_BYTES + TAG_BYTES) throw new Error("cut");
  const salt = ciphertext.slice(0, SALT_BYTES);
  const derived = await expand("SHA-512", outputKey, join(utf8(LABEL), salt, context), 76);
  const commitment = ciphertext.slice(SALT_BYTES, HEADER_BYTES);
  if (derived.slice(44).some((byte, at) => byte !== commitment[at])) throw new Error("another key or context");
  const key = await subtle.importKey("raw", derived.slice(0, 32), "AES-GCM", false, ["decrypt"]);
  const size = CHUNK_BYTES + TAG_BYTES;
  const pieces = [];
  // The last chunk is the only short one, perhaps an empty one: without it the message was cut.
  for (let number = 0, at = HEADER_BYTES; number <= Math.floor((ciphertext.length - HEADER_BYTES) / size); number++) {
    const iv = numbered(derived.slice(32, 44), number);
    pieces.push(new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, ciphertext.slice(at, at + size))));
    at += size;
  }
  return join(...pieces);
}

/** @param {Kem} kem @param {CryptoKey} privateKey @param {Uint8Array} publicKey */
async function agree(kem, privateKey, publicKey) {
  const theirs = await subtle.importKey("raw", publicKey, KEMS[kem].algorithm, false, []);
  const algorithm = { name: KEMS[kem].algorithm.name, public: theirs };
  return new Uint8Array(await subtle.deriveBits(algorithm, privateKey, 256));
}

/**
 * RFC 9180: ExtractAndExpand of the KEM, then the key schedule of base mode.
 * @param {Kem} kem @param {Uint8Array} dh @param {Uint8Array} kemContext @param {Uint8Array} info
 * @param {"encrypt" | "decrypt"} use
 */
async function schedule(kem, dh, kemContext, info, use) {
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

/** @param {Uint8Array} suite */
function labeled(suite) {
  const version = utf8("HPKE-v1");
  return {
    /** @param {Uint8Array} salt @param {string} label @param {Uint8Array} material */
    extract: (salt, label, material) =>
      // WebCrypto takes no empty key; HMAC fills up with zeros anyway.
      hmac("SHA-256", salt.length ? salt : new Uint8Array(32), join(version, suite, utf8(label), material)),
    /** @param {Uint8Array} secret @param {string} label @param {Uint8Array} info @param {number} length */
    expand: (secret, label, info, length) =>
      expand("SHA-256", secret, join(new Uint8Array([length >> 8, length & 0xff]), version, suite, utf8(label), info), length),
  };
}

/**
 * HKDF-Expand (RFC 5869).
 * @param {string} hash @param {Uint8Array} secret @param {Uint8Array} info @param {number} length
 */
async function expand(hash, secret, info, length) {
  let made = new Uint8Array();
  for (let last = new Uint8Array(), number = 1; made.length < length; number++) {
    last = await hmac(hash, secret, join(last, info, new Uint8Array([number])));
    made = join(made, last);
  }
  return made.slice(0, length);
}

/** @param {string} hash @param {Uint8Array} secret @param {Uint8Array} data */
async function hmac(hash, secret, data) {
  const key = await subtle.importKey("raw", secret, { name: "HMAC", hash }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", key, data));
}

/** @param {Uint8Array} nonce @param {number} number */
function numbered(nonce, number) {
  const iv = nonce.slice();
  for (let at = 11, rest = number; rest > 0; at--, rest = Math.floor(rest / 256)) iv[at] ^= rest % 256;
  return iv;
}

/** @param {CryptoKey} key */
async function rawPublic(key) {
  return new Uint8Array(await subtle.exportKey("raw", key));
}

/** @param {...Uint8Array} parts */
function join(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
}

/** @param {string} text */
function utf8(text) {
  return new TextEncoder().encode(text);
}

/** @param {Uint8Array} data */
function base64url(data) {
  return btoa(String.fromCharCode(...data)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
