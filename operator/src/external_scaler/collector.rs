//! What there is to do, as metrics: an HPA scales by these where there is no `spec.scaling`.

use std::sync::Arc;

use capstan_crds::Key;
use capstan_scaling::Demand;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGauge, IntGaugeVec, Opts};

/// Consumers that have series of their own, four each. A Prometheus takes so many of one target with ease.
const CONSUMERS_MAX: usize = 5000;

/// Where the numbers come from.
pub(crate) trait Numbers: Send + Sync + 'static {
    /// What there is to do for each push Consumer of which something is known, in a steady order. One whose Broker is not heard is
    /// left out: an HPA that gets no number holds.
    fn all(&self) -> Vec<(Key, Demand)>;
}

/// Collects them each time that it is asked, on the active operator: of two numbers of one Consumer, of different moments, nobody
/// could make one.
pub(crate) struct Demanded {
    numbers: Arc<dyn Numbers>,
    /// 1 on the active operator.
    leader: IntGauge,
    descriptions: Vec<Desc>,
}

impl Demanded {
    /// Of these numbers, while `leader` is 1.
    ///
    /// # Errors
    /// Never: the names are ones that Prometheus takes.
    pub(crate) fn new(numbers: Arc<dyn Numbers>, leader: IntGauge) -> prometheus::Result<Self> {
        let gauges = Gauges::new()?;
        let descriptions = gauges.all().into_iter().flat_map(Collector::desc).cloned().collect();
        Ok(Self { numbers, leader, descriptions })
    }
}

/// The metrics of one collection: none is of a Consumer that is gone.
struct Gauges {
    demand: IntGaugeVec,
    oldest: GaugeVec,
    left_out: IntGauge,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let demand = Opts::new("capstan_consumer_demand", "Messages that need a pod of the Consumer.");
        let oldest =
            Opts::new("capstan_consumer_oldest_ready_seconds", "How long the oldest has been ready.");
        let left_out = "Consumers without series, because there are too many.";
        Ok(Self {
            demand: IntGaugeVec::new(demand, &["namespace", "consumer", "state"])?,
            oldest: GaugeVec::new(oldest, &["namespace", "consumer"])?,
            left_out: IntGauge::new("capstan_operator_consumers_left_out", left_out)?,
        })
    }

    fn show(&self, consumer: &Key, demand: &Demand) {
        let key = [consumer.namespace.as_str(), consumer.name.as_str()];
        for (state, messages) in [("ready", demand.ready), ("leased", demand.leased), ("due", demand.due)] {
            let messages = i64::try_from(messages).unwrap_or(i64::MAX);
            self.demand.with_label_values(&[key[0], key[1], state]).set(messages);
        }
        let age = demand.oldest_ready.unwrap_or_default();
        self.oldest.with_label_values(&key).set(age.as_secs_f64());
    }

    fn all(&self) -> [&dyn Collector; 3] {
        [&self.demand, &self.oldest, &self.left_out]
    }
}

impl Collector for Demanded {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauges) = Gauges::new() else { return Vec::new() };
        let all = if self.leader.get() == 1 { self.numbers.all() } else { Vec::new() };
        all.iter().take(CONSUMERS_MAX).for_each(|(consumer, demand)| gauges.show(consumer, demand));
        let left_out = all.len().saturating_sub(CONSUMERS_MAX);
        gauges.left_out.set(i64::try_from(left_out).unwrap_or(i64::MAX));
        gauges.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use prometheus::{Registry, TextEncoder};

    use super::*;

    /// A number of Consumers `c00000` and so on of the namespace `shop`, with 1 to 3 messages in each state.
    pub(crate) struct Many(pub(crate) usize);

    impl Numbers for Many {
        fn all(&self) -> Vec<(Key, Demand)> {
            let oldest_ready = Some(Duration::from_millis(1500));
            let demand = Demand { ready: 1, leased: 2, due: 3, oldest_ready, quiet_for: None };
            (0..self.0).map(|number| (Key::new("shop", &format!("c{number:05}")), demand)).collect()
        }
    }

    fn text(consumers: usize) -> String {
        text_of(consumers, true)
    }

    fn text_of(consumers: usize, is_active: bool) -> String {
        let (registry, leader) = (Registry::new(), IntGauge::new("leader", "Whether it is.").unwrap());
        leader.set(i64::from(is_active));
        registry.register(Box::new(Demanded::new(Arc::new(Many(consumers)), leader).unwrap())).unwrap();
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn a_standby_has_no_numbers() {
        let text = text_of(1, false);
        assert!(!text.contains("capstan_consumer_"), "{text}");
        assert!(text.contains("\ncapstan_operator_consumers_left_out 0\n"), "{text}");
    }

    #[test]
    fn each_consumer_has_its_numbers() {
        let text = text(1);
        for line in [
            "capstan_consumer_demand{consumer=\"c00000\",namespace=\"shop\",state=\"ready\"} 1",
            "capstan_consumer_demand{consumer=\"c00000\",namespace=\"shop\",state=\"leased\"} 2",
            "capstan_consumer_demand{consumer=\"c00000\",namespace=\"shop\",state=\"due\"} 3",
            "capstan_consumer_oldest_ready_seconds{consumer=\"c00000\",namespace=\"shop\"} 1.5",
            "capstan_operator_consumers_left_out 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_are_bounded_and_what_is_left_out_is_counted() {
        let text = text(CONSUMERS_MAX + 7);
        let series = text.lines().filter(|line| line.starts_with("capstan_consumer_")).count();
        assert_eq!(series, CONSUMERS_MAX * 4);
        assert!(text.contains("\ncapstan_operator_consumers_left_out 7\n"), "{}", text.len());
        assert!(!self::text(0).contains("capstan_consumer_"), "of none there is no number");
    }
}
