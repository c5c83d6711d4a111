import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Transactions of Kafka's own client: TransactionApp ADDRESS NAME. */
public class TransactionApp {
    static String address;
    static String name;

    static Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        return properties;
    }

    static KafkaProducer<String, String> producer(String id) {
        Properties properties = properties();
        properties.put("transactional.id", id);
        KafkaProducer<String, String> producer =
            new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    static KafkaConsumer<String, String> consumer(String group) {
        Properties properties = properties();
        properties.put("group.id", group);
        properties.put("isolation.level", "read_committed");
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    static List<String> take(KafkaConsumer<String, String> consumer, int count) {
        List<String> values = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (values.size() < count) {
            check(System.nanoTime() < deadline, "got " + values);
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                values.add(record.value());
            }
        }
        return values;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object got, Object wanted) {
        check(got.equals(wanted), "got " + got + ", wanted " + wanted);
    }

    static long stable(Admin admin, TopicPartition partition) throws Exception {
        ListOffsetsOptions options = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
        return admin.listOffsets(Map.of(partition, OffsetSpec.latest()), options).partitionResult(partition).get().offset();
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        name = arguments[1];
        String in = name + "-in", out = name + "-out";
        TopicPartition first = new TopicPartition(out, 0);
        try (Admin admin = Admin.create(properties());
             KafkaConsumer<String, String> reader = consumer(name + "-reader");
             KafkaConsumer<String, String> mover = consumer(name + "-mover")) {
            admin.createTopics(List.of(new NewTopic(in, 1, (short) 1), new NewTopic(out, 2, (short) 1))).all().get();
            check(admin.describeFeatures().featureMetadata().get().finalizedFeatures()
                .get("transaction.version").maxVersionLevel() == 2, "the level of transactions");
            KafkaProducer<String, String> producer = producer(name);
            reader.assign(Set.of(first));
            List<String> committed = new ArrayList<>();
            for (int n = 0; n < 30; n++) {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(out, 0, "k", "v" + n)).get();
                producer.send(new ProducerRecord<>(out, 1, "k", "w" + n)).get();
                check(stable(admin, first) == 2 * n, "an open transaction is visible");
                if (n % 4 == 1) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    committed.add("v" + n);
                }
            }
            equal(take(reader, committed.size()), committed);
            // Consume, transform, produce.
            producer.beginTransaction();
            for (int n = 0; n < 20; n++) {
                producer.send(new ProducerRecord<>(in, "k", "" + n));
            }
            producer.commitTransaction();
            mover.subscribe(List.of(in));
            List<String> moved = new ArrayList<>();
            while (moved.size() < 20) {
                List<String> values = take(mover, 1);
                producer.beginTransaction();
                for (String value : values) {
                    producer.send(new ProducerRecord<>(out, 0, "k", "moved " + value));
                    moved.add("moved " + value);
                }
                TopicPartition source = new TopicPartition(in, 0);
                Map<TopicPartition, OffsetAndMetadata> offsets =
                    Map.of(source, new OffsetAndMetadata(mover.position(source)));
                producer.sendOffsetsToTransaction(offsets, mover.groupMetadata());
                producer.commitTransaction();
            }
            equal(take(reader, 20), moved);
            long position = admin.listConsumerGroupOffsets(name + "-mover").partitionsToOffsetAndMetadata().get()
                .get(new TopicPartition(in, 0)).offset();
            equal(position, mover.position(new TopicPartition(in, 0)));
            // Fencing.
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(out, 0, "k", "fenced")).get();
            KafkaProducer<String, String> next = producer(name);
            try {
                producer.send(new ProducerRecord<>(out, 0, "k", "late"));
                producer.commitTransaction();
                check(false, "the old producer is not fenced");
            } catch (ProducerFencedException | InvalidProducerEpochException expected) {
                producer.close(Duration.ZERO);
            }
            next.beginTransaction();
            next.send(new ProducerRecord<>(out, 0, "k", "next"));
            next.commitTransaction();
            equal(take(reader, 1), List.of("next"));
            equal(admin.describeTransactions(Set.of(name)).description(name).get().state().toString(), "CompleteCommit");
            next.close();
        }
        System.out.println("done");
    }
}
