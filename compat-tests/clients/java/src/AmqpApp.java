import com.rabbitmq.client.*;
import java.util.*;
import java.util.concurrent.*;

/** RabbitMQ's own client: topology, confirms, returns, consumers, dead channels. */
public final class AmqpApp {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        factory.setAutomaticRecoveryEnabled(false);
        String name = arguments[1];
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.exchangeDeclare(name + "-direct", "direct", true);
            channel.exchangeDeclare(name + "-fanout", "fanout", false, true, null);
            channel.exchangeDeclare(name + "-headers", "headers", true);
            channel.queueDeclare(name, true, false, false, null);
            channel.queueBind(name, name + "-direct", "key");
            channel.queueBind(name, name + "-headers", "", Map.of("x-match", "all", "a", 1, "b", "two"));
            channel.exchangeBind(name + "-direct", name + "-fanout", "key");
            channel.confirmSelect();

            ConcurrentNavigableMap<Long, String> open = new ConcurrentSkipListMap<>();
            channel.addConfirmListener((tag, multiple) -> { if (multiple) open.headMap(tag, true).clear(); else open.remove(tag); },
                (tag, multiple) -> { throw new AssertionError("nack"); });
            int count = 2000;
            for (int n = 0; n < count; n++) {
                open.put(channel.getNextPublishSeqNo(), "m" + n);
                channel.basicPublish(n % 2 == 0 ? name + "-direct" : name + "-fanout", n % 2 == 0 ? "key" : "key", n % 3 == 0,
                    MessageProperties.PERSISTENT_TEXT_PLAIN, ("m" + n).getBytes());
            }
            channel.waitForConfirmsOrDie(30_000);
            check(channel.messageCount(name) == count, "messages " + channel.messageCount(name));

            BlockingQueue<Integer> returns = new LinkedBlockingQueue<>();
            channel.addReturnListener(returned -> returns.add(returned.getReplyCode()));
            channel.basicPublish(name + "-direct", "nowhere", true, null, new byte[1]);
            check(Objects.equals(returns.poll(10, TimeUnit.SECONDS), 312), "returned");
            channel.basicPublish(name + "-headers", "", true, new AMQP.BasicProperties.Builder().headers(Map.of("a", 1, "b", "two", "c", 3)).build(), "by headers".getBytes());
            channel.waitForConfirmsOrDie(10_000);

            Channel consuming = connection.createChannel();
            consuming.basicQos(50);
            List<String> got = Collections.synchronizedList(new ArrayList<>());
            CountDownLatch all = new CountDownLatch(count + 1);
            Set<String> rejectedOnce = ConcurrentHashMap.newKeySet();
            String tag = consuming.basicConsume(name, false, (t, delivery) -> {
                String body = new String(delivery.getBody());
                if (body.endsWith("77") && rejectedOnce.add(body)) { consuming.basicReject(delivery.getEnvelope().getDeliveryTag(), true); return; }
                check(delivery.getEnvelope().isRedeliver() == rejectedOnce.contains(body), "redelivered flag of " + body);
                got.add(body);
                if (got.size() % 10 == 0 || got.size() > count - 20) consuming.basicAck(delivery.getEnvelope().getDeliveryTag(), true);
                all.countDown();
            }, t -> { });
            check(all.await(60, TimeUnit.SECONDS), "consumed " + got.size());
            check(new HashSet<>(got).size() == count + 1, "each once");
            consuming.basicCancel(tag);
            consuming.close();

            channel.basicPublish("", name, null, "tx".getBytes());
            channel.waitForConfirmsOrDie(10_000);
            Channel tx = connection.createChannel();
            tx.txSelect();
            tx.basicPublish("", name, null, "rolled back".getBytes());
            tx.txRollback();
            tx.basicPublish("", name, null, "committed".getBytes());
            tx.txCommit();
            GetResponse first = tx.basicGet(name, false);
            check(new String(first.getBody()).equals("tx"), "first");
            tx.basicAck(first.getEnvelope().getDeliveryTag(), false);
            tx.txCommit();
            check(new String(tx.basicGet(name, true).getBody()).equals("committed"), "second");

            Channel dead = connection.createChannel();
            try { dead.queueDeclare(name, false, false, false, null); throw new AssertionError("no clash"); }
            catch (java.io.IOException error) {
                ShutdownSignalException reason = (ShutdownSignalException) error.getCause();
                check(((AMQP.Channel.Close) reason.getReason()).getReplyCode() == 406, "406");
            }
            check(connection.isOpen() && !dead.isOpen(), "only the channel is closed");

            String own = channel.queueDeclare().getQueue();
            check(own.startsWith("amq.gen-"), own);
            ConnectionFactory other = factory.clone();
            try (Connection second = other.newConnection()) {
                Channel locked = second.createChannel();
                try { locked.basicGet(own, true); throw new AssertionError("not exclusive"); }
                catch (java.io.IOException error) {
                    check(((AMQP.Channel.Close) ((ShutdownSignalException) error.getCause()).getReason()).getReplyCode() == 405, "405");
                }
            }
            BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
            String consumer = channel.basicConsume(name, true, (t, delivery) -> { }, t -> cancelled.add(t));
            try (Connection second = other.newConnection()) { second.createChannel().queueDelete(name); }
            check(consumer.equals(cancelled.poll(10, TimeUnit.SECONDS)), "cancel notification");
            channel.exchangeDelete(name + "-direct");
            channel.exchangeDelete(name + "-headers");
        }
        System.out.println("done");
    }

    static void check(boolean truth, String what) {
        if (!truth) throw new AssertionError(what);
    }
}
