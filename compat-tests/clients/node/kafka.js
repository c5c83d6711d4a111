// kafkajs: produce, consume by a group, commit, admin. Arguments: broker, topic.
const { Kafka, logLevel, CompressionTypes } = require("kafkajs");
const assert = require("assert");

async function main(broker, topic) {
  const kafka = new Kafka({ clientId: "compat", brokers: [broker], logLevel: logLevel.ERROR });
  const admin = kafka.admin();
  await admin.connect();
  assert(await admin.createTopics({ topics: [{ topic, numPartitions: 3 }] }));
  const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
  assert.strictEqual(metadata.topics[0].partitions.length, 3);

  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const wanted = Array.from({ length: 100 }, (_, n) => `value ${n}`);
  await producer.send({
    topic,
    compression: CompressionTypes.GZIP,
    messages: wanted.map((value, n) => ({ key: `k${n % 10}`, value, headers: { n: `${n}`, twice: ["a", "b"] } })),
  });
  await producer.send({ topic, messages: [{ key: "tombstone", value: null }] });
  await producer.disconnect();

  const consumer = kafka.consumer({ groupId: `${topic}-group`, sessionTimeout: 10000, maxWaitTimeInMs: 200 });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const got = [];
  await new Promise((resolve, reject) => {
    consumer.run({
      eachMessage: async ({ message }) => {
        try {
          if (message.value !== null) {
            const n = Number(message.value.toString().split(" ")[1]);
            assert.strictEqual(message.headers.n.toString(), `${n}`);
            assert.deepStrictEqual(message.headers.twice.map(String), ["a", "b"]);
            assert.strictEqual(message.key.toString(), `k${n % 10}`);
          }
          got.push(message.value === null ? null : message.value.toString());
          if (got.length === wanted.length + 1) resolve();
        } catch (error) {
          reject(error);
        }
      },
    });
  });
  assert.deepStrictEqual(got.filter((value) => value !== null).sort(), [...wanted].sort());
  await consumer.disconnect();

  const offsets = await admin.fetchOffsets({ groupId: `${topic}-group`, topics: [topic] });
  const committed = offsets[0].partitions.reduce((sum, each) => sum + Math.max(0, Number(each.offset)), 0);
  assert.strictEqual(committed, wanted.length + 1);
  const groups = await admin.listGroups();
  assert(groups.groups.some((group) => group.groupId === `${topic}-group`));
  const ends = await admin.fetchTopicOffsets(topic);
  assert.strictEqual(ends.reduce((sum, each) => sum + Number(each.high), 0), wanted.length + 1);
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
  console.log("done");
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
