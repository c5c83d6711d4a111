import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** Kafka's own client, new and old: produce, consume, two members of a group, commit, seek, by time. */
public final class KafkaApp {
    public static void main(String[] arguments) throws Exception {
        String broker = arguments[0], topic = arguments[1];
        Properties common = new Properties();
        common.put("bootstrap.servers", broker);
        int count = 500;
        try (Admin admin = Admin.create(common)) {
            admin.createTopics(List.of(new NewTopic(topic, 4, (short) 1))).all().get(30, TimeUnit.SECONDS);
            check(admin.describeCluster().nodes().get(30, TimeUnit.SECONDS).size() == 1, "one node");
        }
        long middle = 0;
        for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Properties settings = new Properties();
            settings.putAll(common);
            settings.put("acks", "all");
            settings.put("compression.type", compression);
            settings.put("linger.ms", "5");
            try (Producer<String, byte[]> producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
                check(producer.partitionsFor(topic).size() == 4, "four partitions");
                for (int n = 0; n < count; n++) {
                    ProducerRecord<String, byte[]> record = new ProducerRecord<>(topic, "key" + n % 50, (compression + " " + n).getBytes());
                    record.headers().add("h", new byte[] {0, (byte) n}).add("h", null);
                    producer.send(record);
                }
                producer.flush();
            }
            if (compression.equals("snappy")) { middle = System.currentTimeMillis() + 1; while (System.currentTimeMillis() <= middle) Thread.onSpinWait(); }
        }
        Properties settings = new Properties();
        settings.putAll(common);
        settings.put("group.id", topic + "-group");
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("session.timeout.ms", "10000");
        settings.put("heartbeat.interval.ms", "300");
        Set<String> got = new HashSet<>();
        Map<String, Integer> last = new HashMap<>();
        try (Consumer<String, byte[]> one = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
             Consumer<String, byte[]> two = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            long deadline = System.currentTimeMillis() + 60_000;
            boolean shared = false;
            while (got.size() < 5 * count || !shared) {
                check(System.currentTimeMillis() < deadline, got.size() + " records, " + one.assignment() + two.assignment());
                for (Consumer<String, byte[]> member : List.of(one, two)) {
                    for (ConsumerRecord<String, byte[]> record : member.poll(Duration.ofMillis(100))) {
                        got.add(new String(record.value()));
                        Iterator<org.apache.kafka.common.header.Header> headers = record.headers().iterator();
                        check(headers.next().value().length == 2 && headers.next().value() == null, "headers");
                    }
                    member.commitSync();
                }
                shared = one.assignment().size() == 2 && two.assignment().size() == 2;
            }
        }
        check(got.size() == 5 * count, "all records");
        settings.put("group.id", topic + "-other");
        try (Consumer<String, byte[]> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            Map<TopicPartition, Long> times = new HashMap<>();
            for (int n = 0; n < 4; n++) { partitions.add(new TopicPartition(topic, n)); times.put(new TopicPartition(topic, n), middle); }
            consumer.assign(partitions);
            long total = consumer.endOffsets(partitions).values().stream().mapToLong(each -> each).sum();
            check(total == 5 * count, "end offsets " + total);
            long later = 0;
            for (Map.Entry<TopicPartition, OffsetAndTimestamp> each : consumer.offsetsForTimes(times).entrySet()) {
                later += consumer.endOffsets(List.of(each.getKey())).get(each.getKey()) - each.getValue().offset();
                consumer.seek(each.getKey(), each.getValue().offset());
            }
            check(later == 2 * count, "two kinds are later than the middle: " + later);
            int seen = 0;
            long deadline = System.currentTimeMillis() + 30_000;
            while (seen < later && System.currentTimeMillis() < deadline) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    String value = new String(record.value());
                    check(value.startsWith("lz4") || value.startsWith("zstd"), value);
                    seen++;
                }
            }
            check(seen == later, "all later ones");
        }
        try (Admin admin = Admin.create(common)) {
            long sum = 0;
            for (OffsetAndMetadata each : admin.listConsumerGroupOffsets(topic + "-group").partitionsToOffsetAndMetadata().get().values()) sum += each.offset();
            check(sum == 5 * count, "committed " + sum);
            check(admin.listConsumerGroups().all().get().stream().anyMatch(group -> group.groupId().equals(topic + "-group")), "listed");
            admin.deleteConsumerGroups(List.of(topic + "-group")).all().get();
            admin.deleteTopics(List.of(topic)).all().get();
        }
        System.out.println("done");
    }

    static void check(boolean truth, String what) {
        if (!truth) throw new AssertionError(what);
    }
}
