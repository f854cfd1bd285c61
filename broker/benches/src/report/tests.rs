//! What the tables say about made-up samples.

use super::*;
use crate::cell::Row;
use crate::noise::Probe;
use crate::run::Cost;

fn sample(round: u32, peer: Peer, value: f64, foreign: f64) -> Sample {
    let figure = Figure { title: "publish".to_owned(), value, unit: Unit::Rate, against: None };
    let cost =
        Cost { messages: 500_000, server_cpu: 10.0, client_cpu: 5.0, syncs: Some(10_000), ..Cost::default() };
    let probe = Probe { hash_ms: 1.0, sync_ms: 1.0, foreign: 0.0 };
    Sample { round, row: Row::Publish, peer, title: "publish", figures: vec![figure], cost, probe, foreign }
}

#[test]
fn ratios_are_taken_within_a_round() {
    // Medians of each would give 1.0.
    let samples = [
        sample(0, Peer::Redis, 10_000.0, 0.0),
        sample(0, Peer::Capstan, 20_000.0, 0.0),
        sample(1, Peer::Capstan, 10_000.0, 0.0),
        sample(1, Peer::Redis, 5_000.0, 0.0),
        sample(2, Peer::Capstan, 40_000.0, 0.0),
        sample(2, Peer::Redis, 20_000.0, 0.0),
    ];
    let text = markdown(&samples);
    assert!(text.contains("| publish | 20.0k/s | 10.0k/s | **2.00** (2.00–2.00) |"), "{text}");
    assert!(text.contains("| publish | Capstan | 20.0 | 10.0 | 0.0200 |"), "{text}");
}

#[test]
fn noisy_samples_count_only_where_there_is_no_other() {
    let samples = [
        sample(0, Peer::Capstan, 1_000.0, 1.0),
        sample(1, Peer::Capstan, 7_000.0, 0.1),
        sample(1, Peer::Redis, 3_500.0, 1.0),
    ];
    let text = markdown(&samples);
    assert!(text.contains("| publish | 7.0k/s | 3.5k/s | **2.00** (2.00–2.00) |"), "{text}");
    assert!(text.contains("2 of 3 measurements"), "{text}");
}

#[test]
fn two_states_of_one_server_are_compared() {
    let state = |title: &str, value, against: Option<&str>| Figure {
        title: title.to_owned(),
        value,
        unit: Unit::Rate,
        against: against.map(str::to_owned),
    };
    let mut one = sample(0, Peer::Capstan, 0.0, 0.0);
    one.figures = vec![state("few", 100.0, None), state("many", 90.0, Some("few"))];
    let text = markdown(&[one]);
    assert!(text.contains("| many ÷ few | **0.90** (0.90–0.90) |"), "{text}");
}

#[test]
fn only_what_is_between_the_marks_is_replaced() {
    let text = format!("before\n{BEGIN}old\n{END}\nafter\n");
    let text = replaced(&text, "new").unwrap();
    assert_eq!(text, format!("before\n{BEGIN}\nnew\n\n{END}\nafter\n"));
    assert_eq!(replaced(&text, "new").unwrap(), text);
    replaced("nothing", "new").unwrap_err();
}
