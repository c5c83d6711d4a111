import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt5.Mqtt5BlockingClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5Client;
import com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5Publish;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client, MQTT 5: every QoS, receive maximum, aliases, shared subscription. */
public final class HiveApp {
    public static void main(String[] arguments) throws Exception {
        // Its threads would keep the process alive after a failure.
        Thread.currentThread().setUncaughtExceptionHandler((thread, error) -> { error.printStackTrace(); System.exit(1); });
        String host = arguments[0], prefix = arguments[2];
        int port = Integer.parseInt(arguments[1]);
        Mqtt5BlockingClient publisher = client(host, port, prefix + "-pub");
        Mqtt5BlockingClient one = client(host, port, prefix + "-1"), two = client(host, port, prefix + "-2");
        publisher.connect();
        one.connectWith().restrictions().receiveMaximum(5).topicAliasMaximum(3).applyRestrictions().send();
        two.connectWith().restrictions().receiveMaximum(5).applyRestrictions().send();
        try (var first = one.publishes(MqttGlobalPublishFilter.ALL); var second = two.publishes(MqttGlobalPublishFilter.ALL)) {
            one.subscribeWith().topicFilter("$share/g/" + prefix + "/#").qos(MqttQos.EXACTLY_ONCE).send();
            two.subscribeWith().topicFilter("$share/g/" + prefix + "/#").qos(MqttQos.AT_LEAST_ONCE).send();
            int count = 300;
            for (int n = 0; n < count; n++) {
                publisher.publishWith().topic(prefix + "/" + n % 5).qos(MqttQos.fromCode(1 + n % 2)).payload(("m" + n).getBytes(StandardCharsets.UTF_8)).send();
            }
            Set<String> got = new HashSet<>();
            int[] shares = new int[2];
            long deadline = System.currentTimeMillis() + 30_000;
            while (got.size() < count && System.currentTimeMillis() < deadline) {
                int member = 0;
                for (var publishes : java.util.List.of(first, second)) {
                    var message = publishes.receive(20, TimeUnit.MILLISECONDS);
                    while (message.isPresent()) {
                        check(got.add(new String(message.get().getPayloadAsBytes(), StandardCharsets.UTF_8)), "each once");
                        shares[member]++;
                        message = publishes.receive(1, TimeUnit.MILLISECONDS);
                    }
                    member++;
                }
            }
            check(got.size() == count, got.size() + " of " + count);
            check(shares[0] > 0 && shares[1] > 0, "both members worked");
        }
        publisher.disconnect();
        one.disconnect();
        two.disconnect();
        System.out.println("done");
        System.exit(0);
    }

    static Mqtt5BlockingClient client(String host, int port, String id) {
        return Mqtt5Client.builder().serverHost(host).serverPort(port).identifier(id).buildBlocking();
    }

    static void check(boolean truth, String what) {
        if (!truth) throw new AssertionError(what);
    }
}
