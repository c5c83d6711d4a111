import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Consumers of a group whose assignment the broker makes (KIP-848): ConsumerGroupApp ADDRESS NAME. */
public class ConsumerGroupApp {
    static String address;
    static String name;

    static Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        return properties;
    }

    static KafkaConsumer<String, String> consumer(String protocol, String... more) {
        Properties properties = properties();
        properties.put("group.id", name);
        properties.put("group.protocol", protocol);
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        for (int i = 0; i < more.length; i += 2) {
            properties.put(more[i], more[i + 1]);
        }
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    /** Polls the consumers until a condition holds; the values that they got. */
    static List<String> poll(Condition condition, String what, List<KafkaConsumer<String, String>> consumers) throws Exception {
        List<String> values = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (!condition.holds()) {
            String seen = "";
            for (KafkaConsumer<String, String> consumer : consumers) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(50))) {
                    values.add(record.value());
                }
                seen += consumer.assignment() + " ";
            }
            check(System.nanoTime() < deadline, what + ": " + seen);
        }
        return values;
    }

    static boolean shared(List<KafkaConsumer<String, String>> consumers, int... sizes) {
        Set<TopicPartition> all = new HashSet<>();
        int total = 0;
        for (int i = 0; i < sizes.length; i++) {
            Set<TopicPartition> assigned = consumers.get(i).assignment();
            all.addAll(assigned);
            total += sizes[i];
            if (assigned.size() != sizes[i]) {
                return false;
            }
        }
        return all.size() == total;
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        name = arguments[1];
        Map<String, Integer> counts = new HashMap<>();
        try (Admin admin = Admin.create(properties());
             KafkaProducer<String, String> producer =
                 new KafkaProducer<>(properties(), new StringSerializer(), new StringSerializer())) {
            admin.createTopics(List.of(new NewTopic(name, 6, (short) 1))).all().get();
            KafkaConsumer<String, String> one = consumer("consumer"), two = consumer("consumer");
            one.subscribe(List.of(name));
            two.subscribe(List.of(name));
            List<KafkaConsumer<String, String>> both = List.of(one, two);
            poll(() -> shared(both, 3, 3), "three partitions each", both);
            for (int n = 0; n < 60; n++) {
                producer.send(new ProducerRecord<>(name, n % 6, "k", "v" + n)).get();
            }
            List<String> got = new ArrayList<>();
            long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (got.size() < 60) {
                check(System.nanoTime() < deadline, "got " + got.size());
                for (KafkaConsumer<String, String> consumer : both) {
                    consumer.poll(Duration.ofMillis(50)).forEach(record -> got.add(record.value()));
                    consumer.commitSync();
                }
            }
            check(new HashSet<>(got).size() == 60, "something twice");
            ConsumerGroupDescription group = admin.describeConsumerGroups(List.of(name)).all().get().get(name);
            check(group.type() == GroupType.CONSUMER && group.groupState() == GroupState.STABLE, group.toString());
            check(group.partitionAssignor().equals("uniform") && group.members().size() == 2, group.toString());
            for (MemberDescription member : group.members()) {
                check(member.assignment().topicPartitions().size() == 3, member.toString());
                check(member.assignment().equals(member.targetAssignment().get()), member.toString());
            }
            // A member of the other protocol does not get in while there are members.
            try (KafkaConsumer<String, String> other = consumer("classic")) {
                other.subscribe(List.of(name));
                poll(() -> other.poll(Duration.ofMillis(50)).isEmpty() && !other.assignment().isEmpty(), "a refusal", both);
                check(false, "a member of the other protocol got in");
            } catch (InconsistentGroupProtocolException expected) {
                check(shared(both, 3, 3), "members lost partitions to a client that was refused");
            }
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(8))).all().get();
            poll(() -> shared(both, 4, 4), "the new partitions", both);
            two.close();
            poll(() -> one.assignment().size() == 8, "all partitions", List.of(one));
            one.close();
            // Both ways between the protocols, with the committed offsets.
            for (String protocol : List.of("classic", "consumer")) {
                KafkaConsumer<String, String> next = consumer(protocol, protocol.equals("classic") ? "session.timeout.ms" : "group.remote.assignor",
                    protocol.equals("classic") ? "10000" : "range");
                next.subscribe(List.of(name));
                producer.send(new ProducerRecord<>(name, 0, "k", protocol)).get();
                List<String> values = new ArrayList<>();
                values.addAll(poll(() -> next.assignment().size() == 8, "partitions by " + protocol, List.of(next)));
                long until = System.nanoTime() + Duration.ofSeconds(60).toNanos();
                while (values.isEmpty()) {
                    check(System.nanoTime() < until, "nothing by " + protocol);
                    next.poll(Duration.ofMillis(100)).forEach(record -> values.add(record.value()));
                }
                check(values.equals(List.of(protocol)), values.toString());
                next.commitSync();
                next.close();
            }
            // A pattern that the broker matches.
            KafkaConsumer<String, String> matching = consumer("consumer", "group.id", name + "-matching");
            matching.subscribe(new SubscriptionPattern(name + "-m[0-9]+"));
            admin.createTopics(List.of(new NewTopic(name + "-m1", 1, (short) 1), new NewTopic(name + "-mx", 1, (short) 1))).all().get();
            poll(() -> matching.assignment().equals(Set.of(new TopicPartition(name + "-m1", 0))), "m1", List.of(matching));
            admin.createTopics(List.of(new NewTopic(name + "-m22", 2, (short) 1))).all().get();
            poll(() -> matching.assignment().size() == 3, "m22 as well", List.of(matching));
            matching.close();
        }
        System.out.println("done");
    }
}
