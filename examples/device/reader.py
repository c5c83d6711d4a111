"""A Kafka consumer that reads what devices publish. It does not use MQTT.

Everything published over MQTT is in the Kafka topic `mqtt`; a record's key is the MQTT topic.
"""

import argparse
import sys
import time

from confluent_kafka import Consumer, KafkaError

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--bootstrap", default="127.0.0.1:9092")
arguments.add_argument("--group", default="dashboard")
arguments.add_argument("--count", type=int, default=10, help="records to read; then it ends")
arguments.add_argument("--seconds", type=float, default=60, help="time to wait for them")
options = arguments.parse_args()

consumer = Consumer({"bootstrap.servers": options.bootstrap, "group.id": options.group, "auto.offset.reset": "earliest"})
consumer.subscribe(["mqtt"])
deadline = time.monotonic() + options.seconds
seen = 0
while seen < options.count and time.monotonic() < deadline:
    record = consumer.poll(0.5)
    if record is None or (record.error() and record.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        continue
    if record.error():
        sys.exit(str(record.error()))
    seen += 1
    print(f"kafka    {record.key().decode()}  {record.value().decode()}  (partition {record.partition()}, "
          f"offset {record.offset()})", flush=True)
consumer.close()
sys.exit(0 if seen == options.count else f"only {seen} of {options.count} records came")
