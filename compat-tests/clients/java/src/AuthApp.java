import com.hivemq.client.mqtt.MqttClientState;
import com.hivemq.client.mqtt.datatypes.*;
import com.hivemq.client.mqtt.mqtt5.*;
import com.hivemq.client.mqtt.mqtt5.auth.Mqtt5EnhancedAuthMechanism;
import com.hivemq.client.mqtt.mqtt5.exceptions.*;
import com.hivemq.client.mqtt.mqtt5.message.auth.*;
import com.hivemq.client.mqtt.mqtt5.message.connect.Mqtt5Connect;
import com.hivemq.client.mqtt.mqtt5.message.connect.connack.Mqtt5ConnAck;
import com.hivemq.client.mqtt.mqtt5.message.disconnect.Mqtt5Disconnect;
import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.*;
import javax.security.auth.callback.*;
import javax.security.sasl.*;
import org.apache.kafka.common.security.scram.internals.*;

/**
 * HiveMQ's client with enhanced authentication of MQTT 5 and Kafka's implementation of SCRAM, or OAUTHBEARER. Takes a command
 * a line from standard input and answers each with a line. Arguments: host, port, client id, method, user, secret. A user
 * "token:ID" is a delegation token of Kafka's (KIP-48).
 */
public final class AuthApp implements Mqtt5EnhancedAuthMechanism {
    final String method, user;
    volatile String secret;
    volatile SaslClient sasl;
    final CompletableFuture<Integer> disconnected = new CompletableFuture<>();

    AuthApp(String method, String user, String secret) { this.method = method; this.user = user; this.secret = secret; }

    byte[] first() {
        if (method.equals("OAUTHBEARER")) return ("n,,\1auth=Bearer " + secret + "\1\1").getBytes(StandardCharsets.UTF_8);
        try {
            sasl = new ScramSaslClient(ScramMechanism.forMechanismName(method), callbacks -> {
                for (Callback callback : callbacks) {
                    if (callback instanceof NameCallback name) name.setName(user.replaceFirst("^token:", ""));
                    else if (callback instanceof PasswordCallback password) password.setPassword(secret.toCharArray());
                    else if (callback instanceof org.apache.kafka.common.security.scram.ScramExtensionsCallback extensions)
                        extensions.extensions(user.startsWith("token:") ? java.util.Map.of("tokenauth", "true") : java.util.Map.of());
                    else throw new UnsupportedCallbackException(callback);
                }
            });
            return sasl.evaluateChallenge(new byte[0]);
        } catch (Exception error) { throw new IllegalStateException(error); }
    }

    static byte[] bytes(ByteBuffer buffer) { byte[] out = new byte[buffer.remaining()]; buffer.get(out); return out; }

    CompletableFuture<Boolean> proved(java.util.Optional<ByteBuffer> data) {
        if (method.equals("OAUTHBEARER")) return CompletableFuture.completedFuture(true);
        try {
            sasl.evaluateChallenge(bytes(data.orElseThrow()));
            return CompletableFuture.completedFuture(sasl.isComplete());
        } catch (SaslException error) { return CompletableFuture.completedFuture(false); }
    }

    public MqttUtf8String getMethod() { return MqttUtf8String.of(method); }
    public int getTimeout() { return 10; }
    public CompletableFuture<Void> onAuth(Mqtt5ClientConfig config, Mqtt5Connect connect, Mqtt5EnhancedAuthBuilder builder) {
        builder.data(first());
        return CompletableFuture.completedFuture(null);
    }
    public CompletableFuture<Void> onReAuth(Mqtt5ClientConfig config, Mqtt5AuthBuilder builder) {
        builder.data(first());
        return CompletableFuture.completedFuture(null);
    }
    public CompletableFuture<Boolean> onContinue(Mqtt5ClientConfig config, Mqtt5Auth auth, Mqtt5AuthBuilder builder) {
        try {
            builder.data(sasl.evaluateChallenge(bytes(auth.getData().orElseThrow())));
            return CompletableFuture.completedFuture(true);
        } catch (SaslException error) { return CompletableFuture.completedFuture(false); }
    }
    public CompletableFuture<Boolean> onAuthSuccess(Mqtt5ClientConfig config, Mqtt5ConnAck connAck) {
        return proved(connAck.getEnhancedAuth().flatMap(Mqtt5EnhancedAuth::getData));
    }
    public CompletableFuture<Boolean> onReAuthSuccess(Mqtt5ClientConfig config, Mqtt5Auth auth) { return proved(auth.getData()); }
    public void onAuthRejected(Mqtt5ClientConfig config, Mqtt5ConnAck connAck) { }
    public void onReAuthRejected(Mqtt5ClientConfig config, Mqtt5Disconnect disconnect) { }
    public void onAuthError(Mqtt5ClientConfig config, Throwable cause) { }
    public void onReAuthError(Mqtt5ClientConfig config, Throwable cause) { }

    public static void main(String[] arguments) throws Exception {
        AuthApp app = new AuthApp(arguments[3], arguments[4], arguments[5]);
        Mqtt5AsyncClient client = Mqtt5Client.builder().serverHost(arguments[0]).serverPort(Integer.parseInt(arguments[1]))
            .identifier(arguments[2]).enhancedAuth(app)
            .addDisconnectedListener(context -> {
                if (context.getCause() instanceof Mqtt5DisconnectException cause) app.disconnected.complete(cause.getMqttMessage().getReasonCode().getCode());
            }).buildAsync();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] parts = line.split(" ");
            System.out.println(switch (parts[0]) {
                case "connect" -> app.answer(client.connect(), "connected");
                case "reauth" -> app.answer(client.reauth(), "reauthenticated");
                case "publish" -> app.answer(client.publishWith().topic(parts[1]).qos(MqttQos.AT_LEAST_ONCE).payload("x".getBytes()).send(), "published");
                case "subscribe" -> app.answer(client.subscribeWith().topicFilter(parts[1]).qos(MqttQos.AT_LEAST_ONCE)
                    .callback(message -> System.out.println("message " + message.getTopic() + " " + new String(message.getPayloadAsBytes()))).send(), "granted 1");
                case "secret" -> { app.secret = parts[1]; yield "ok"; }
                case "wait" -> "disconnected " + app.disconnected.get(30, TimeUnit.SECONDS);
                default -> throw new IllegalArgumentException(line);
            });
        }
        System.exit(0);
    }

    String answer(CompletableFuture<?> future, String done) throws Exception {
        try {
            Object result = future.get(30, TimeUnit.SECONDS);
            if (result instanceof com.hivemq.client.mqtt.mqtt5.message.publish.Mqtt5PublishResult published && published.getError().isPresent())
                return reason(published.getError().get());
            return done;
        } catch (ExecutionException error) {
            return reason(error.getCause());
        }
    }

    static String reason(Throwable error) {
        if (error instanceof Mqtt5ConnAckException refused) return "refused " + refused.getMqttMessage().getReasonCode().getCode();
        if (error instanceof Mqtt5PubAckException refused) return "refused " + refused.getMqttMessage().getReasonCode().getCode();
        if (error instanceof Mqtt5SubAckException refused) return "refused " + refused.getMqttMessage().getReasonCodes().get(0).getCode();
        if (error instanceof Mqtt5DisconnectException ended) return "disconnected " + ended.getMqttMessage().getReasonCode().getCode();
        return error.toString();
    }
}
