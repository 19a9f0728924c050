// A client of OpenGNSP version 1 in JavaScript, written from protocols/ alone: greets, watches, registers, pulls,
// is told of somebody else's registration, acknowledges it, deregisters. One line of JSON for each step.
//   node client.mjs --server HOST:PORT --ca FILE --cert FILE --key FILE --service ID --credential TOKEN
//        [--watch ID] [--address ADDRESS] [--port PORT]
import { readFileSync } from 'node:fs';
import tls from 'node:tls';

// ---- MessagePack, as much of it as the protocol uses
function pack(value) {
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === 'string') {
    const text = Buffer.from(value, 'utf8');
    const head = Buffer.alloc(5, 0xdb);
    head.writeUInt32BE(text.length, 1);
    return Buffer.concat([text.length < 32 ? Buffer.from([0xa0 | text.length]) : head, text]);
  }
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.from([value]);
    const wide = Buffer.alloc(9, Number.isSafeInteger(value) ? 0xd3 : 0xcb);
    if (wide[0] === 0xd3) wide.writeBigInt64BE(BigInt(value), 1);
    else wide.writeDoubleBE(value, 1);
    return wide;
  }
  const list = Array.isArray(value);
  const entries = list ? value : Object.entries(value).flat();
  const head = Buffer.alloc(5, list ? 0xdd : 0xdf);
  head.writeUInt32BE(list ? entries.length : entries.length / 2, 1);
  return Buffer.concat([head, ...entries.map(pack)]);
}

function unpack(data) {
  let at = 0;
  const take = (length) => data.subarray(at, (at += length));
  const uint = (length) => (length === 8 ? Number(take(8).readBigUInt64BE()) : take(length).readUIntBE(0, length));
  const int = (length) => (length === 8 ? Number(take(8).readBigInt64BE()) : take(length).readIntBE(0, length));
  const text = (length) => take(length).toString('utf8');
  const list = (length) => Array.from({ length }, read);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [read(), read()]));
  function read() {
    const tag = uint(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 0x0f);
    if (tag < 0xa0) return list(tag & 0x0f);
    if (tag < 0xc0) return text(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xca: return take(4).readFloatBE();
      case 0xcb: return take(8).readDoubleBE();
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return uint(1 << (tag - 0xcc));
      case 0xd0: case 0xd1: case 0xd2: case 0xd3: return int(1 << (tag - 0xd0));
      case 0xd9: case 0xda: case 0xdb: return text(uint(1 << (tag - 0xd9)));
      case 0xdc: case 0xdd: return list(uint(tag === 0xdc ? 2 : 4));
      case 0xde: case 0xdf: return map(uint(tag === 0xde ? 2 : 4));
      default: throw new Error(`octet ${tag.toString(16)} is none that OpenGNSP uses`);
    }
  }
  const value = read();
  if (at !== data.length) throw new Error('octets after the message');
  return value;
}

// ---- The session
const options = Object.fromEntries(
  process.argv.slice(2).join('\n').split('--').slice(1).map((option) => option.trim().split('\n')));
const [, host, port] = options.server.match(/^\[?(.*?)\]?:(\d+)$/);
const socket = tls.connect({
  host, port: Number(port), minVersion: 'TLSv1.3',
  ca: readFileSync(options.ca), cert: readFileSync(options.cert), key: readFileSync(options.key),
});
const say = (step, details) => console.log(JSON.stringify({ step, ...details }));
const fail = (why) => { console.error(`client.mjs: ${why}`); process.exit(1); };
const open = new Map(); // request number -> what to do with the reply
let lastNumber = 0;

function send(message, number = 0) {
  const body = pack(message);
  const header = Buffer.alloc(8);
  header.writeUInt32BE(body.length, 0);
  header.writeUInt32BE(number, 4);
  socket.write(Buffer.concat([header, body]));
}

const told = (message) => message.reason ?? `${message.code}: ${message.message}`;
const ask = (message) => new Promise((resolve, reject) => {
  lastNumber += 1;
  open.set(lastNumber, (reply) => (reply.type === 'refusal' ? reject(new Error(told(reply))) : resolve(reply)));
  send(message, lastNumber);
});

let welcomed, noticed;
const welcome = new Promise((resolve) => { welcomed = resolve; });
const notice = new Promise((resolve) => { noticed = resolve; });
const listener = { service: options.service, address: options.address ?? '127.0.0.1', port: Number(options.port ?? 2028) };
const epoch = Date.now() * 1000;

function receive(number, message) {
  if (number !== 0 && open.has(number)) {
    open.get(number)(message);
    open.delete(number);
  } else if (message.type === 'welcome') welcomed(message);
  else if (message.type === 'notice' || message.type === 'bookmark') {
    send({ type: 'acknowledge', revision: message.revision ?? message.change.revision });
    const row = message.change?.row;
    if (row?.row === 'listener' && row.epoch !== epoch) noticed(message.change);
  } else if (message.type === 'goodbye' || message.type === 'refusal') fail(told(message));
}

let held = Buffer.alloc(0);
socket.on('data', (data) => {
  held = Buffer.concat([held, data]);
  while (held.length >= 8 && held.length >= 8 + held.readUInt32BE(0)) {
    const end = 8 + held.readUInt32BE(0);
    receive(held.readUInt32BE(4), unpack(held.subarray(8, end)));
    held = held.subarray(end);
  }
});
socket.on('error', (error) => fail(error.message));
socket.on('close', () => fail('the server closed the connection'));
socket.on('secureConnect', () => main().catch((error) => fail(error.message)));

async function main() {
  if (socket.getPeerCertificate().subject.OU !== 'server') fail('this is no server');
  send({ type: 'hello', versions: [1], software: 'client.mjs' });
  const { version, server, store, revision } = await welcome;
  if (version !== 1) fail(`welcomed to version ${version}`);
  say('welcome', { tls: socket.getProtocol(), version, server, store, revision });
  const watched = options.watch ?? 'portal.web';
  const watching = await ask({ type: 'watch', services: [watched] });
  send({ type: 'acknowledge', revision: watching.revision });
  say('watching', { revision: watching.revision, topics: Object.keys(watching.snapshot?.topics ?? {}) });
  const registered = await ask({ type: 'register', ...listener, credential: options.credential, epoch, metadata: { by: 'client.mjs' } });
  say('registered', { revision: registered.revision, state: registered.state });
  const pulled = await ask({ type: 'pull', service: watched });
  say('dependencies', { revision: pulled.revision, categories: pulled.categories });
  const change = await notice;
  say('notice', { revision: change.revision, operation: change.operation, row: change.row });
  say('acknowledged', { revision: change.revision });
  const gone = await ask({ type: 'deregister', ...listener, credential: options.credential, epoch });
  say('deregistered', { revision: gone.revision, state: gone.state });
  socket.removeAllListeners('close');
  socket.end();
}
