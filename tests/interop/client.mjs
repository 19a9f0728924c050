// A host that speaks OpenGNSP version 1 in JavaScript, written from protocols/ alone. One line of JSON for each step.
//   node client.mjs --server HOST:PORT --ca FILE --cert FILE --key FILE --watch ID --service ID --credential TOKEN
//        --address ADDRESS --port PORT
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
      case 0xc4: case 0xc5: case 0xc6: return take(uint(1 << (tag - 0xc4)));
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
const say = (step, details) => console.log(JSON.stringify({ step, ...details }));
const fail = (why) => { console.error(`client.mjs: ${why}`); process.exit(1); };
const PARTS_MAX = 1073741824;

class Session {
  open = new Map(); // request number -> what to do with the reply
  parts = new Map(); // request number -> octets of the parts that have arrived
  partCount = 0;
  lastNumber = 0;
  pushed = []; // notices and resyncs that nothing has waited for yet
  waiting = null; // what waits for the next one

  async begin(held) {
    const [, host, port] = options.server.match(/^\[?(.*?)\]?:(\d+)$/);
    this.socket = tls.connect({
      host, port: Number(port), minVersion: 'TLSv1.3',
      ca: readFileSync(options.ca), cert: readFileSync(options.cert), key: readFileSync(options.key),
    });
    let buffer = Buffer.alloc(0);
    this.socket.on('data', (data) => {
      buffer = Buffer.concat([buffer, data]);
      while (buffer.length >= 8 && buffer.length >= 8 + buffer.readUInt32BE(0)) {
        const end = 8 + buffer.readUInt32BE(0);
        this.receive(buffer.readUInt32BE(4), unpack(buffer.subarray(8, end)));
        buffer = buffer.subarray(end);
      }
    });
    this.socket.on('error', (error) => fail(error.message));
    this.socket.on('close', () => fail('the server closed the connection'));
    await new Promise((resolve) => { this.socket.on('secureConnect', resolve); });
    if (this.socket.getPeerCertificate().subject.OU !== 'server') fail('this is no server');
    const welcome = new Promise((resolve) => { this.welcomed = resolve; });
    this.send({ type: 'hello', versions: [1], software: 'client.mjs', parts: PARTS_MAX });
    const { version } = await welcome;
    if (version !== 1) fail(`welcomed to version ${version}`);
    say('welcome', { tls: this.socket.getProtocol(), version });
    const watching = await this.ask({ type: 'watch', services: [options.watch], resync: true, ...held });
    this.revision = held?.since ?? 0;
    if (watching.snapshot) this.acknowledge(watching.snapshot.revision);
    this.store = watching.store;
    const topics = Object.keys(watching.snapshot?.topics ?? {}).sort();
    say('watching', { topics, snapshot: Boolean(watching.snapshot) });
    return this;
  }

  receive(number, message) {
    if (message.type === 'part') {
      this.partCount += 1;
      const octets = [...(this.parts.get(number) ?? []), message.octets];
      this.parts.set(number, octets);
      if (!message.last) return;
      this.parts.delete(number);
      message = unpack(Buffer.concat(octets));
    }
    if (number !== 0 && this.open.has(number)) {
      this.open.get(number)(message);
      this.open.delete(number);
    } else if (message.type === 'welcome') this.welcomed(message);
    else if (message.type === 'bookmark') this.revision = message.revision;
    else if (message.type === 'notice' || message.type === 'resync') {
      this.pushed.push(message);
      this.waiting?.();
    } else if (message.type === 'goodbye' || message.type === 'refusal') fail(told(message));
  }

  send(message, number = 0) {
    const body = pack(message);
    const header = Buffer.alloc(8);
    header.writeUInt32BE(body.length, 0);
    header.writeUInt32BE(number, 4);
    this.socket.write(Buffer.concat([header, body]));
  }

  ask(message) {
    return new Promise((resolve, reject) => {
      this.lastNumber += 1;
      this.open.set(this.lastNumber, (reply) => {
        if (reply.type === 'refusal') reject(new Error(told(reply)));
        else resolve(reply);
      });
      this.send(message, this.lastNumber);
    });
  }

  acknowledge(revision) {
    this.revision = revision;
    this.send({ type: 'acknowledge', revision });
  }

  // Acknowledges what is pushed until a notice brings the wanted row; without a wish, until a resync.
  async follow(wanted) {
    for (;;) {
      if (!this.pushed.length) await new Promise((resolve) => { this.waiting = resolve; });
      const { type, change, snapshot } = this.pushed.shift();
      if (type === 'notice') say('notice', { revision: change.revision, operation: change.operation, row: change.row });
      else say('resync', { rows: snapshot.rows.length, parts: this.partCount });
      this.acknowledge(type === 'notice' ? change.revision : snapshot.revision);
      say('acknowledged', { revision: this.revision });
      if (type === 'notice' ? wanted?.(change.row) : !wanted) return change?.row;
    }
  }

  async pull() {
    const { categories } = await this.ask({ type: 'pull', service: options.watch });
    const listeners = categories.flatMap(({ services = [] }) => services.flatMap((service) => service.listeners ?? []));
    const own = listeners.find((row) => row.port === Number(options.port));
    say('pulled', { listeners: listeners.length, own, parts: this.partCount });
  }

  end() {
    this.socket.removeAllListeners('close');
    this.socket.end();
  }
}

const told = (message) => message.reason ?? `${message.code}: ${message.message}`;

async function main() {
  const { service, address, credential, watch } = options;
  const port = Number(options.port);
  const instance = { service, address, port, credential, epoch: Date.now() * 1000 };
  let session = await new Session().begin();
  const registered = await session.ask({ type: 'register', ...instance, metadata: { by: 'client.mjs' } });
  say('registered', { state: registered.state });
  await session.pull();

  // Another listener of the service comes. It is reported, and the server finds that it is dead.
  const other = await session.follow((row) => row.port !== port);
  const reported = { service: other.service, address: other.address, port: other.port };
  const { state } = await session.ask({ type: 'report', ...reported, reporter: watch, detail: 'refused' });
  say('reported', { state });
  await session.follow((row) => row.state === 'down');

  const nothing = watch.replace(/^[^.]*/, 'nothing');
  const refused = await session.ask({ type: 'pull', service: nothing }).catch((error) => error.message);
  say('refused', { code: refused.split(':')[0] });
  const deregistered = await session.ask({ type: 'deregister', ...instance });
  say('deregistered', { state: deregistered.state });
  await session.follow((row) => row.state === 'offline');

  // The next session goes on where this one ends.
  const held = { store: session.store, since: session.revision };
  session.end();
  session = await new Session().begin(held);

  // The service that is watched for comes to depend on more than fits into a notice, or into a frame.
  await session.follow();
  await session.pull();
  say('ended', {});
  session.end();
}

main().catch((error) => fail(error.message));
