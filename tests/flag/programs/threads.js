// A program whose runtime starts threads of its own before its first line: worker threads, and the pool that
// hashes and reads files for them. Every result is compared.
//
// Prints "ready" when 4 workers answered; then "more" on standard input starts 4 further ones and prints
// "more"; at the end of standard input prints rounds and failures, and exits with 1 where there were failures.
'use strict';
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { pbkdf2, pbkdf2Sync } = require('crypto');
const { readFile } = require('fs').promises;

const WORKERS = 4;

if (isMainThread) {
  let rounds = 0;
  let failures = 0;
  const start = async () => {
    const answers = Array.from({ length: WORKERS }, () => new Promise((answered) => {
      const worker = new Worker(__filename);
      worker.on('error', () => { failures += 1; });
      worker.on('message', (right) => { rounds += 1; failures += right ? 0 : 1; answered(); });
    }));
    await Promise.all(answers);
  };
  start().then(() => console.log('ready'));
  process.stdin.on('data', () => start().then(() => console.log('more')));
  process.stdin.on('end', () => {
    console.log(`${rounds} rounds, ${failures} failures`);
    process.exit(failures ? 1 : 0);
  });
} else {
  const expected = pbkdf2Sync('secret', 'salt', 10, 32, 'sha256').toString('hex');
  const round = async () => {
    const hash = await new Promise((done, failed) => {
      pbkdf2('secret', 'salt', 10, 32, 'sha256', (error, key) => (error ? failed(error) : done(key)));
    });
    const text = await readFile(__filename, 'utf8');
    parentPort.postMessage(hash.toString('hex') === expected && text.startsWith('// A program'));
    setTimeout(round, 20);
  };
  round();
}
