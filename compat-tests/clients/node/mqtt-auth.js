// mqtt.js with enhanced authentication (SCRAM, OAUTHBEARER), or with a token as its password. Takes a command a line from
// standard input and answers each with a line. Arguments: url, client id, method (or "password"), user, secret. A user
// "token:ID" is a delegation token of Kafka's (KIP-48).
const mqtt = require("mqtt");
const crypto = require("crypto");
const readline = require("readline");

const [url, clientId, method, user, firstSecret] = process.argv.slice(2);
let secret = firstSecret;
let client, exchange, disconnected;
const say = (line) => process.stdout.write(`${line}\n`);

/** The client's side of one exchange: RFC 5802, or the only message of RFC 7628. */
class Exchange {
  constructor() {
    this.nonce = crypto.randomBytes(12).toString("base64");
    const [, token] = /^token:(.*)/.exec(user) || [];
    this.bare = token ? `n=${token},r=${this.nonce},tokenauth=true` : `n=${user},r=${this.nonce}`;
    this.first = Buffer.from(method === "OAUTHBEARER" ? `n,,\x01auth=Bearer ${secret}\x01\x01` : `n,,${this.bare}`);
  }
  answer(challenge) {
    const hash = method === "SCRAM-SHA-256" ? "sha256" : "sha512";
    const hmac = (key, text) => crypto.createHmac(hash, key).update(text).digest();
    const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)/.exec(challenge);
    if (!nonce.startsWith(this.nonce)) throw new Error("the nonce is another");
    const size = hash === "sha256" ? 32 : 64;
    const salted = crypto.pbkdf2Sync(secret, Buffer.from(salt, "base64"), Number(iterations), size, hash);
    const last = `c=biws,r=${nonce}`;
    const signed = `${this.bare},${challenge},${last}`;
    const key = hmac(salted, "Client Key");
    const signature = hmac(crypto.createHash(hash).update(key).digest(), signed);
    this.verifier = hmac(hmac(salted, "Server Key"), signed).toString("base64");
    return Buffer.from(`${last},p=${Buffer.from(key.map((byte, n) => byte ^ signature[n])).toString("base64")}`);
  }
  /** Whether the server proved that it knows the password too. */
  holds(data) {
    return method === "OAUTHBEARER" || String(data) === `v=${this.verifier}`;
  }
}

const properties = (data) => ({ authenticationMethod: method, authenticationData: data });
let reauthenticated = () => {};

function connect() {
  const enhanced = method !== "password";
  exchange = new Exchange();
  client = mqtt.connect(url, {
    protocolVersion: 5, clientId, reconnectPeriod: 0, connectTimeout: 10000, clean: enhanced,
    ...(enhanced ? { properties: properties(exchange.first) }
      : { username: user, password: secret, reconnectPeriod: 100, properties: { sessionExpiryInterval: 60 } }),
  });
  client.handleAuth = (packet, done) => {
    if (packet.reasonCode === 0x18) {
      const data = exchange.answer(packet.properties.authenticationData.toString());
      done(null, { cmd: "auth", reasonCode: 0x18, properties: properties(data) });
    } else {
      reauthenticated(exchange.holds(packet.properties.authenticationData) ? "reauthenticated" : "the server's proof is wrong");
      done();
    }
  };
  disconnected = new Promise((resolve) => client.on("disconnect", (packet) => resolve(packet.reasonCode)));
  client.on("message", (topic, payload) => say(`message ${topic} ${payload}`));
  return new Promise((resolve) => {
    client.once("connect", (packet) => {
      const isProved = !enhanced || exchange.holds(packet.properties.authenticationData);
      resolve(isProved ? "connected" : "the server's proof is wrong");
    });
    // The library's own codes are no numbers.
    client.on("error", (error) => { client.end(true); resolve(`refused ${error.code}`); });
  });
}

async function command(name, argument) {
  switch (name) {
    case "connect": return connect();
    case "secret":
      secret = argument;
      // The library logs in with this one when it connects again.
      if (method === "password" && client) client.options.password = secret;
      return "ok";
    case "reauth": {
      exchange = new Exchange();
      const answer = new Promise((resolve) => (reauthenticated = resolve));
      // The library has no call of its own for this packet.
      client._sendPacket({ cmd: "auth", reasonCode: 0x19, properties: properties(exchange.first) });
      return Promise.race([answer, disconnected.then((code) => `disconnected ${code}`)]);
    }
    case "publish":
      return client.publishAsync(argument, "x", { qos: 1 }).then(() => "published", (error) => `refused ${error.code}`);
    case "subscribe":
      return client.subscribeAsync(argument, { qos: 1 }).then((granted) => `granted ${granted[0].qos}`,
        (error) => `refused ${error.packet.granted[0]}`);
    case "wait": return disconnected.then((code) => `disconnected ${code}`);
    case "again": return new Promise((resolve) => client.once("connect", (packet) => resolve(`again ${packet.sessionPresent}`)));
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, argument] = line.split(" ");
    say(await command(name, argument));
  }
  process.exit(0);
})();
