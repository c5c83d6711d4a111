import com.rabbitmq.client.*;
import com.rabbitmq.client.impl.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;

/**
 * RabbitMQ's own client, which renews its token (update-secret) before it expires. Arguments: port, a queue, milliseconds to
 * work, and tokens with the milliseconds that each lives; prints how many messages it sent, and how the connection is.
 */
public final class AmqpTokenApp {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String queue = arguments[1];
        long until = System.currentTimeMillis() + Long.parseLong(arguments[2]);
        Deque<String> tokens = new ArrayDeque<>(List.of(arguments).subList(3, arguments.length));
        CredentialsProvider provider = new RefreshProtectedCredentialsProvider<String[]>() {
            protected String[] retrieveToken() {
                if (tokens.isEmpty()) throw new IllegalStateException("no more tokens");
                String token = tokens.poll();
                return new String[] {token, String.valueOf(System.currentTimeMillis() + Long.parseLong(tokens.poll()))};
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
        Connection connection = factory.newConnection();
        try {
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
            System.out.println(sent + " sent, " + connection.getCloseReason().getReason());
        }
        System.exit(0);
    }
}
