"""A device: publishes its temperature over MQTT. It does not use Kafka."""

import argparse
import json
import random
import time

import paho.mqtt.client as mqtt

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--host", default="127.0.0.1")
arguments.add_argument("--port", type=int, default=1883)
arguments.add_argument("--name", default="room1")
arguments.add_argument("--count", type=int, default=10, help="readings to publish")
arguments.add_argument("--interval", type=float, default=0.2, help="seconds between two")
options = arguments.parse_args()

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"device-{options.name}", protocol=mqtt.MQTTv5)
client.connect(options.host, options.port)
client.loop_start()
for number in range(options.count):
    reading = json.dumps({"celsius": round(random.uniform(18, 24), 1), "reading": number})
    # QoS 1: the broker answers once the reading is on its disk.
    client.publish(f"sensors/{options.name}/temp", reading, qos=1).wait_for_publish(10)
    print(f"device   sensors/{options.name}/temp  {reading}", flush=True)
    time.sleep(options.interval)
client.disconnect()
client.loop_stop()
