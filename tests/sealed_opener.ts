// Does one thing with docs/sealed/opener.ts: what it is told on stdin as JSON, answered as JSON; bytes in base64.
import { newDevice, openKey, openSealed, readDevice, wrapKey } from "../docs/sealed/opener.ts";

const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const asked = JSON.parse(Buffer.concat(chunks).toString());
const bytes = (name: string) => new Uint8Array(Buffer.from(asked[name], "base64"));
const text = (data: Uint8Array) => Buffer.from(data).toString("base64");

async function open() {
  const device = await readDevice(asked.kem, bytes("privateKey"), bytes("publicKey"));
  const key = await openKey(device, bytes("wrapped"), bytes("info"));
  return { key: text(key), plaintext: text(await openSealed(key, bytes("ciphertext"), bytes("context"))) };
}

async function wrap() {
  return { wrapped: text(await wrapKey(asked.kem, bytes("publicKey"), bytes("key"), bytes("info"))) };
}

async function fresh() {
  const device = await newDevice(asked.kem);
  const wrapped = await wrapKey(asked.kem, device.publicKey, bytes("key"), bytes("info"));
  return { publicKey: text(device.publicKey), key: text(await openKey(device, wrapped, bytes("info"))) };
}

try {
  process.stdout.write(JSON.stringify(await { open, wrap, fresh }[asked.does as "open" | "wrap" | "fresh"]()));
} catch (error) {
  process.stdout.write(JSON.stringify({ refused: (error as Error).name }));
}
