import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Members of share groups (KIP-932).
 *
 * <p>ShareApp ADDRESS sharing|acknowledging|locks|offsets NAME checks one thing; ShareApp ADDRESS earliest GROUP lets a group start
 * at the first record; ShareApp ADDRESS member GROUP TOPIC accept|hold prints each record that it gets as "value deliveries", once it
 * is acknowledged if it accepts.
 */
public class ShareApp {
    static final Duration WAIT = Duration.ofSeconds(60);
    static String address;

    static Properties properties() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        return properties;
    }

    static KafkaShareConsumer<String, String> member(String group, String topic, String mode) {
        Properties properties = properties();
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", mode);
        KafkaShareConsumer<String, String> member =
            new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
        member.subscribe(List.of(topic));
        return member;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void create(Admin admin, String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
    }

    static void set(Admin admin, String group, String name, String value) throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        long deadline = System.nanoTime() + WAIT.toNanos();
        while (!admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value().equals(value)) {
            check(System.nanoTime() < deadline, name + " is not set");
        }
    }

    static void send(String topic, int from, int to) {
        Properties properties = properties();
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            for (int i = from; i < to; i++) {
                producer.send(new ProducerRecord<>(topic, i % 3, null, "m" + i));
            }
        }
    }

    /** Polls until there are so many records. */
    static List<ConsumerRecord<String, String>> take(KafkaShareConsumer<String, String> member, int count) {
        List<ConsumerRecord<String, String>> taken = new ArrayList<>();
        long deadline = System.nanoTime() + WAIT.toNanos();
        while (taken.size() < count) {
            member.poll(Duration.ofMillis(200)).forEach(taken::add);
            check(System.nanoTime() < deadline, "only " + taken.size() + " of " + count + " records");
        }
        return taken;
    }

    static void committed(Map<TopicIdPartition, Optional<org.apache.kafka.common.KafkaException>> done) {
        done.forEach((partition, error) -> check(error.isEmpty(), partition + ": " + error));
    }

    /** Two members get each record once, with implicit acknowledgement. */
    static void sharing(Admin admin, String name) throws Exception {
        create(admin, name, 3);
        set(admin, name, "share.auto.offset.reset", "earliest");
        send(name, 0, 100);
        Map<String, Integer> seen = new HashMap<>();
        int[] of = {0, 0};
        try (KafkaShareConsumer<String, String> a = member(name, name, "implicit");
                KafkaShareConsumer<String, String> b = member(name, name, "implicit")) {
            List<KafkaShareConsumer<String, String>> members = List.of(a, b);
            long deadline = System.nanoTime() + WAIT.toNanos();
            int sent = 100;
            while (seen.size() < 1000) {
                for (int i = 0; i < 2; i++) {
                    for (ConsumerRecord<String, String> record : members.get(i).poll(Duration.ofMillis(50))) {
                        seen.merge(record.value(), 1, Integer::sum);
                        check(record.deliveryCount().get() == 1, "deliveries");
                        of[i]++;
                    }
                }
                if (sent < 1000) {
                    send(name, sent, sent + 100);
                    sent += 100;
                }
                check(System.nanoTime() < deadline, "only " + seen.size() + " records");
            }
            committed(a.commitSync());
            committed(b.commitSync());
            ShareGroupDescription group = admin.describeShareGroups(List.of(name)).all().get().get(name);
            check(group.groupState() == GroupState.STABLE && group.members().size() == 2, "described: " + group);
            group.members().forEach(m -> check(m.assignment().topicPartitions().size() == 3, "assigned: " + m));
            ListGroupsOptions options = new ListGroupsOptions().withTypes(Set.of(GroupType.SHARE));
            boolean isListed = admin.listGroups(options).all().get().stream()
                .anyMatch(listed -> listed.groupId().equals(name) && listed.type().get() == GroupType.SHARE);
            check(isListed, "listed");
        }
        check(seen.values().stream().allMatch(times -> times == 1), "a record came twice");
        check(of[0] > 0 && of[1] > 0, "one member got all");
        check(admin.describeShareGroups(List.of(name)).all().get().get(name).groupState() == GroupState.EMPTY, "not empty");
        admin.deleteShareGroups(List.of(name)).all().get();
        check(admin.listGroups().all().get().stream().noneMatch(listed -> listed.groupId().equals(name)), "not deleted");
    }

    /** Records that are accepted and rejected do not come again; released ones do, up to the limit, and renewed ones stay. */
    static void acknowledging(Admin admin, String name) throws Exception {
        create(admin, name, 1);
        set(admin, name, "share.auto.offset.reset", "earliest");
        set(admin, name, "share.delivery.count.limit", "3");
        Properties properties = properties();
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            for (String value : List.of("accept", "release", "reject", "renew")) {
                producer.send(new ProducerRecord<>(name, value));
            }
        }
        Map<String, Integer> deliveries = new TreeMap<>();
        try (KafkaShareConsumer<String, String> member = member(name, name, "explicit")) {
            long quiet = 0;
            while (quiet < 5) {
                int got = 0;
                for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(500))) {
                    got++;
                    int count = record.deliveryCount().get();
                    deliveries.merge(record.value(), 1, Integer::sum);
                    check(deliveries.get(record.value()) == count, record.value() + " has count " + count);
                    member.acknowledge(record, AcknowledgeType.valueOf(record.value().toUpperCase()));
                    if (record.value().equals("renew")) {
                        committed(member.commitSync());
                        deliveries.put("renew", 0);
                        ConsumerRecord<String, String> again = member.poll(Duration.ofSeconds(10)).iterator().next();
                        check(again.value().equals("renew"), "after renewing: " + again.value());
                        deliveries.put("renew", 1);
                        member.acknowledge(again, AcknowledgeType.ACCEPT);
                    }
                }
                committed(member.commitSync());
                quiet = deliveries.getOrDefault("release", 0) == 3 && got == 0 ? quiet + 1 : 0;
            }
        }
        check(deliveries.equals(Map.of("accept", 1, "release", 3, "reject", 1, "renew", 1)), "deliveries " + deliveries);
    }

    /** A member that does not acknowledge in time loses its records to another. */
    static void locks(Admin admin, String name) throws Exception {
        create(admin, name, 3);
        set(admin, name, "share.auto.offset.reset", "earliest");
        send(name, 0, 30);
        try (KafkaShareConsumer<String, String> slow = member(name, name, "explicit");
                KafkaShareConsumer<String, String> other = member(name, name, "explicit")) {
            List<ConsumerRecord<String, String>> held = take(slow, 30);
            List<ConsumerRecord<String, String>> again = take(other, 30);
            again.forEach(record -> {
                check(record.deliveryCount().get() == 2, "deliveries: " + record.deliveryCount());
                other.acknowledge(record, AcknowledgeType.ACCEPT);
            });
            committed(other.commitSync());
            held.forEach(record -> slow.acknowledge(record, AcknowledgeType.ACCEPT));
            slow.commitSync().forEach((partition, error) -> check(error.isPresent(), partition + " was accepted too late"));
        }
    }

    /** The start offsets of an empty group are told, changed and deleted. */
    static void offsets(Admin admin, String name) throws Exception {
        create(admin, name, 3);
        set(admin, name, "share.auto.offset.reset", "earliest");
        send(name, 0, 30);
        try (KafkaShareConsumer<String, String> member = member(name, name, "implicit")) {
            take(member, 30);
            committed(member.commitSync());
        }
        Map<String, ListShareGroupOffsetsSpec> all = Map.of(name, new ListShareGroupOffsetsSpec());
        Set<String> told = new HashSet<>();
        admin.listShareGroupOffsets(all).partitionsToOffsetInfo(name).get()
            .forEach((partition, offset) -> told.add(partition.partition() + " " + offset.startOffset() + " " + offset.lag().get()));
        check(told.equals(Set.of("0 10 0", "1 10 0", "2 10 0")), "told " + told);
        admin.alterShareGroupOffsets(name, Map.of(new TopicPartition(name, 1), 4L)).all().get();
        try (KafkaShareConsumer<String, String> member = member(name, name, "implicit")) {
            Set<Long> again = new HashSet<>();
            take(member, 6).forEach(record -> again.add(record.offset()));
            check(again.equals(Set.of(4L, 5L, 6L, 7L, 8L, 9L)), "again " + again);
            committed(member.commitSync());
        }
        admin.deleteShareGroupOffsets(name, Set.of(name)).all().get();
        check(admin.listShareGroupOffsets(all).partitionsToOffsetInfo(name).get().isEmpty(), "not deleted");
        try (KafkaShareConsumer<String, String> member = member(name, name, "implicit")) {
            take(member, 30);
        }
    }

    static void member(String group, String topic, boolean accepts) throws Exception {
        try (KafkaShareConsumer<String, String> member = member(group, topic, "explicit")) {
            while (true) {
                List<String> lines = new ArrayList<>();
                for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(200))) {
                    lines.add(record.value() + " " + record.deliveryCount().get());
                    if (accepts) {
                        member.acknowledge(record, AcknowledgeType.ACCEPT);
                    }
                }
                if (accepts) {
                    committed(member.commitSync());
                }
                lines.forEach(System.out::println);
                System.out.flush();
                if (!accepts && !lines.isEmpty()) {
                    Thread.sleep(Duration.ofMinutes(10).toMillis());
                }
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        if (arguments[1].equals("member")) {
            member(arguments[2], arguments[3], arguments[4].equals("accept"));
            return;
        }
        try (Admin admin = Admin.create(properties())) {
            switch (arguments[1]) {
                case "sharing" -> sharing(admin, arguments[2]);
                case "acknowledging" -> acknowledging(admin, arguments[2]);
                case "locks" -> locks(admin, arguments[2]);
                case "offsets" -> offsets(admin, arguments[2]);
                case "earliest" -> set(admin, arguments[2], "share.auto.offset.reset", "earliest");
                default -> throw new IllegalArgumentException(arguments[1]);
            }
        }
        System.out.println("ok");
    }
}
