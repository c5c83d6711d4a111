// mqtt.js: every QoS, retained, will, session, properties. Arguments: url, version (3, 4 or 5), topic prefix.
const mqtt = require("mqtt");
const assert = require("assert");
const { once } = require("events");

async function main(url, versionText, prefix) {
  const version = Number(versionText);
  const options = { protocolVersion: version, reconnectPeriod: 0, connectTimeout: 10000 };
  if (version === 3) options.protocolId = "MQIsdp";
  const connect = (more) => mqtt.connectAsync(url, { ...options, ...more }, false);

  const subscriber = await connect({ clientId: `${prefix}-sub` });
  const inbox = [];
  let wake = () => {};
  subscriber.on("message", (topic, payload, packet) => {
    inbox.push({ topic, payload, packet });
    wake();
  });
  const next = async () => {
    while (inbox.length === 0) await new Promise((resolve) => (wake = resolve));
    return inbox.shift();
  };
  await subscriber.subscribeAsync(`${prefix}/#`, { qos: 2 });

  const publisher = await connect({ clientId: `${prefix}-pub`, will: { topic: `${prefix}/will`, payload: "gone", qos: 1 } });
  for (const qos of [0, 1, 2]) {
    for (const size of [0, 1, 127, 128, 16384, 300000]) {
      const payload = Buffer.alloc(size, qos + 1);
      await publisher.publishAsync(`${prefix}/qos`, payload, { qos });
      const message = await next();
      assert(message.payload.equals(payload), `QoS ${qos}, ${size} bytes`);
      assert.strictEqual(message.packet.qos, qos);
    }
  }
  if (version === 5) {
    const properties = {
      contentType: "text/plain", responseTopic: "answers", correlationData: Buffer.from([0, 1, 255]),
      userProperties: { a: ["1", "2"], b: "3" }, payloadFormatIndicator: true, messageExpiryInterval: 100,
    };
    await publisher.publishAsync(`${prefix}/properties`, "text", { qos: 1, properties });
    const { packet } = await next();
    for (const name of ["contentType", "responseTopic", "payloadFormatIndicator"]) {
      assert.strictEqual(packet.properties[name], properties[name]);
    }
    assert(packet.properties.correlationData.equals(properties.correlationData));
    assert.deepStrictEqual({ ...packet.properties.userProperties }, properties.userProperties);
    assert(packet.properties.messageExpiryInterval <= 100);
  }
  await publisher.publishAsync(`${prefix}/kept`, "state", { qos: 1, retain: true });
  assert.strictEqual((await next()).packet.retain, false);
  const late = await connect({ clientId: `${prefix}-late` });
  const kept = once(late, "message");
  await late.subscribeAsync(`${prefix}/kept`, { qos: 1 });
  const [, payload, packet] = await kept;
  assert.strictEqual(payload.toString(), "state");
  assert.strictEqual(packet.retain, true);
  await late.endAsync();
  await publisher.publishAsync(`${prefix}/kept`, "", { qos: 1, retain: true });
  await next();

  publisher.stream.destroy();
  const will = await next();
  assert.strictEqual(will.topic, `${prefix}/will`);
  assert.strictEqual(will.payload.toString(), "gone");

  await subscriber.unsubscribeAsync(`${prefix}/#`);
  await subscriber.endAsync();
  console.log("done");
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
