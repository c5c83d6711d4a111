// kafkajs: transactions with offsets, aborted ones, fencing. Arguments: broker, name.
const { Kafka, logLevel } = require("kafkajs");
const assert = require("assert");

async function main(broker, name) {
  const kafka = new Kafka({ clientId: "compat", brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 3 } });
  const [source, target, group] = [`${name}-in`, `${name}-out`, `${name}-group`];
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: source }, { topic: target, numPartitions: 2 }] });

  const connected = async () => {
    const producer = kafka.producer({ transactionalId: name, maxInFlightRequests: 1, idempotent: true });
    await producer.connect();
    return producer;
  };
  const producer = await connected();
  const wanted = [];
  for (let n = 0; n < 10; n++) {
    const transaction = await producer.transaction();
    await transaction.send({ topic: target, messages: [{ value: `${n}`, partition: n % 2 }] });
    await transaction.sendOffsets({
      consumerGroupId: group,
      topics: [{ topic: source, partitions: [{ partition: 0, offset: `${n + 1}` }] }],
    });
    if (n % 3 === 1) {
      await transaction.abort();
    } else {
      await transaction.commit();
      wanted.push(`${n}`);
    }
  }
  const offsets = await admin.fetchOffsets({ groupId: group, topics: [source] });
  assert.strictEqual(offsets[0].partitions[0].offset, "10");

  const consumer = kafka.consumer({ groupId: `${group}-reader`, readUncommitted: false, maxWaitTimeInMs: 100 });
  await consumer.connect();
  await consumer.subscribe({ topics: [target], fromBeginning: true });
  const got = [];
  const all = new Promise((resolve) => {
    consumer.run({
      eachMessage: async ({ message }) => {
        got.push(message.value.toString());
        if (message.value.toString() === "last") resolve();
      },
    });
  });
  const fenced = await producer.transaction();
  await fenced.send({ topic: target, messages: [{ value: "never" }] });
  const next = await connected();
  const last = await next.transaction();
  await assert.rejects(fenced.commit());
  await last.send({ topic: target, messages: [{ value: "last", partition: 0 }] });
  await last.commit();
  await all;
  // The other partition's records may come later than the last one of this.
  while (got.length < wanted.length + 1) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepStrictEqual(got.sort(), [...wanted, "last"].sort());
  for (const client of [consumer, producer, next, admin]) await client.disconnect();
  console.log("ok");
}

main(...process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1); },
);
