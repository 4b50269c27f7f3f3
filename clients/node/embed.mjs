// Reads {url, model, input} from standard input, writes the vectors that OpenAI's client gives.
import { readFileSync } from "node:fs";

const { default: OpenAI } = await import(process.argv[2]);
const { url, model, input } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const answer = await client.embeddings.create({ model, input });
process.stdout.write(JSON.stringify(answer.data.map((row) => row.embedding)));
