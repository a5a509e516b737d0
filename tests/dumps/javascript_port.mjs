// Runs the rebuild of the live pages under Node and writes what it taps: config.json, weights, what is read, the dump.

import { readFileSync, writeFileSync } from "node:fs";

import { open } from "./models.js";
import { Recorder, readSafetensors } from "./weights.js";

const bytes = (file) => {
  const read = readFileSync(file);
  return read.buffer.slice(read.byteOffset, read.byteOffset + read.byteLength);
};

const [config, weights, read, out] = process.argv.slice(2);
const given = readSafetensors(bytes(read));
const integers = ({ shape, data }) => ({ shape, data: Int32Array.from(data, Number) });
const recorder = new Recorder();
const { forward, model } = await open(JSON.parse(readFileSync(config)), readSafetensors(bytes(weights)), recorder.tap);
forward({ tokenIds: integers(given.get("token_ids")), mask: integers(given.get("mask")) }, model);

// A safetensors file: the length of the header in 8 bytes, the header, the numbers.
const header = {};
let end = 0;
for (const [name, { shape, data }] of recorder.tensors)
  header[name] = { dtype: "F32", shape, data_offsets: [end, (end += data.byteLength)] };
const words = new TextEncoder().encode(JSON.stringify(header));
const length = new DataView(new ArrayBuffer(8));
length.setBigUint64(0, BigInt(words.length), true);
const numbers = [...recorder.tensors.values()].map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
writeFileSync(out, Buffer.concat([Buffer.from(length.buffer), words, ...numbers]));
writeFileSync("names.json", JSON.stringify([...recorder.tensors.keys()]));
