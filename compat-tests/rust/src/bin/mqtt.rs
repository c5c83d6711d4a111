//! rumqttc against the broker: `mqtt PORT NAME VERSION` (4 or 5). Every quality of service, a retained value, a will.

use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

macro_rules! everyday {
    ($module:path, $name:expr, $port:expr, $packet:ident, $will:expr) => {{
        use $module as mqtt;
        let (name, port): (String, u16) = ($name, $port);
        let options = |id: &str| {
            let mut options = mqtt::MqttOptions::new(format!("{name}-{id}"), "127.0.0.1", port);
            options.set_keep_alive(Duration::from_secs(30));
            options
        };
        // Connects, acts, acts again once subscribed, and runs until so many messages came.
        let run = |options: mqtt::MqttOptions,
                   act: &dyn Fn(&mqtt::Client),
                   subscribed: &dyn Fn(),
                   count: usize| {
            let options_shown = options.client_id();
            let (client, mut connection) = mqtt::Client::new(options, 100);
            let mut got = Vec::new();
            let mut acted = false;
            while got.len() < count || !acted {
                let event = connection.recv_timeout(WAIT).unwrap_or_else(|_| {
                    panic!("no event in time for {}; {count} messages wanted, {got:?} came", options_shown)
                });
                let event = event.expect("a good event");
                match event {
                    mqtt::Event::Incoming($packet::ConnAck(_)) => {
                        act(&client);
                        acted = true;
                    }
                    mqtt::Event::Incoming($packet::SubAck(_)) => subscribed(),
                    mqtt::Event::Incoming($packet::Publish(message)) => {
                        got.push((format!("{:?}", message.qos), message.retain, message.payload.to_vec()));
                    }
                    _ => {}
                }
            }
            (got, client, connection)
        };
        use mqtt::mqttbytes::QoS;
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

        let (got, ..) = run(
            options("own"),
            &|client| {
                client.subscribe(format!("{name}/+"), QoS::ExactlyOnce).unwrap();
                for n in 0..30usize {
                    client
                        .publish(format!("{name}/x"), qos[n % 3], false, format!("{n}").into_bytes())
                        .unwrap();
                }
            },
            &|| {},
            30,
        );
        for wanted in qos {
            // Those of one quality come in their order.
            let of_it: Vec<_> = got.iter().filter(|(qos, ..)| *qos == format!("{wanted:?}")).collect();
            let numbers: Vec<usize> =
                of_it.iter().map(|(.., body)| String::from_utf8_lossy(body).parse().unwrap()).collect();
            assert_eq!(numbers.len(), 10);
            assert!(numbers.is_sorted());
        }

        let (got, ..) = run(
            options("retaining"),
            &|client| {
                client.subscribe(format!("{name}/state"), QoS::AtLeastOnce).unwrap();
                client.publish(format!("{name}/state"), QoS::AtLeastOnce, true, b"kept".to_vec()).unwrap();
            },
            &|| {},
            1,
        );
        assert_eq!(got[0].2, b"kept");
        let (got, ..) = run(
            options("late"),
            &|client| client.subscribe(format!("{name}/state"), QoS::AtLeastOnce).unwrap(),
            &|| {},
            1,
        );
        assert_eq!((got[0].1, &got[0].2[..]), (true, &b"kept"[..]));

        // A client that is lost: its connection ends without a word, and its will is published.
        let mut dying = options("dying");
        dying.set_last_will($will(format!("{name}/will"), "gone"));
        let (got, ..) = run(
            options("heir"),
            &|client| client.subscribe(format!("{name}/will"), QoS::AtLeastOnce).unwrap(),
            &|| {
                let (_, lost, connection) = run(dying.clone(), &|_| {}, &|| {}, 0);
                drop((lost, connection));
            },
            1,
        );
        assert_eq!(got[0].2, b"gone");
    }};
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().expect("PORT").parse().expect("a port");
    let name = arguments.next().expect("NAME");
    match arguments.next().as_deref() {
        Some("4") => {
            use rumqttc::Packet;
            let will = |topic: String, text: &str| {
                rumqttc::LastWill::new(topic, text.as_bytes().to_vec(), rumqttc::QoS::AtLeastOnce, false)
            };
            everyday!(rumqttc, name, port, Packet, will);
        }
        Some("5") => {
            use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
            let will = |topic: String, text: &str| {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                LastWill::new(topic, text.as_bytes().to_vec(), qos, false, None)
            };
            everyday!(rumqttc::v5, name, port, Packet, will);
        }
        _ => panic!("VERSION is 4 or 5"),
    }
    println!("everything as it should be");
}
