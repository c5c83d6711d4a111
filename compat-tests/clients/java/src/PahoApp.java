import java.util.Arrays;
import java.util.concurrent.*;

/** Eclipse Paho for Java, 3.1.1 and 5. */
public final class PahoApp {
    public static void main(String[] arguments) throws Exception {
        // Its threads would keep the process alive after a failure.
        Thread.currentThread().setUncaughtExceptionHandler((thread, error) -> { error.printStackTrace(); System.exit(1); });
        three(arguments[0], arguments[1] + "/three");
        five(arguments[0], arguments[1] + "/five");
        System.out.println("done");
        System.exit(0);
    }

    static void three(String url, String prefix) throws Exception {
        var store = new org.eclipse.paho.client.mqttv3.persist.MemoryPersistence();
        var options = new org.eclipse.paho.client.mqttv3.MqttConnectOptions();
        options.setCleanSession(false);
        BlockingQueue<byte[]> got = new LinkedBlockingQueue<>();
        var subscriber = new org.eclipse.paho.client.mqttv3.MqttClient(url, prefix.replace('/', '-'), store);
        subscriber.connect(options);
        subscriber.subscribe(prefix + "/+", 2);
        subscriber.disconnect();
        subscriber.close();
        var publisher = new org.eclipse.paho.client.mqttv3.MqttClient(url, prefix.replace('/', '-') + "-pub", new org.eclipse.paho.client.mqttv3.persist.MemoryPersistence());
        publisher.connect();
        for (int n = 0; n < 60; n++) publisher.publish(prefix + "/a", new byte[] {(byte) n}, 1 + n / 30, false);
        publisher.disconnect();
        subscriber = new org.eclipse.paho.client.mqttv3.MqttClient(url, prefix.replace('/', '-'), new org.eclipse.paho.client.mqttv3.persist.MemoryPersistence());
        subscriber.setCallback(new org.eclipse.paho.client.mqttv3.MqttCallback() {
            public void connectionLost(Throwable cause) { }
            public void messageArrived(String topic, org.eclipse.paho.client.mqttv3.MqttMessage message) { got.add(message.getPayload()); }
            public void deliveryComplete(org.eclipse.paho.client.mqttv3.IMqttDeliveryToken token) { }
        });
        check(subscriber.connectWithResult(options).getSessionPresent(), "session present");
        for (int n = 0; n < 60; n++) {
            byte[] payload = got.poll(10, TimeUnit.SECONDS);
            check(payload != null && payload[0] == n, "message " + n + " is " + Arrays.toString(payload));
        }
        subscriber.disconnect();
    }

    static void five(String url, String prefix) throws Exception {
        var store = new org.eclipse.paho.mqttv5.client.persist.MemoryPersistence();
        var client = new org.eclipse.paho.mqttv5.client.MqttClient(url, prefix.replace('/', '-'), store);
        BlockingQueue<org.eclipse.paho.mqttv5.common.MqttMessage> got = new LinkedBlockingQueue<>();
        client.setCallback(new org.eclipse.paho.mqttv5.client.MqttCallback() {
            public void disconnected(org.eclipse.paho.mqttv5.client.MqttDisconnectResponse response) { }
            public void mqttErrorOccurred(org.eclipse.paho.mqttv5.common.MqttException error) { }
            public void messageArrived(String topic, org.eclipse.paho.mqttv5.common.MqttMessage message) { got.add(message); }
            public void deliveryComplete(org.eclipse.paho.mqttv5.client.IMqttToken token) { }
            public void connectComplete(boolean reconnect, String server) { }
            public void authPacketArrived(int reason, org.eclipse.paho.mqttv5.common.packet.MqttProperties properties) { }
        });
        client.connect();
        client.subscribe(prefix + "/#", 2);
        var properties = new org.eclipse.paho.mqttv5.common.packet.MqttProperties();
        properties.setContentType("text/plain");
        properties.setCorrelationData(new byte[] {0, 1, (byte) 255});
        properties.setUserProperties(java.util.List.of(new org.eclipse.paho.mqttv5.common.packet.UserProperty("k", "1"), new org.eclipse.paho.mqttv5.common.packet.UserProperty("k", "2")));
        for (int qos = 0; qos < 3; qos++) {
            var message = new org.eclipse.paho.mqttv5.common.MqttMessage(new byte[1000], qos, false, properties);
            client.publish(prefix + "/a/b", message);
            var back = got.poll(10, TimeUnit.SECONDS);
            check(back != null && back.getQos() == qos && back.getPayload().length == 1000, "QoS " + qos);
            check(back.getProperties().getUserProperties().size() == 2 && back.getProperties().getUserProperties().get(1).getValue().equals("2"), "user properties in order");
            check(Arrays.equals(back.getProperties().getCorrelationData(), properties.getCorrelationData()), "correlation");
        }
        client.disconnect();
    }

    static void check(boolean truth, String what) {
        if (!truth) throw new AssertionError(what);
    }
}
