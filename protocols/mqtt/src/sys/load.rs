//! Moving averages of what happens in a minute, over 1, 5 and 15 minutes, as Mosquitto has them.

use tokio::time::Instant;

use super::counts::{Count, Totals};

/// Time between two measurements, at least.
const INTERVAL_S_MIN: f64 = 1.0;

/// What is measured, with its topics.
#[rustfmt::skip]
const MEASURED: [(Count, [&str; 3]); 9] = [
    (Count::PacketsReceived, ["$SYS/broker/load/messages/received/1min", "$SYS/broker/load/messages/received/5min", "$SYS/broker/load/messages/received/15min"]),
    (Count::PacketsSent, ["$SYS/broker/load/messages/sent/1min", "$SYS/broker/load/messages/sent/5min", "$SYS/broker/load/messages/sent/15min"]),
    (Count::PublishesDropped, ["$SYS/broker/load/publish/dropped/1min", "$SYS/broker/load/publish/dropped/5min", "$SYS/broker/load/publish/dropped/15min"]),
    (Count::PublishesReceived, ["$SYS/broker/load/publish/received/1min", "$SYS/broker/load/publish/received/5min", "$SYS/broker/load/publish/received/15min"]),
    (Count::PublishesSent, ["$SYS/broker/load/publish/sent/1min", "$SYS/broker/load/publish/sent/5min", "$SYS/broker/load/publish/sent/15min"]),
    (Count::BytesReceived, ["$SYS/broker/load/bytes/received/1min", "$SYS/broker/load/bytes/received/5min", "$SYS/broker/load/bytes/received/15min"]),
    (Count::BytesSent, ["$SYS/broker/load/bytes/sent/1min", "$SYS/broker/load/bytes/sent/5min", "$SYS/broker/load/bytes/sent/15min"]),
    (Count::Sockets, ["$SYS/broker/load/sockets/1min", "$SYS/broker/load/sockets/5min", "$SYS/broker/load/sockets/15min"]),
    (Count::Connects, ["$SYS/broker/load/connections/1min", "$SYS/broker/load/connections/5min", "$SYS/broker/load/connections/15min"]),
];

/// The averages.
pub(super) struct Loads {
    measured_at: Instant,
    /// The totals then.
    totals: [u64; MEASURED.len()],
    per_minute: [[f64; 3]; MEASURED.len()],
}

impl Loads {
    pub(super) fn new(now: Instant) -> Loads {
        Loads { measured_at: now, totals: [0; MEASURED.len()], per_minute: [[0.0; 3]; MEASURED.len()] }
    }

    /// Takes what happened since the last measurement into the averages.
    pub(super) fn measure(&mut self, now: Instant, totals: &Totals) {
        let seconds = now.saturating_duration_since(self.measured_at).as_secs_f64();
        if seconds < INTERVAL_S_MIN {
            return;
        }
        self.measured_at = now;
        for (((what, _), before), averages) in MEASURED.iter().zip(&mut self.totals).zip(&mut self.per_minute)
        {
            let total = totals.get(*what);
            let rate = total.saturating_sub(std::mem::replace(before, total)) as f64 * 60.0 / seconds;
            for (average, minutes) in averages.iter_mut().zip([1.0, 5.0, 15.0]) {
                let kept = (-seconds / (minutes * 60.0)).exp();
                *average = kept.mul_add(*average - rate, rate);
            }
        }
    }

    /// The topics with their values.
    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, String)> {
        let topics = MEASURED.iter().flat_map(|(_, topics)| *topics);
        topics.zip(self.per_minute.iter().flatten().map(|average| format!("{average:.2}")))
    }
}

/// The topics.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    MEASURED.iter().flat_map(|(_, topics)| *topics)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::counts::count;
    use super::*;

    #[test]
    fn averages_near_the_rate_and_fall_afterwards() {
        let (start, totals) = (Instant::now(), Totals::default());
        let mut loads = Loads::new(start);
        for minute in 1..=30 {
            count(Count::Connects, 600);
            totals.end_turn();
            loads.measure(start + Duration::from_secs(minute * 60), &totals);
        }
        let of = |loads: &Loads| loads.per_minute[MEASURED.len() - 1].map(|average| average.round() as u64);
        assert_eq!(of(&loads), [600, 599, 519]);
        loads.measure(start + Duration::from_secs(31 * 60), &totals);
        assert_eq!(of(&loads), [221, 490, 485]);
        assert_eq!(loads.values().count(), 27);
    }
}
