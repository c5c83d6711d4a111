import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts records by key with Kafka Streams, exactly once: StreamsApp ADDRESS NAME RECORDS STATE_FOLDER. Whatever happens to the
 * broker meanwhile, a reader of committed records sees each count of each key once and in order.
 */
public class StreamsApp {
    static final int KEYS = 7;

    static Properties properties(String address) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        return properties;
    }

    static KafkaStreams counter(String address, String name, String folder) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(name + "-in").groupByKey()
            .count(Materialized.as(Stores.inMemoryKeyValueStore("counts")))
            .toStream().to(name + "-out", Produced.with(Serdes.String(), Serdes.Long()));
        Properties properties = properties(address);
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, name);
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 50);
        properties.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.String().getClass());
        properties.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.String().getClass());
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        streams.setUncaughtExceptionHandler(error -> StreamThreadExceptionResponse.REPLACE_THREAD);
        return streams;
    }

    /** Until each key has all its counts. */
    static void check(KafkaConsumer<String, Long> reader, int records) {
        Map<String, Long> counts = new HashMap<>();
        long deadline = System.nanoTime() + Duration.ofMinutes(3).toNanos();
        for (long seen = 0; seen < records;) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("got " + counts);
            }
            for (ConsumerRecord<String, Long> record : reader.poll(Duration.ofMillis(200))) {
                Long before = counts.put(record.key(), record.value());
                if (record.value() != (before == null ? 1 : before + 1)) {
                    throw new AssertionError(record + " follows " + before);
                }
                seen++;
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        String address = arguments[0], name = arguments[1];
        int records = Integer.parseInt(arguments[2]);
        try (Admin admin = Admin.create(properties(address))) {
            admin.createTopics(List.of(new NewTopic(name + "-in", 2, (short) 1), new NewTopic(name + "-out", 2, (short) 1)))
                .all().get();
        }
        System.err.println("started");
        Properties reading = properties(address);
        reading.put("group.id", name + "-reader");
        reading.put("isolation.level", "read_committed");
        reading.put("auto.offset.reset", "earliest");
        try (KafkaStreams streams = counter(address, name, arguments[3]);
             KafkaProducer<String, String> producer =
                 new KafkaProducer<>(properties(address), new StringSerializer(), new StringSerializer());
             KafkaConsumer<String, Long> reader =
                 new KafkaConsumer<>(reading, new StringDeserializer(), new LongDeserializer())) {
            streams.start();
            reader.subscribe(List.of(name + "-out"));
            for (int n = 0; n < records; n++) {
                producer.send(new ProducerRecord<>(name + "-in", "k" + n % KEYS, "" + n));
                Thread.sleep(5);
            }
            producer.flush();
            check(reader, records);
        }
        System.out.println("done");
    }
}
