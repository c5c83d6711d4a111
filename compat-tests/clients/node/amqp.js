// amqplib: topology, confirms, returns, consume, get, nack, prefetch, errors. Arguments: url, name prefix.
const amqp = require("amqplib");
const assert = require("assert");

async function main(url, name) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await channel.assertExchange(`${name}-x`, "topic", { durable: true });
  const { queue } = await channel.assertQueue(`${name}-q`, { durable: true });
  await channel.bindQueue(queue, `${name}-x`, "a.*.c");
  await channel.bindQueue(queue, `${name}-x`, "z.#");

  const headers = { s: "text", i: 7, big: 1 << 30, t: true, f: 1.5, nested: { list: [1, "two", null] } };
  for (const [n, key] of ["a.b.c", "z", "z.y.x", "a.c", "nothing"].entries()) {
    channel.publish(`${name}-x`, key, Buffer.from(`${n}`), {
      persistent: true, headers, contentType: "text/plain", correlationId: `c${n}`, messageId: `m${n}`, type: "t",
      replyTo: "r", appId: "app", timestamp: 12345, priority: 3, expiration: "600000",
    });
  }
  await channel.waitForConfirms();
  assert.strictEqual((await channel.checkQueue(queue)).messageCount, 3);

  const first = await channel.get(queue);
  assert.strictEqual(first.content.toString(), "0");
  assert.strictEqual(first.fields.routingKey, "a.b.c");
  assert.deepStrictEqual(first.properties.headers, headers);
  assert.strictEqual(first.properties.correlationId, "c0");
  assert.strictEqual(first.properties.timestamp, 12345);
  assert.strictEqual(first.properties.expiration, "600000");
  channel.nack(first);
  const again = await channel.get(queue);
  assert.strictEqual(again.content.toString(), "0");
  assert.strictEqual(again.fields.redelivered, true);
  channel.ack(again);

  const returned = new Promise((resolve) => channel.once("return", resolve));
  channel.publish("", `${name}-missing`, Buffer.from("lost"), { mandatory: true });
  assert.strictEqual((await returned).fields.replyCode, 312);

  await channel.prefetch(1);
  const got = [];
  let tag;
  await new Promise((resolve, reject) => {
    channel.consume(queue, (message) => {
      got.push(message.content.toString());
      channel.ack(message);
      if (got.length === 2) resolve();
    }).then((consumer) => (tag = consumer.consumerTag), reject);
  });
  assert.deepStrictEqual(got, ["1", "2"]);
  await channel.cancel(tag);

  const failing = await connection.createChannel();
  const failed = new Promise((resolve) => failing.once("error", resolve));
  await assert.rejects(failing.checkQueue(`${name}-missing`), /404|NOT_FOUND/);
  assert.strictEqual((await failed).code, 404);
  const clashing = await connection.createChannel();
  clashing.on("error", () => {});
  await assert.rejects(clashing.assertQueue(`${name}-q`, { durable: false }), /PRECONDITION_FAILED|406/);

  await channel.deleteQueue(queue);
  await channel.deleteExchange(`${name}-x`);
  await channel.close();
  await connection.close();
  console.log("done");
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
