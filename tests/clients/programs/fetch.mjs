// Node's own fetch.

import { readFile } from "node:fs/promises";

const [url, file] = process.argv.slice(2);

for (let call = 0; call < 5; call++) {
  const answer = await fetch(`${url}/call`, { method: "POST", body: `{"n":${call}}` });
  console.log("call", answer.status, await answer.text());
}
const upload = await fetch(`${url}/upload`, { method: "POST", body: await readFile(file) });
console.log("upload", upload.status, await upload.text());

const stream = await fetch(`${url}/stream`);
const decoder = new TextDecoder();
for await (const piece of stream.body) {
  for (const line of decoder.decode(piece, { stream: true }).split("\n")) {
    if (line) console.log("event", line);
  }
}
