// node train.js TEXT_FILE TOKENIZER_JSON: trains 30,000 tokens with GPT-2's pre-tokenizer and prints one line of JSON: seconds, CPU seconds, megabytes at most.
const { BPE, Tokenizer, byteLevelPreTokenizer } = require('tokenizers');

const [text, out] = process.argv.slice(2);
const tokenizer = new Tokenizer(BPE.empty());
tokenizer.setPreTokenizer(byteLevelPreTokenizer(false, true));
const start = process.hrtime.bigint();
tokenizer.train([text]);
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
const used = process.resourceUsage();
tokenizer.save(out, false);
process.stdout.write(`\n${JSON.stringify({ seconds, cpu: (used.userCPUTime + used.systemCPUTime) / 1e6, megabytes: used.maxRSS / 1024 })}\n`);
