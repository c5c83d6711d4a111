//! Latencies in nanoseconds, counted in log-linear buckets: 64 to each power of two, so an error under 1.6 %.
//!
//! Deliberately lacks merging with weights and decimal tricks: it counts, and answers percentiles.

/// Buckets a power of two.
const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, some 18 minutes; what is above falls into the last bucket.
const POWERS: usize = 40;

/// Counts of latencies.
#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; POWERS * STEPS as usize], total: 0, max_ns: 0 }
    }

    fn bucket(ns: u64) -> usize {
        if ns < STEPS {
            return ns as usize;
        }
        let power = 63 - ns.leading_zeros() - STEPS_LOG2;
        let step = (ns >> power) - STEPS;
        ((u64::from(power) + 1) * STEPS + step) as usize
    }

    /// The middle of a bucket.
    fn value(bucket: usize) -> u64 {
        let (row, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
        if row == 0 { step } else { ((STEPS + step) << (row - 1)) + ((1 << (row - 1)) >> 1) }
    }

    pub(crate) fn record(&mut self, ns: u64) {
        let bucket = Self::bucket(ns).min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The latency below which `share` (0..1) of all lie, in microseconds.
    pub(crate) fn percentile_us(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Self::value(bucket).min(self.max_ns) as f64 / 1e3;
            }
        }
        self.max_ns as f64 / 1e3
    }

    pub(crate) fn max_us(&self) -> f64 {
        self.max_ns as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_its_value() {
        for ns in (0..2_000).chain([1_000_000, 123_456_789, 5_000_000_000]) {
            let value = Histogram::value(Histogram::bucket(ns));
            assert!(value.abs_diff(ns) * 60 <= ns.max(60), "{ns} became {value}");
        }
    }

    #[test]
    fn percentiles_of_an_even_spread() {
        let mut histogram = Histogram::new();
        for us in 1..=1_000 {
            histogram.record(us * 1_000);
        }
        assert!((histogram.percentile_us(0.5) - 500.0).abs() < 10.0);
        assert!((histogram.percentile_us(0.99) - 990.0).abs() < 20.0);
    }
}
