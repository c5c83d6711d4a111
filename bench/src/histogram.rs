//! Latencies, counted in an HDR histogram of three significant digits: an error under 0.1 %.

use hdrhistogram::Histogram as Hdr;

/// The largest latency that is distinguished: 2^40 ns, some 18 minutes. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 1 << 40;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts of latencies.
#[derive(Clone)]
pub(crate) struct Histogram(Hdr<u64>);

impl Histogram {
    #[expect(clippy::expect_used, reason = "the arguments are constant and valid")]
    pub(crate) fn new() -> Self {
        Self(Hdr::new_with_max(LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("valid bounds"))
    }

    pub(crate) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that `share` (0 to 1) of all do not exceed, in microseconds.
    pub(crate) fn percentile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    pub(crate) fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_an_even_distribution_are_exact_to_three_digits() {
        let mut histogram = Histogram::new();
        assert!(histogram.is_empty());
        for us in 1..=1_000 {
            histogram.record(us * 1_000);
        }
        assert!((histogram.percentile_us(0.5) - 500.0).abs() < 1.0);
        assert!((histogram.percentile_us(0.99) - 990.0).abs() < 1.0);
        assert!((histogram.max_us() - 1_000.0).abs() < 1.0);
    }

    #[test]
    fn a_latency_beyond_the_bound_counts_as_the_bound() {
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        assert!(histogram.max_us() >= LATENCY_NS_MAX as f64 / 1e3);
    }
}
