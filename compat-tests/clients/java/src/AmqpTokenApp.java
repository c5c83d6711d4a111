import com.rabbitmq.client.*;
import com.rabbitmq.client.impl.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;

/**
 * RabbitMQ's own client, which renews its token (update-secret) before it expires. Arguments: port, a queue, milliseconds to
 * work, and milliseconds after which a token is taken to expire. Reads the tokens from standard input, a line each, once it
 * said that it is ready; prints how many messages it sent, and how the connection ended.
 */
public final class AmqpTokenApp {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String queue = arguments[1];
        long lives = Long.parseLong(arguments[3]);
        System.out.println("ready");
        Deque<String> tokens = new ArrayDeque<>();
        new java.io.BufferedReader(new java.io.InputStreamReader(System.in)).lines().forEach(tokens::add);
        CredentialsProvider provider = new RefreshProtectedCredentialsProvider<String[]>() {
            protected String[] retrieveToken() {
                if (tokens.isEmpty()) throw new IllegalStateException("no more tokens");
                return new String[] {tokens.poll(), String.valueOf(System.currentTimeMillis() + lives)};
            }
            protected String usernameFromToken(String[] token) { return "ignored"; }
            protected String passwordFromToken(String[] token) { return token[0]; }
            protected Duration timeBeforeExpiration(String[] token) {
                return Duration.ofMillis(Long.parseLong(token[1]) - System.currentTimeMillis());
            }
        };
        ConnectionFactory factory = new ConnectionFactory();
        factory.setPort(port);
        factory.setAutomaticRecoveryEnabled(false);
        factory.setCredentialsProvider(provider);
        factory.setCredentialsRefreshService(new DefaultCredentialsRefreshService.DefaultCredentialsRefreshServiceBuilder()
            .refreshDelayStrategy(DefaultCredentialsRefreshService.fixedDelayBeforeExpirationRefreshDelayStrategy(Duration.ofMillis(1500)))
            .build());
        int sent = 0;
        long until = System.currentTimeMillis() + Long.parseLong(arguments[2]);
        Connection connection = null;
        try {
            connection = factory.newConnection();
            Channel channel = connection.createChannel();
            channel.queueDeclare(queue, true, false, false, null);
            channel.confirmSelect();
            while (System.currentTimeMillis() < until) {
                channel.basicPublish("", queue, null, "x".getBytes());
                channel.waitForConfirmsOrDie(5000);
                sent++;
                Thread.sleep(50);
            }
            System.out.println(sent + " sent, open");
        } catch (Exception error) {
            // Why the channel failed, the connection knows.
            System.out.println(sent + " sent, " + (connection == null ? error : connection.getCloseReason().getReason()));
        }
        System.exit(0);
    }
}
