import com.rabbitmq.client.*;
import java.io.FileInputStream;
import java.io.InputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.*;
import java.util.concurrent.ExecutionException;
import javax.net.ssl.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * RabbitMQ's and Kafka's own clients with certificates in key stores (PKCS #12, password "secret"; "-" is none).
 * Arguments: amqp|kafka AUTHORITY NAME, then pairs of PORT and KEYSTORE; prints a line for each pair: what came of reading
 * the queue NAME or of a record for the topic NAME.
 */
public final class CertificateApp {
    public static void main(String[] arguments) throws Exception {
        boolean isKafka = arguments[0].equals("kafka");
        for (int n = 3; n < arguments.length; n += 2) {
            int port = Integer.parseInt(arguments[n]);
            String store = arguments[n + 1].equals("-") ? null : arguments[n + 1];
            System.out.println(isKafka ? produce(arguments[1], arguments[2], port, store) : get(arguments[1], arguments[2], port, store));
        }
    }

    static String get(String authority, String queue, int port, String store) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (InputStream pem = new FileInputStream(authority)) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        KeyManager[] keys = null;
        if (store != null) {
            KeyStore own = KeyStore.getInstance("PKCS12");
            try (InputStream file = new FileInputStream(store)) { own.load(file, "secret".toCharArray()); }
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(own, "secret".toCharArray());
            keys = factory.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, trust.getTrustManagers(), null);
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("localhost");
        factory.setPort(port);
        factory.useSslProtocol(context);
        factory.enableHostnameVerification();
        factory.setSaslConfig(DefaultSaslConfig.EXTERNAL);
        factory.setAutomaticRecoveryEnabled(false);
        try (Connection connection = factory.newConnection()) {
            connection.createChannel().basicGet(queue, true);
            return "allowed";
        } catch (Exception error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            return (error.getClass().getSimpleName() + ": " + cause.getMessage()).replace('\n', ' ');
        }
    }

    static String produce(String authority, String topic, int port, String store) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", "localhost:" + port);
        settings.put("security.protocol", "SSL");
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", authority);
        if (store != null) {
            settings.put("ssl.keystore.type", "PKCS12");
            settings.put("ssl.keystore.location", store);
            settings.put("ssl.keystore.password", "secret");
            settings.put("ssl.key.password", "secret");
        }
        settings.put("max.block.ms", "2000");
        settings.put("delivery.timeout.ms", "4000");
        settings.put("request.timeout.ms", "3000");
        settings.put("linger.ms", "0");
        try (Producer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, "value")).get();
            return "allowed";
        } catch (ExecutionException error) {
            return error.getCause().getClass().getSimpleName() + ": " + error.getCause().getMessage();
        } catch (Exception error) {
            return error.getClass().getSimpleName() + ": " + error.getMessage();
        }
    }
}
