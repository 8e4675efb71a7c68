/**
 * The demo's task: an append-only ledger over HTTP, the same program as a process and in a container. POST /append answers
 * with the line's number once it is fsynced; GET / tells how many lines there are. Plain JavaScript, no dependency.
 */
export const LEDGER_PROGRAM = `
const fs = require('node:fs'), http = require('node:http');
const file = (process.env.LEDGER_DIR || process.cwd()) + '/ledger';
const fd = fs.openSync(file, 'a+');
let lines = fs.readFileSync(file, 'utf8').split('\\n').length - 1;
http.createServer((request, response) => {
  if (request.method === 'POST') { fs.writeSync(fd, new Date().toISOString() + '\\n'); fs.fsyncSync(fd); lines += 1; }
  response.end(JSON.stringify({ lines, pid: process.pid, generation: process.env.TASKORG_GENERATION }) + '\\n');
}).listen(Number(process.env.PORT || 8080), () => console.log('ledger is open, ' + lines + ' lines'));
process.on('SIGTERM', () => process.exit(0));
`;
